"""Every strategy keeps the contract, is of the kind it is said to be, and agrees with an independent computation."""

import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from fedsim.flower.adapter import Adapter
from fedsim.flower.grid import InProcessGrid, node_of
from fedsim.scenario import catalog
from fedsim.strategy.contract import aggregate, needs_mean_only
from fedsim.strategy.contract_check import Bench, Round, examine, same_by_mean
from fedsim.strategy.make import make
from strategies.afl import AFL, onto_simplex
from strategies.apfl import APFL
from strategies.bulyan import Bulyan
from strategies.centered_clipping import CenteredClipping
from strategies.fedadagrad import FedAdagrad
from strategies.fedadam import FedAdam
from strategies.fedavg import FedAvg
from strategies.fedavgm import FedAvgM
from strategies.fedbuff import FedBuff
from strategies.fedexp import FedExP
from strategies.fedyogi import FedYogi
from strategies.geometric_median import GeometricMedian
from strategies.ifca import IFCA
from strategies.krum import Krum, scores, squared_distances
from strategies.median import Median
from strategies.moon import Moon
from strategies.multi_krum import MultiKrum
from strategies.norm_bound import NormBound
from strategies.qfedavg import QFedAvg
from strategies.trimmed_mean import TrimmedMean
from tests.cases import others_whole
from tests.nodes import grid_of

EQUAL, STILL, SHIFT, SCALE, WEIGHTS, HALF = "Equal", "Where", "Moving", "Scaling", "Weights", "With half"
AVERAGE = {EQUAL, STILL, SHIFT, SCALE, WEIGHTS}
ROBUST = {EQUAL, STILL, SHIFT, SCALE}
# name: (what it keeps, how many liars of 11 it withstands)
KINDS = {
    "afl": (AVERAGE, 0),
    "apfl": (AVERAGE | {HALF}, 0),
    "bulyan": (ROBUST, 3),
    "centered_clipping": ({STILL, SHIFT, WEIGHTS, HALF}, 4),
    "ditto": (AVERAGE | {HALF}, 0),
    "fedadagrad": ({STILL, SHIFT}, -1),
    "fedadam": ({STILL, SHIFT}, 0),
    "fedavg": (AVERAGE | {HALF}, 0),
    "fedavgm": (AVERAGE | {HALF}, 0),
    "fedbuff": ({STILL, SHIFT, SCALE, WEIGHTS, HALF}, 0),
    "fedbn": (AVERAGE | {HALF}, 0),
    "feddyn": ({STILL, SHIFT, SCALE, WEIGHTS, HALF}, 0),
    "fedexp": (AVERAGE, 0),
    "fednova": (AVERAGE | {HALF}, 0),
    "fedper": (AVERAGE | {HALF}, 0),
    "fedprox": (AVERAGE | {HALF}, 0),
    "fedrep": (AVERAGE | {HALF}, 0),
    "fedyogi": ({STILL, SHIFT}, 0),
    "finetuning": (AVERAGE | {HALF}, 0),
    "geometric_median": (AVERAGE, 4),
    "ifca": (AVERAGE, 0),
    "krum": (ROBUST, 5),
    "median": (ROBUST, 5),
    "moon": (AVERAGE | {HALF}, 0),
    "multi_krum": (ROBUST, 1),
    "norm_bound": ({STILL, SHIFT, WEIGHTS, HALF}, 4),
    "qfedavg": ({STILL, SHIFT, WEIGHTS}, 0),
    "scaffold": (AVERAGE | {HALF}, 0),
    "trimmed_mean": (ROBUST, 2),
}

MEAN_ONLY = {
    *("apfl", "ditto", "fedadagrad", "fedadam", "fedavg", "fedavgm", "fedbn", "feddyn", "fedper", "fedprox", "fedrep"),
    *("fedyogi", "finetuning", "moon"),
}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_who_says_that_the_mean_is_enough_is_right_and_nobody_else_could_say_so(name: str):
    strategy = catalog.load("strategies", name)()
    assert needs_mean_only(strategy) == (name in MEAN_ONLY)
    try:
        same = same_by_mean(Bench(strategy), 1.0)
    except ValueError:  # one update is not enough
        same = False
    others = {"scaffold", "fednova", "fedexp"}  # two want steps, too; these updates are too alike to extrapolate
    assert same == (name in MEAN_ONLY or name in others)


