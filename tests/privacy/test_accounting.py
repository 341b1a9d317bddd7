import math

import dp_accounting
import dp_accounting.pld
import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant, RDPAccountant
from scipy import stats

from fedsim.mistakes import Mistake
from fedsim.privacy import accounting
from fedsim.privacy.accounting import (
    ACCOUNTANT,
    MOST_STEPS,
    Guarantee,
    Segment,
    epsilon,
    guarantee,
    noise_multiplier,
    profile,
)
from tests.cases import others_whole

# q, sigma, steps, delta, epsilon by PLD; add or remove one. From the literature's standard settings.
PUBLISHED = {
    "R1": (0.01, 1.0, 1000, 1e-5, 1.828244),
    "R2": (0.01, 4.0, 10000, 1e-5, 0.946999),
    "R3": (0.04, 1.5, 2250, 1e-5, 6.768787),
    "R4": (1 / 19, 1.1, 380, 1e-4, 4.936016),
    "R5": (1.0, 10.0, 100, 1e-5, 4.377178),
    "R6": (1e-4, 0.8, 100_000, 1e-8, 0.324407),
    "E1": (1.0, 1.0, 1, 1e-5, 4.377178),
    "E2": (0.01, 0.3, 100, 1e-5, 26.834715),
    "E4": (0.01, 1.0, 1, 1e-5, 0.199450),
}
# What Microsoft's PRV accountant proves for the same settings: no bound may lie below.
LOWER = {
    "R1": 1.8181, "R2": 0.9368, "R3": 6.7584, "R4": 4.9256, "R5": 4.3669,
    "R6": 0.3092, "E1": 4.3669, "E2": 26.824, "E4": 0.1894,
}  # fmt: skip
REPLACE_ONE = {"R1": 2.843, "R3": 13.488, "R4": 8.409, "R5": 9.997}


@pytest.mark.parametrize("name", others_whole(PUBLISHED, "R2", "R3", "R5", "E1"))
def test_epsilon_is_the_published_one(name: str):
    """A1: within 1e-3, and never below what another library proves as a lower bound."""
    q, sigma, steps, delta, expected = PUBLISHED[name]
    found = epsilon((Segment(q, sigma, steps),), delta)
    assert found == pytest.approx(expected, abs=1e-3)
    assert found >= LOWER[name]


@pytest.mark.parametrize("name", others_whole(REPLACE_ONE, "R5"))
def test_replacing_a_row_costs_more_than_adding_one(name: str):
    """A10."""
    q, sigma, steps, delta, _ = PUBLISHED[name]
    assert epsilon((Segment(q, sigma, steps),), delta, "replace-one") == pytest.approx(REPLACE_ONE[name], abs=1e-3)


@pytest.mark.filterwarnings("ignore:Optimal order is the largest alpha", "ignore::RuntimeWarning:opacus")
@pytest.mark.parametrize("name", others_whole(["R1", "R2", "R3", "R4", "R5", "R6"], "R2", "R5"))
def test_a_second_library_agrees(name: str):
    """A11: Opacus' PRV is at most its eps_error above the truth, its RDP is a looser bound."""
    q, sigma, steps, delta, _ = PUBLISHED[name]
    found = epsilon((Segment(q, sigma, steps),), delta)
    prv, rdp = PRVAccountant(), RDPAccountant()
    prv.history = rdp.history = [(sigma, q, steps)]
    assert found == pytest.approx(prv.get_epsilon(delta), abs=0.0115)
    assert found <= rdp.get_epsilon(delta)


@pytest.mark.parametrize(("sigma", "steps", "delta"), [(0.5, 1, 1e-5), (1, 1, 1e-5), (10, 100, 1e-5), (40, 10, 1e-3)])
def test_without_sampling_epsilon_solves_the_closed_form(sigma: float, steps: int, delta: float):
    """A3: Balle and Wang's delta(epsilon), written out naively."""
    eps, mu = epsilon((Segment(1.0, sigma, steps),), delta), math.sqrt(steps) / sigma

    def phi(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    assert phi(mu / 2 - eps / mu) - math.exp(eps) * phi(-mu / 2 - eps / mu) == pytest.approx(delta, rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.5, 50), st.integers(1, 500), st.floats(1e-8, 1e-2))
