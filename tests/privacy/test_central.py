"""Noise at the server protects whole sites: what one site can do to the sum, and what covers it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedsim.flower.adapter import Adapter
from fedsim.flower.grid import node_of
from fedsim.flower.records import flatten
from fedsim.flower.rounds import CentralBudget, run_rounds
from fedsim.mistakes import Mistake
from fedsim.privacy.accounting import Segment, epsilon
from fedsim.privacy.central import CentralNoise, PublicSites, clipped_sum
from fedsim.privacy.ledger import EACH_SITE, Ledger, SiteUpdate
from fedsim.randomness import Words
from strategies.fedavg import FedAvg
from tests.nodes import arrays, good, grid_of
from tests.works import Silent

SITES, PARAMS = 8, 50
SKEWED = (1.0, 10.0, 3.0, 0.1, 1e12, 7.0, 2.0, 5.0)


def noise_of(weights=SKEWED, rate: float | None = 1.0, silent: bool = False, **changes) -> CentralNoise:
    """Return noise for some sites; ``silent`` leaves it out."""
    sites = range(len(weights))
    share = 1.0 if rate is None else rate
    base = CentralNoise(
        ledger=Ledger(1e-3, "add-or-remove-one"),
        noise_multiplier=2.0,
        clip=0.5,
        sites=PublicSites(
            names={node_of(site): f"site{site}" for site in sites},
            weights={node_of(site): weights[site] for site in sites},
            sampling_rate=rate,
            expected=lambda number: (share * len(weights), share * sum(weights)),
        ),
        words=lambda number: Silent() if silent else Words.of(0, "test", number),
        joining=lambda number: Words.of(0, "joining", number),
    )
    return replace(base, **changes)


def released(noise: CentralNoise, updates: torch.Tensor, sites, center=None, number: int = 1) -> torch.Tensor:
    """Return the noisy sum: the mean times its denominator."""
    center = torch.zeros(updates.shape[1]) if center is None else center
    nodes = [node_of(site) for site in sites]
    mean = noise.release(number, nodes, center, updates, nodes)
    return mean.double() * noise.planned(number).denominator


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-6, 0.5, 1.0, 1e4, 1e30, math.nan, math.inf, -math.inf])
def test_one_update_is_never_larger_than_the_clip(size: float, dtype: torch.dtype):
    """B4; what is not finite, also because the type can't hold it, counts as nothing."""
    direction = torch.ones(PARAMS, dtype=torch.float64) / math.sqrt(PARAMS)
    update = (size * direction).to(dtype)[None]
    found, _ = clipped_sum(torch.zeros(PARAMS, dtype=dtype), update, torch.ones(1, dtype=torch.float64), 0.5)
    assert found.isfinite().all()
    assert found.norm() <= 0.5 * (1 + 1e-6)
    if not update.isfinite().all():
        assert found.norm() == 0
    elif update.double().norm() >= 0.5:
        assert found.norm() == pytest.approx(0.5, rel=1e-6)
    else:
        torch.testing.assert_close(found, update[0].double())


def test_one_number_that_is_not_finite_spoils_its_own_update_only():
    updates = torch.ones(3, PARAMS)
    updates[1, 7] = math.nan
    found, _ = clipped_sum(torch.zeros(PARAMS), updates, torch.ones(3, dtype=torch.float64), 100.0)
    torch.testing.assert_close(found, 2 * torch.ones(PARAMS, dtype=torch.float64))


@given(sites=st.integers(0, 9), params=st.integers(1, 9), seed=st.integers(0, 10**6), clip=st.floats(0.01, 10))
def test_the_sum_is_that_of_a_naive_loop(sites: int, params: int, seed: int, clip: float):
    random = np.random.default_rng(seed)
    center, updates = random.normal(size=params), random.normal(size=(sites, params))
    weights = random.random(sites)
    expected = np.zeros(params)
    for weight, update in zip(weights, updates, strict=True):
        delta = update - center
        expected += weight * delta * min(1.0, clip / np.linalg.norm(delta))
    found, _ = clipped_sum(*map(torch.from_numpy, (center, updates, weights)), clip)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_many_updates_are_summed_in_blocks(monkeypatch: pytest.MonkeyPatch):
    updates, weights = torch.randn(20, PARAMS, generator=torch.Generator().manual_seed(0)), torch.rand(20).double()
    whole, _ = clipped_sum(torch.zeros(PARAMS), updates, weights, 1.0)
    monkeypatch.setattr("fedsim.privacy.central._AT_ONCE", 3 * PARAMS)
    torch.testing.assert_close(clipped_sum(torch.zeros(PARAMS), updates, weights, 1.0)[0], whole)