def test_a_strategy_that_says_so_wrongly_is_found_out():
    @dataclass(frozen=True)
    class Liar(Median):
        mean_only: ClassVar = True

    (found,) = [one for one in examine(Liar()) if "mean of the updates only" in one.name]
    assert found.required
    assert not found.holds


def test_the_table_is_complete():
    assert set(KINDS) == set(catalog.titles("strategies"))


@pytest.mark.parametrize("name", others_whole(KINDS, *(KINDS.keys() - {"bulyan", "geometric_median"})))
def test_every_strategy_keeps_the_contract_and_is_of_its_kind(name: str):
    found = {one.name: one for one in examine(catalog.load("strategies", name)())}
    assert [one for one in found.values() if one.required and not one.holds] == []
    kept, withstood = KINDS[name]
    for start in (EQUAL, STILL, SHIFT, SCALE, WEIGHTS, HALF):
        (one,) = [one for key, one in found.items() if key.startswith(start)]
        assert one.holds == (start in kept), one
    robust = found["It withstands sites that lie"]
    assert robust.holds == (withstood > 0)
    assert robust.detail.startswith(f"{max(0, withstood)} of 11")
    assert ("settle" in robust.detail) == (withstood < 0)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=15)
@given(
    sites=st.integers(1, 12),
    params=st.integers(1, 20),
    number=st.integers(0, 10**6),
    size=st.sampled_from([1e-3, 1, 1e3]),
)
def test_whatever_comes_in_the_model_is_finite_or_the_numbers_are_named(name, sites, params, number, size):
    random = torch.Generator().manual_seed(number)
    center, weights = torch.randn(params, generator=random), torch.rand(sites, generator=random) + 0.01
    updates = center + size * torch.randn(sites, params, generator=random)
    reports = {key: torch.rand(sites, generator=random) + 0.1 for key in ("loss", "steps", "staleness")}
    reports["cluster"] = torch.randint(3, (sites,), generator=random).float()  # one more than there are
    kind = catalog.load("strategies", name)
    strategy = kind()
    try:
        new, _ = aggregate(strategy, center, updates, weights / weights.sum(), {}, reports)
    except ValueError as error:
        assert any(letter.isdigit() for letter in str(error))
        return
    assert new.isfinite().all()
    assert new.shape == center.shape


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (FedAvgM, {"beta": 1.0}, r"beta: expected a number in \[0, 1\), got 1.0"),
        (FedAdam, {"tau": 0}, r"tau: expected a number in \(0, inf\), got 0"),
        (FedYogi, {"eta": float("nan")}, r"eta: expected a number in \(0, inf\), got nan"),
        (FedAdagrad, {"eta": "high"}, r"eta: expected a number in \(0, inf\), got 'high'"),
        (FedExP, {"epsilon": True}, r"epsilon: expected a number in \(0, inf\), got True"),
        (Krum, {"f": 1.5}, r"f: expected a whole number in \[0, inf\), got 1.5"),
        (MultiKrum, {"m": -1}, r"m: expected a whole number in \[0, inf\), got -1"),
        (Bulyan, {"f": -1}, "f: expected a whole number"),
        (TrimmedMean, {"beta": 0.5}, r"beta: expected a number in \[0, 0.5\), got 0.5"),
        (GeometricMedian, {"iterations": 0}, "iterations: expected a whole number"),
        (CenteredClipping, {"tau": float("inf")}, "tau: expected a number"),
        (NormBound, {"bound": -2}, "bound: expected a number"),
        (FedBuff, {"k": 0}, r"k: expected a whole number in \[1, inf\), got 0"),
        (FedBuff, {"concurrency": -1}, "concurrency: expected a whole number"),
        (QFedAvg, {"q": -0.1}, "q: expected a number"),
        (AFL, {"gamma": 0}, "gamma: expected a number"),
        (APFL, {"alpha": 0}, r"alpha: expected a number in \(0, 1\], got 0"),
        (IFCA, {"k": 1.5}, r"k: expected a whole number in \[1, 1000\], got 1.5"),
        (Moon, {"tau": 0.0}, r"tau: expected a number in \(0, inf\), got 0.0"),
        (Moon, {"mu": -1}, r"mu: expected a number in \[0, inf\), got -1"),
    ],
)
def test_hyperparameters_are_checked(kind, wrong, message):
    with pytest.raises(ValueError, match=message):
        kind(**wrong)