def test_epsilon_rises_with_steps_and_falls_with_noise_and_delta(sigma: float, steps: int, delta: float):
    middle = epsilon((Segment(1.0, sigma, steps),), delta)
    assert epsilon((Segment(1.0, sigma, steps + 1),), delta) >= middle
    assert epsilon((Segment(1.0, sigma * 1.1, steps),), delta) <= middle
    assert epsilon((Segment(1.0, sigma, steps),), delta * 2) <= middle


@pytest.mark.whole
def test_epsilon_rises_with_the_sampling_rate():
    found = [epsilon((Segment(q, 2.0, 50),), 1e-5) for q in (0.05, 0.2, 0.5, 0.9, 1.0)]
    assert found == sorted(found)


@pytest.mark.parametrize("number", others_whole(range(4), 0))
def test_with_sampling_epsilon_rises_with_steps_and_falls_with_noise_and_delta(number: int):
    """A4, by PLD; its discretisation is not monotone to the last digit."""
    q, sigma, steps, delta = settings_of(number + 1, np.random.default_rng(2))[number]
    middle = epsilon((Segment(q, sigma, steps),), delta)
    assert epsilon((Segment(q, sigma, steps * 2),), delta) >= middle - 1e-3
    assert epsilon((Segment(q, sigma * 1.2, steps),), delta) <= middle + 1e-3
    assert epsilon((Segment(q, sigma, steps),), delta * 2) <= middle + 1e-3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:Optimal order is")
@pytest.mark.parametrize(("accountant", "draws", "slack"), [("RDP", 500, 1e-9), ("ours", 50, 1e-3)])
def test_epsilon_moves_the_right_way_in_random_settings(accountant: str, draws: int, slack: float):
    """A4: up in steps and rate, down in noise and delta. PLD's discretisation is monotone but for its last digits."""

    def spent(q: float, sigma: float, steps: int, delta: float) -> float:
        own = (Segment(q, sigma, steps),)
        return (
            epsilon(own, delta)
            if accountant == "ours"
            else accounting._bound(RdpAccountant(accounting._ORDERS), own, delta)
        )

    for q, sigma, steps, delta in settings_of(draws, np.random.default_rng(4)):
        middle = spent(q, sigma, steps, delta)
        if middle > 200:
            sigma, middle = 10 * sigma, spent(q, 10 * sigma, steps, delta)  # PLD takes minutes there
        slack_here = slack * max(1.0, middle)
        assert spent(q, sigma, 2 * steps, delta) >= middle - slack_here
        assert spent(min(1.0, 1.5 * q), sigma, steps, delta) >= middle - slack_here
        assert spent(q, 1.2 * sigma, steps, delta) <= middle + slack_here
        assert spent(q, sigma, steps, 2 * delta) <= middle + slack_here


def optimistic(q: float, sigma: float, steps: int, delta: float) -> float:
    """Return a lower bound on epsilon: PLD rounded down."""
    one = from_gaussian_mechanism(sigma, sampling_prob=q, pessimistic_estimate=False)
    return one.self_compose(steps).get_epsilon_for_delta(delta)


def settings_of(number: int, random: np.random.Generator) -> list[tuple[float, float, int, float]]:
    return [
        (10 ** random.uniform(-3, 0), random.uniform(0.5, 10), int(10 ** random.uniform(0, 3.7)),
         10 ** random.uniform(-8, -3)) for _ in range(number)
    ]  # fmt: skip