@pytest.mark.whole
@pytest.mark.parametrize("relation", ["removed", "replaced"])
@pytest.mark.parametrize("weights", [SKEWED, (3.0,) * SITES])
def test_a_site_moves_the_sum_by_at_most_the_clip(weights: tuple[float, ...], relation: str):
    """B5, M4, M5: 1000 pairs of neighbours, whoever drops out; the worst of them comes near the bound."""
    random, worst = np.random.default_rng(0), 0.0
    noise = noise_of(weights, silent=True)
    bound = noise.clip * (1 if relation == "removed" else 2)
    for _ in range(1000):
        sizes = 10.0 ** random.uniform(-3, 6, (SITES, 1))
        updates = torch.from_numpy((sizes * random.normal(size=(SITES, PARAMS))).astype(np.float32))
        there = sorted(random.choice(SITES, random.integers(1, SITES + 1), replace=False).tolist())
        victim = int(random.choice(there))
        if relation == "removed":
            others = [site for site in there if site != victim]
            neighbour = released(noise, updates[others], others)
        else:
            changed = updates.clone()
            changed[victim] = -updates[victim] * 10.0 ** random.uniform(-2, 2)
            neighbour = released(noise, changed[there], there)
        worst = max(worst, float((released(noise, updates[there], there) - neighbour).norm()))
    assert 0.9 * bound <= worst <= bound * (1 + 1e-5)  # float32 on the way out


@pytest.mark.parametrize("dropped", range(SITES + 1))
def test_the_noise_is_the_same_however_many_drop_out(dropped: int):
    """M5, M16, B1, B2: its deviation on the sum is the multiplier times the clip, and it is Gaussian."""
    updates, sites = torch.zeros(SITES, 100_000)[dropped:], range(dropped, SITES)
    noise = noise_of(clip=0.25)
    drawn = released(noise, updates, sites) / (2.0 * 0.25)
    assert float(drawn.var()) == pytest.approx(1, abs=5 * math.sqrt(2 / 100_000))
    assert stats.kstest(drawn.numpy(), "norm").pvalue > 1e-6
    assert torch.equal(drawn, released(noise, torch.full((1, 100_000), math.nan), [0]) / (2.0 * 0.25))


def test_no_two_rounds_share_noise():
    """M11."""
    noise, nothing = noise_of(), torch.zeros(0, 1000)
    drawn = np.stack([released(noise, nothing, [], number=number).numpy() for number in range(1, 101)])
    assert np.abs(np.corrcoef(drawn) - np.eye(100)).max() < 6 / math.sqrt(1000)


def test_what_is_public_does_not_depend_on_who_answered():
    """B7, M3: denominator, noise and what is written down."""
    noise = noise_of()
    for count in range(SITES + 1):
        released(noise, torch.zeros(count, PARAMS), range(count))
    assert {entry.mechanism for entry in noise.ledger.entries} == {SiteUpdate(1.0, 2.0, 0.5, 1e12, sum(SKEWED) / 1e12)}


@pytest.mark.whole
def test_a_round_is_charged_where_its_noise_is_drawn():
    """A9."""
    draws = []

    def words(number: int) -> Words:
        draws.append(number)
        return Words.of(0, "test", number)

    noise = noise_of(words=words, rate=0.25)
    for number in (1, 2, 5):
        released(noise, torch.zeros(0, PARAMS), [], number=number)
    assert [(entry.site, entry.round) for entry in noise.ledger.entries] == [(EACH_SITE, n) for n in draws]
    assert noise.ledger.epsilon(EACH_SITE) == epsilon([Segment(0.25, 2.0, 3)], 1e-3)


def test_where_sites_are_not_sampled_those_that_are_asked_are_charged_without_amplification():
    noise = noise_of(rate=None)
    nodes = [node_of(2), node_of(5)]
    noise.release(1, nodes, torch.zeros(PARAMS), torch.zeros(1, PARAMS), nodes[:1])
    assert [entry.site for entry in noise.ledger.entries] == ["site2", "site5"]
    assert noise.ledger.epsilon("site5") == epsilon([Segment(1.0, 2.0, 1)], 1e-3)
    assert noise.ledger.epsilon("site1") == 0


@pytest.mark.whole
@pytest.mark.parametrize(
    ("sites", "joining", "rounds", "expected"),
    [(10, 10, 20, 23.1), (10, 5, 20, 11.1), (100, 10, 50, 3.31), (1000, 50, 100, 2.19)],
)
def test_the_figures_of_small_and_large_federations(sites: int, joining: int, rounds: int, expected: float):
    """Few sites can't hide one of them: sigma 1, delta 1e-3."""
    ledger = Ledger(1e-3, "add-or-remove-one")
    for number in range(rounds):
        ledger.charge(EACH_SITE, number, SiteUpdate(joining / sites, 1.0, 1.0, 1.0, joining))
    assert ledger.epsilon(EACH_SITE) == pytest.approx(expected, abs=0.01 if expected < 10 else 0.06)


def test_a_record_is_protected_as_a_replaced_update():
    """Its site's update may become any other, twice the clip away."""
    ledger = Ledger(1e-5, "add-or-remove-one")
    for number in range(100):
        ledger.charge("a", number, SiteUpdate(1.0, 10.0, 1.0, 1.0, 1.0))
    assert ledger.epsilon("a") == pytest.approx(4.377178, abs=1e-5)
    assert ledger.record_epsilon("a") == pytest.approx(9.997, abs=1e-3)
    assert ledger.as_json()["record_epsilon"] == {"a": ledger.record_epsilon("a")}