@pytest.mark.parametrize(
    ("strategy", "n", "message"),
    [
        (Krum(f=2), 6, r"Krum: expected n >= 2 f \+ 3 = 7 updates for f = 2 malicious ones, got n = 6"),
        (MultiKrum(f=1), 4, r"Multi-Krum: expected n >= 2 f \+ 3 = 5 .* got n = 4"),
        (MultiKrum(f=1, m=9), 8, r"Multi-Krum: expected at least m = 9 updates, got n = 8"),
        (Bulyan(f=2), 10, r"Bulyan: expected n >= 4 f \+ 3 = 11 .* got n = 10"),
    ],
)
def test_too_few_updates_are_refused_with_the_bound(strategy, n: int, message: str):
    given = Round.made(n)
    with pytest.raises(ValueError, match=message):
        strategy.aggregate(given.center, given.updates, given.weights, {})


def test_fedbuff_counts_a_stale_update_less():
    (one,), (model,) = rounds(FedBuff(eta=0.7), count=1)
    center, updates, weights = arrays_of(one)
    naive = sum(
        w * (u - center) / np.sqrt(1 + tau) for w, u, tau in zip(weights, updates, [0, 1, 2, 0, 1, 2], strict=True)
    )
    np.testing.assert_allclose(model, center + 0.7 * naive, rtol=1e-5)


def test_afl_wants_the_same_sites_in_every_round():
    bench = Bench(AFL())
    _, state = bench.run(Round.made(5))
    with pytest.raises(ValueError, match="expected updates of all 5 sites in every round, got 4"):
        bench.run(Round.made(4), state)


# Oracles: an independent computation for each.


def rounds(strategy, count: int = 3, sites: int = 6) -> tuple[list[Round], list[np.ndarray]]:
    """Run a strategy for some rounds; return what came in and the models, float64."""
    bench, state, given, models = Bench(strategy), {}, [], []
    for number in range(count):
        one = Round.made(sites + number)
        one = one.with_(center=torch.from_numpy(models[-1]).float()) if models else one
        one = one.of(slice(sites)).with_(weights=one.weights[:sites] / one.weights[:sites].sum())
        new, state = bench.run(one, state)
        given.append(one)
        models.append(new.double().numpy())
    return given, models


def arrays_of(one: Round) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return one.center.double().numpy(), one.updates.double().numpy(), one.weights.double().numpy()


def test_fedavg_is_the_weighted_mean():
    (one,), (model,) = rounds(FedAvg(), count=1)
    _, updates, weights = arrays_of(one)
    expected = [sum(w * u[i] for w, u in zip(weights, updates, strict=True)) for i in range(len(model))]
    np.testing.assert_allclose(model, expected, rtol=1e-5)


def test_fedavg_moves_less_when_weight_is_missing():
    """With a public denominator an absent site counts as unmoved."""
    given = Round.made(4)
    new = Bench(FedAvg()).new(given.of(slice(2)))
    expected = given.center + sum(given.weights[k] * (given.updates[k] - given.center) for k in range(2))
    torch.testing.assert_close(new, expected)


def test_fedexp_is_equation_8():
    (one,), (model,) = rounds(FedExP(epsilon=0.1), count=1)
    center, updates, weights = arrays_of(one)
    deltas = updates - center
    mean = sum(w * d for w, d in zip(weights, deltas, strict=True))
    eta = sum(w * (d @ d) for w, d in zip(weights, deltas, strict=True)) / (2 * (mean @ mean + 0.1))
    np.testing.assert_allclose(model, center + max(1.0, eta) * mean, rtol=1e-5)


def test_fedexp_extrapolates_where_updates_are_orthogonal():
    """Closed form: M orthogonal updates of one norm; the step is M / 2 times the mean."""
    deltas, equal = torch.eye(6), torch.full((6,), 1 / 6)
    new, _ = FedExP(epsilon=1e-9).aggregate(torch.zeros(6), deltas, equal, {})
    torch.testing.assert_close(new, torch.full((6,), 0.5))