def check_order(q: float, sigma: float, steps: int, delta: float) -> None:
    """Lower bound <= ours <= Opacus' PRV, an upper bound, and <= RDP: three libraries and four methods."""
    found, prv = epsilon((Segment(q, sigma, steps),), delta), PRVAccountant()
    if found > 200:  # PRV's grid takes minutes there
        return
    prv.history = [(sigma, q, steps)]
    assert optimistic(q, sigma, steps, delta) <= found <= prv.get_epsilon(delta)  # which is 0.01 above its estimate
    rdp = RdpAccountant().compose(PoissonSampledDpEvent(q, GaussianDpEvent(sigma)), steps)
    assert found <= rdp.get_epsilon(delta)


@pytest.mark.whole
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:Optimal order is")
@pytest.mark.parametrize("number", range(8))
def test_epsilon_lies_between_bounds_of_other_methods(number: int):
    """A2, a few of the random settings."""
    check_order(*settings_of(8, np.random.default_rng(0))[number])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:Optimal order is")
def test_epsilon_lies_between_bounds_of_other_methods_in_200_settings():
    """A2."""
    for setting in settings_of(200, np.random.default_rng(1)):
        check_order(*setting)


def test_very_many_tiny_steps_are_not_overcharged():
    """PLD at 1e-4 alone says 0.0353, Opacus' PRV 0.0267; the truth is 0.0169."""
    assert epsilon((Segment(1e-4, 5.0, 100_000),), 1e-5) == pytest.approx(0.016881, abs=1e-4)


def replaced(q: float, sigma: float, steps: int, delta: float) -> float:
    """Return the epsilon of two neighbours, a row replaced by its opposite, without any accountant, to about 0.1 %.

    The row is at +1 or at -1, in a step with probability q, beside others that add up to 0. No bound that holds for all
    neighbours lies below. One step's privacy loss is put on a grid, rounded to the nearest; a power of its Fourier
    transform is that of all steps. What rounding does to the mean is taken off again.
    """
    outputs = np.linspace(-1 - 12 * sigma, 1 + 12 * sigma, 200_001)
    without = (1 - q) * stats.norm.pdf(outputs, 0, sigma)
    first = without + q * stats.norm.pdf(outputs, 1, sigma)
    second = without + q * stats.norm.pdf(outputs, -1, sigma)
    probability = first / first.sum()
    loss = np.log(first / second)

    mean = probability @ loss
    deviation = math.sqrt(steps * (probability @ (loss - mean) ** 2))  # of the loss of all steps
    size = 2**18
    step = 2 * max(np.abs(loss - mean).max(), 12 * deviation) / size
    places = np.rint((loss - mean) / step).astype(int)
    one = np.bincount(places % size, probability, size)
    together = np.fft.irfft(np.fft.rfft(one) ** steps, size).clip(0)

    rounding = probability @ places * step
    at = np.fft.fftfreq(size, 1 / size)
    losses = at * step + steps * (mean - rounding)

    def delta_of(bound: float) -> float:
        beyond = losses > bound
        return float(together[beyond] @ -np.expm1(bound - losses[beyond]))

    low, high = 0.0, 200.0
    for _ in range(50):
        middle = (low + high) / 2
        if delta_of(middle) > delta:
            low = middle
        else:
            high = middle
    return high


@pytest.mark.whole
@pytest.mark.parametrize(
    ("q", "sigma", "steps", "delta", "expected"),
    [
        (0.01, 1.0, 20_000, 1e-5, 16.865),
        (0.001, 1.0, 50_000, 1e-6, 2.177),
        (0.002, 2.0, 20_000, 1e-5, 1.067),
        (1e-4, 5.0, 100_000, 1e-5, 0.0354),
    ],
)
def test_replaced_rows_cost_what_an_independent_computation_says_in_very_many_steps(
    q: float, sigma: float, steps: int, delta: float, expected: float
):
    """A10: where PLD is helped, it is by nothing that holds for added rows only.

    For the first setting Renyi accounting of added rows says 10.09, which is no bound on what a replaced row costs.
    """
    found = epsilon((Segment(q, sigma, steps),), delta, "replace-one")
    independent = replaced(q, sigma, steps, delta)
    assert independent == pytest.approx(expected, rel=2e-3)
    assert independent * (1 - 2e-3) <= found <= independent * 1.01
    assert found > 1.5 * epsilon((Segment(q, sigma, steps),), delta)