def test_a_site_update_without_noise_can_not_be_written_down():
    with pytest.raises(Mistake, match="noise_multiplier"):
        SiteUpdate(0.5, 0.0, 1.0, 1.0, 1.0)


def run(noise: CentralNoise, budget: float, answer=good, rounds: int = 6, asked=range(4)):
    """Run rounds with four sites; return what finished and how often any was asked."""
    calls = []

    def counting(site: int):
        calls.append(site)
        return answer(site)

    adapter = Adapter(FedAvg(), schedule=lambda number: [node_of(site) for site in asked], noise=noise)
    spend = CentralBudget(noise, budget, rounds)
    return run_rounds(adapter, grid_of(counting), arrays(), rounds, spend, lambda number, model: None), len(calls)


def four(**changes) -> CentralNoise:
    return noise_of((1.0, 2.0, 1.0, 4.0), **changes)


@pytest.mark.whole
@pytest.mark.parametrize("asked", [range(4), []])
def test_a_run_stops_before_it_exceeds_the_budget(asked):
    """A8: nobody is asked, and no noise leaves, when the next model would cost too much."""
    limit = epsilon([Segment(0.5, 2.0, 3)], 1e-3)
    noise = four(rate=0.5)
    finished, calls = run(noise, limit + 1e-9, asked=asked)
    assert finished.rounds == 3 == len(noise.ledger.entries)
    assert calls == 3 * len(asked)
    assert run(four(rate=0.5), 0.01)[1] == 0


@pytest.mark.parametrize("nearest", range(4))
def test_the_site_that_is_nearest_to_its_budget_decides_whoever_is_asked_first(nearest: int):
    """A8: where sites are not sampled, each has an epsilon of its own; the others have been in fewer rounds."""
    noise = four(rate=None)
    nodes = [node_of(site) for site in range(4)]
    for number in range(3):
        noise.release(number, nodes if number == 0 else [nodes[nearest]], torch.zeros(9), torch.zeros(0, 9), [])
    limit = epsilon([Segment(1.0, 2.0, 3)], 1e-3) + 1e-9
    spend = CentralBudget(noise, limit, 6)
    assert not spend.allows(nodes)
    assert not spend.allows(nodes[::-1])
    assert spend.allows(node for node in nodes if node != nodes[nearest])
    before = len(noise.ledger.entries)
    assert run(noise, limit)[1] == 0
    assert len(noise.ledger.entries) == before


@pytest.mark.parametrize("late", range(4))
def test_rounds_end_when_sites_that_joined_earlier_have_spent_their_budget(late: int):
    """A8: one site joins in the third round only."""
    noise = four(rate=None)

    def schedule(number: int) -> list[int]:
        return [node_of(site) for site in range(4) if number >= 3 or site != late]

    adapter = Adapter(FedAvg(), schedule=schedule, noise=noise)
    spend = CentralBudget(noise, epsilon([Segment(1.0, 2.0, 4)], 1e-3) + 1e-9, 8)
    finished = run_rounds(adapter, grid_of(good), arrays(), 8, spend, lambda number, model: None)
    assert finished.rounds == 4
    assert all(noise.ledger.epsilon(f"site{site}") <= spend.epsilon for site in range(4))


def test_the_strategy_sees_one_update_of_weight_one():
    seen = []

    class Watching(FedAvg):
        def aggregate(self, center, updates, weights, state):
            seen.append((updates.shape, weights.tolist()))
            return super().aggregate(center, updates, weights, state)

    noise = four(silent=True, clip=1.0)
    adapter = Adapter(Watching(), noise=noise)
    grid = grid_of(good)
    messages = list(adapter.configure_train(1, arrays(), ConfigRecord(), grid))
    new, _ = adapter.aggregate_train(1, list(grid.send_and_receive(messages))[:3])
    assert seen == [((1, 9), [1.0])]
    # every update points along ones and is clipped to norm 1; weights 1, 2, 1 over 4, of 8 over 4 expected
    np.testing.assert_allclose(flatten(new).numpy(), np.full(9, (1 / 3) * 1.0 / 2.0), rtol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("broken", [range(1), range(3), range(4)])
def test_replies_that_fail_or_are_malformed_count_as_nothing_and_the_round_is_charged(broken):
    """F3: also when all fail."""

    def answer(site: int):
        if site in broken and site % 2:
            raise ValueError("no")
        content = good(site)
        if site in broken:
            del content["arrays"]
        return content

    noise = four()
    finished, _ = run(noise, 100.0, answer, rounds=2)
    assert finished.rounds == 2 == len(noise.ledger.entries)
    assert [one.node - node_of(0) for one in finished.rejected[1]] == list(broken)
    assert np.isfinite(flatten(finished.arrays).numpy()).all()