def test_fedadam_is_algorithm_2():
    given, models = rounds(FedAdam(eta=0.2, beta_1=0.8, beta_2=0.9, tau=0.01))
    m = v = None
    for one, model in zip(given, models, strict=True):
        center, updates, weights = arrays_of(one)
        delta = weights @ (updates - center)
        m = 0.2 * delta if m is None else 0.8 * m + 0.2 * delta
        v = 0.9 * (0.01**2 if v is None else v) + 0.1 * delta**2
        np.testing.assert_allclose(model, center + 0.2 * m / (np.sqrt(v) + 0.01), rtol=1e-4)


def test_the_projection_onto_the_simplex_is_the_nearest_point():
    """AFL's shares; scipy minimizes the distance."""
    vector = torch.tensor([0.9, 0.4, -0.3, 0.35])
    found = minimize(
        lambda x: ((x - vector.numpy()) ** 2).sum(), np.full(4, 0.25), bounds=[(0, None)] * 4,
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1}, tol=1e-12,
    )  # fmt: skip
    np.testing.assert_allclose(onto_simplex(vector).numpy(), found.x, atol=1e-5)


def test_afl_gives_all_to_the_worst_site_in_the_end():
    """Closed form: with constant losses the shares go to the site with the highest."""
    given, bench, state = Round.made(4), Bench(AFL(gamma=0.5)), {}
    for _ in range(50):
        _, state = bench.run(given, state)
    expected = torch.zeros(4).scatter(0, given.loss.argmax(), 1.0)
    torch.testing.assert_close(state["shares"], expected)
    torch.testing.assert_close(bench.run(given, state)[0], given.updates[given.loss.argmax()])


def test_the_geometric_median_has_the_least_sum_of_distances():
    (one,), (model,) = rounds(GeometricMedian(iterations=300), count=1)
    _, updates, weights = arrays_of(one)
    found = minimize(lambda x: weights @ np.linalg.norm(updates - x, axis=1), updates.mean(0), tol=1e-10)
    np.testing.assert_allclose(model, found.x, atol=2e-3)