def test_the_independent_computation_is_right_where_the_truth_is_known():
    """In every step, a replaced row is a Gaussian mechanism of sensitivity 2, which has a closed form."""
    assert replaced(1.0, 100.0, 400, 1e-5) == pytest.approx(
        epsilon((Segment(1.0, 100.0, 400),), 1e-5, "replace-one"), rel=1e-3
    )


@pytest.mark.whole
def test_steps_in_which_all_rows_are_compose_with_sampled_ones():
    """Each kind counts with all of its steps; sampled steps that do nearly nothing leave the closed form."""
    every, few = Segment(1.0, 20.0, 100), Segment(1e-4, 5.0, 10)
    for neighbours in ("add-or-remove-one", "replace-one"):
        alone = epsilon((every,), 1e-5, neighbours)
        assert alone <= epsilon((every, few), 1e-5, neighbours) <= alone + 0.02
        assert epsilon((every, Segment(0.01, 1.0, 1000)), 1e-5, neighbours) > max(
            alone, epsilon((Segment(0.01, 1.0, 1000),), 1e-5, neighbours)
        )


@pytest.mark.whole
def test_sites_compose_like_rounds():
    """A person with a record at two sites: both sites' releases, 2 x 190 steps, cost what 380 steps cost."""
    assert epsilon([Segment(1 / 19, 1.1, 190), Segment(1 / 19, 1.1, 190)], 1e-4) == pytest.approx(4.936, abs=1e-3)


def test_what_promises_nothing_is_infinite_and_the_slow_accountant_is_not_asked(monkeypatch: pytest.MonkeyPatch):
    def asked(*settings: object, **more: object) -> None:
        raise AssertionError("it would take minutes")

    monkeypatch.setattr(dp_accounting.pld, "PLDAccountant", asked)
    assert epsilon((Segment(0.5, 1.0, 10_000_000),), 1e-5) == math.inf
    assert epsilon((Segment(0.5, 0.3, 10_000),), 1e-5, "replace-one") == math.inf


@pytest.mark.whole
@pytest.mark.parametrize("segment", [Segment(1.0, 2.0, 5), Segment(0.1, 1.0, 50)], ids=["closed form", "PLD"])
def test_the_profile_agrees_with_epsilon(segment: Segment):
    """The delta of an epsilon is the one whose epsilon it is."""
    deltas = [0.1, 1e-3, 1e-6]  # so that epsilons ascend
    found = profile([segment], [epsilon([segment], delta) for delta in deltas])
    assert all(0.99 * delta <= bound <= 1.1 * delta for delta, bound in zip(deltas, found, strict=True))


def test_a_guarantee_says_all_that_belongs_to_it():
    found = guarantee([Segment(1.0, 10.0, 100)], 1e-5, "replace-one")
    assert found == Guarantee(epsilon([Segment(1.0, 10.0, 100)], 1e-5, "replace-one"), 1e-5, "replace-one", ACCOUNTANT)


def test_rounds_compose_to_the_whole():
    """A7, M7: 20 rounds of 19 steps cost what 380 steps cost, not what 19 do."""
    rounds = tuple(Segment(1 / 19, 1.1, 19) for _ in range(20))
    assert epsilon(rounds, 1e-4) == pytest.approx(4.936016, abs=1e-3)


@pytest.mark.whole
def test_unlike_steps_compose_whatever_their_order():
    first, second = Segment(0.01, 1.0, 500), Segment(0.02, 2.0, 500)
    assert epsilon((first, second), 1e-5) == pytest.approx(1.6150791756, abs=1e-4)
    assert epsilon((second, first), 1e-5) == epsilon((first, second), 1e-5)


def test_nothing_released_costs_nothing():
    assert epsilon((), 1e-5) == 0


BAD = [
    {"noise_multiplier": math.nan},
    {"noise_multiplier": math.inf},
    {"noise_multiplier": 0.0},
    {"noise_multiplier": -1.0},
    {"noise_multiplier": 0.05},
    {"steps": 100.5},
    {"steps": -5},
    {"steps": 0},
    {"steps": True},
    {"sampling_rate": 1.5},
    {"sampling_rate": 0.0},
    {"sampling_rate": -0.1},
    {"sampling_rate": math.nan},
    {"sampling_rate": "0.1"},
    {"noise_multiplier": "1"},
    {"noise_multiplier": None},
    {"steps": "10"},
]


@pytest.mark.parametrize("change", BAD)
def test_a_nonsense_mechanism_is_refused_before_any_accountant_sees_it(change: dict):
    """A5."""
    with pytest.raises(Mistake, match="expected"):
        Segment(**({"sampling_rate": 0.1, "noise_multiplier": 1.0, "steps": 10} | change))


@pytest.mark.parametrize("delta", [0, 1, 2, -1e-5, math.nan, math.inf, "1e-5", None, True])
def test_a_nonsense_delta_is_refused(delta):
    """A5."""
    with pytest.raises(Mistake, match="delta: expected"):
        epsilon((Segment(0.1, 1.0, 10),), delta)
    with pytest.raises(Mistake, match="delta: expected"):
        noise_multiplier(1.0, 0.1, 10, delta)


@pytest.mark.parametrize(("rate", "steps"), [(0, 10), (1.5, 10), (math.nan, 10), (0.1, 0), (0.1, -5), (0.1, 2.5)])
def test_a_nonsense_plan_is_refused_before_noise_is_looked_for(rate: float, steps):
    with pytest.raises(Mistake, match=r"(sampling_rate|steps): expected"):
        noise_multiplier(1.0, rate, steps, 1e-5)


@pytest.mark.parametrize("neighbours", ["zero-out", "", None])
def test_an_unknown_relation_is_refused(neighbours):
    with pytest.raises(Mistake, match="neighbours: expected add-or-remove-one or replace-one"):
        epsilon((Segment(0.1, 1.0, 10),), 1e-5, neighbours)


def test_more_steps_than_can_be_composed_are_refused():
    with pytest.raises(Mistake, match="steps: expected at most 10000000 with sampling"):
        epsilon((Segment(0.1, 1.0, MOST_STEPS), Segment(0.2, 1.0, 1)), 1e-5)


@pytest.mark.parametrize(("target", "expected"), others_whole([(0.5, 7.1452), (1, 3.8754), (2, 2.1875)], 0.5))
def test_the_noise_for_a_target_is_the_published_one(target: float, expected: float):
    assert noise_multiplier(target, 0.05, 400, 1e-5) == pytest.approx(expected, rel=1e-3)


@pytest.mark.whole
@pytest.mark.parametrize("target", [0.1, 1, 8])
@pytest.mark.parametrize("rate", [0.2, 1.0])
@pytest.mark.parametrize("neighbours", ["add-or-remove-one", "replace-one"])
def test_the_noise_keeps_the_target_and_wastes_little(target: float, rate: float, neighbours):
    """A6."""
    noise = noise_multiplier(target, rate, 100, 1e-4, neighbours)
    assert target - 0.02 <= epsilon((Segment(rate, noise, 100),), 1e-4, neighbours) <= target


@pytest.mark.whole
def test_noise_never_falls_below_what_can_be_accounted():
    assert noise_multiplier(1000, 0.01, 2, 1e-4) == pytest.approx(0.3)


@pytest.mark.parametrize("target", [0, -1, math.nan, math.inf, "1", None])
def test_a_nonsense_target_is_refused(target):
    with pytest.raises(Mistake, match="epsilon: expected"):
        noise_multiplier(target, 0.5, 10, 1e-4)