def test_centered_clipping_is_equation_2():
    given, models = rounds(CenteredClipping(tau=0.7, iterations=2))
    v = np.zeros(7)
    for one, model in zip(given, models, strict=True):
        center, updates, weights = arrays_of(one)
        for _ in range(2):
            v = v + sum(
                w * (u - center - v) * min(1, 0.7 / np.linalg.norm(u - center - v))
                for w, u in zip(weights, updates, strict=True)
            )
        np.testing.assert_allclose(model, center + v, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bound", [0.5, 1e6])
def test_norm_bound_clips_each_change(bound: float):
    (one,), (model,) = rounds(NormBound(bound), count=1)
    center, updates, weights = arrays_of(one)
    clipped = [d * min(1, bound / np.linalg.norm(d)) for d in updates - center]
    np.testing.assert_allclose(model, center + weights @ np.array(clipped), rtol=1e-5)


@pytest.mark.parametrize(("n", "f"), [(7, 1), (11, 2), (12, 1), (9, 0)])
def test_bulyan_is_its_definition(n: int, f: int):
    """Naive: Krum again and again on what is left, then each coordinate's values nearest to the median."""
    given = Round.made(n)
    left, chosen = list(range(n)), []
    updates = given.updates.double().numpy()
    while len(chosen) < n - 2 * f:
        near = max(1, len(left) - f - 2)
        key = {}
        for i in left:
            others = sorted(((updates[i] - updates[j]) ** 2).sum() for j in left if j != i)
            key[i] = (round(sum(others[:near]), 9), sum(others))
        chosen.append(min(left, key=lambda i: key[i]))
        left.remove(chosen[-1])
    expected = []
    for column in updates[chosen].T:
        middle = np.median(column)
        expected.append(np.mean(sorted(column, key=lambda value: abs(value - middle))[: n - 4 * f]))
    np.testing.assert_allclose(Bench(Bulyan(f)).new(given).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize(("n", "f"), [(5, 1), (9, 2), (9, 3), (12, 0)])
def test_krums_scores_are_its_definition(n: int, f: int):
    """Naive: each update's sum of squared distances to its n - f - 2 nearest others."""
    given = Round.made(n)
    rows = given.updates.double()
    naive = [sum(sorted(float(((a - b) ** 2).sum()) for j, b in enumerate(rows) if j != i)[: n - f - 2])
             for i, a in enumerate(rows)]  # fmt: skip
    torch.testing.assert_close(scores(squared_distances(rows), f), torch.tensor(naive, dtype=torch.float64))
    assert torch.equal(Bench(Krum(f)).new(given), given.updates[int(np.argmin(naive))])
    several = Bench(MultiKrum(f, m=3)).new(given)
    torch.testing.assert_close(several, given.updates[np.argsort(naive)[:3].copy()].mean(0))


def test_squared_distances_are_the_naive_ones_over_blocks_of_columns():
    rows = torch.randn(5, 10_000, generator=torch.Generator().manual_seed(0)) + 3
    expected = [[((a.double() - b.double()) ** 2).sum() for b in rows] for a in rows]
    torch.testing.assert_close(squared_distances(rows), torch.tensor(expected).double(), rtol=1e-9, atol=1e-7)


# Flower's own strategies, on the same replies.

ALL = {"fraction_train": 1.0, "fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}
FLOWER = [
    (FedAvg(), flower.FedAvg(**ALL), 3),
    (FedAvgM(beta=0.7, eta=0.5), flower.FedAvgM(**ALL, server_momentum=0.7, server_learning_rate=0.5), 1),
    (FedYogi(eta=0.2, tau=1e-9), flower.FedYogi(**ALL, eta=0.2, tau=1e-9), 3),
    (FedAdagrad(eta=0.2, tau=1e-9), flower.FedAdagrad(**ALL, eta=0.2, tau=1e-9), 3),
    (Median(), flower.FedMedian(**ALL), 3),
    (TrimmedMean(beta=0.2), flower.FedTrimmedAvg(**ALL, beta=0.2), 3),
    (Krum(f=1), flower.Krum(**ALL, num_malicious_nodes=1), 3),
    (MultiKrum(f=1, m=3), flower.MultiKrum(**ALL, num_malicious_nodes=1, num_nodes_to_select=3), 3),
    pytest.param(  # Flower imports much for it
        QFedAvg(q=0.7, lr=0.3),
        flower.QFedAvg(**ALL, q=0.7, client_learning_rate=0.3),
        3,
        marks=pytest.mark.whole,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("ours", "theirs", "count"), FLOWER, ids=lambda value: type(value).__name__)
def test_it_agrees_with_flowers_own(ours, theirs, count: int):
    """Equal weights, since some of ours or of Flower's have none."""
    one, other = trained(Adapter(ours), count), trained(theirs, count)
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def trained(strategy, count: int) -> np.ndarray:
    """Run rounds with sites that answer with fixed models; return the model."""
    number, updates = itertools.count(), Round.made(8).updates.numpy()

    def answer(site: int) -> RecordDict:
        next(number)
        metrics = MetricRecord({"num-examples": 1.0, "train_loss": 0.5 + 0.1 * site})
        return RecordDict({"arrays": ArrayRecord({"w": Array(updates[site])}), "metrics": metrics})

    grid: InProcessGrid = grid_of(answer, sites=8)
    arrays = ArrayRecord({"w": Array(Round.made(8).center.numpy())})
    for server_round in range(1, count + 1):
        messages = list(strategy.configure_train(server_round, arrays, ConfigRecord(), grid))
        assert sorted(message.metadata.dst_node_id for message in messages) == [node_of(site) for site in range(8)]
        replies = sorted(grid.send_and_receive(messages), key=lambda reply: reply.metadata.src_node_id)
        arrays, _ = strategy.aggregate_train(server_round, replies)
    assert next(number) == 8 * count
    return arrays["w"].numpy()


def test_facts_of_the_scenario_are_filled_in_where_a_strategy_asks_for_them():
    facts = {"local_steps": 3, "lr": 0.7, "participation": 0.5}
    assert make(QFedAvg, "qfedavg", {"q": 2}, facts) == QFedAvg(q=2, lr=0.7)
    assert make(QFedAvg, "qfedavg", {"lr": 0.1}, facts) == QFedAvg(lr=0.1)
    assert make(FedAvg, "fedavg", {}, facts) == FedAvg()
