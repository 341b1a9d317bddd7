"""With unequal weights and some of the sites in a round, SCAFFOLD and FedDyn find the weighted optimum all the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor

from fedsim.engines.serial import execute
from fedsim.experiments.arms import GLOBAL, Job, run_job
from fedsim.flower.adapter import Adapter
from fedsim.flower.grid import FIRST_NODE, InProcessGrid, node_of
from fedsim.flower.records import (
    ARRAYS,
    METRICS,
    REPORTED,
    TOLD,
    WEIGHT,
    Flat,
    Layout,
    flatten,
    keep,
    kept_in,
    to_state,
)
from fedsim.flower.rounds import run_rounds
from fedsim.privacy.central import CentralNoise, PublicSites
from fedsim.privacy.ledger import Ledger
from fedsim.randomness import Words
from fedsim.strategy.contract import State, Strategy
from strategies.feddyn import FedDyn
from strategies.scaffold import Scaffold

WEIGHTS = (1.0, 2.0, 8.0, 1.0, 4.0, 16.0)
SITES, PARAMS, STEPS, LR = len(WEIGHTS), 3, 5, 0.05
Schedule = Callable[[int], Sequence[int]]


def turns(number: int) -> list[int]:
    return [site for site in range(SITES) if site % 3 == number % 3]


def two_in_a_row(number: int) -> list[int]:
    return sorted({number % SITES, (number + 1) % SITES})


def drawn(number: int) -> list[int]:
    random = np.random.default_rng(number)
    return sorted(random.choice(SITES, 2, replace=False).tolist())


def as_many_as_join(number: int) -> list[int]:
    random = np.random.default_rng(number)
    return np.flatnonzero(random.random(SITES) < 0.4).tolist()


def one_by_one(number: int) -> list[int]:
    return [number % SITES]


SCHEDULES = [turns, two_in_a_row, drawn, as_many_as_join, one_by_one]


@dataclass(frozen=True)
class Quadratics:
    """Site i's loss is ``sum_j curvature[i, j] (x_j - optimum[i, j])^2 / 2``; its gradients are exact."""

    curvature: np.ndarray
    optimum: np.ndarray

    @classmethod
    def of(cls, seed: int) -> "Quadratics":
        random = np.random.default_rng(seed)
        return cls(random.uniform(0.5, 2.0, (SITES, PARAMS)), random.normal(0, 2, (SITES, PARAMS)))

    def weighted_optimum(self, weights: Sequence[float]) -> np.ndarray:
        """Return the minimum of the sites' weighted mean loss, (params,)."""
        curvature = np.array(weights)[:, None] * self.curvature
        return (curvature * self.optimum).sum(0) / curvature.sum(0)

    def gradient(self, site: int, parameters: Tensor) -> Tensor:
        """Return the gradient of one site's loss, (params,)."""
        return torch.tensor(self.curvature[site]) * (parameters.double() - torch.tensor(self.optimum[site]))


def grid_of(losses: Quadratics, strategy) -> InProcessGrid:
    """Return sites that take exact gradient steps with the strategy's local rule, which keeps what it keeps."""
    app, rule = ClientApp(), strategy.local_rule()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        site = context.node_id - FIRST_NODE
        told = to_state(message.content[TOLD]) if TOLD in message.content else {}
        center = flatten(message.content[ARRAYS])
        parameters, memory = rule.begin(center, kept_in(context) | told, ())
        for step in range(STEPS):
            gradient = losses.gradient(site, parameters).float()
            parameters = parameters - LR * rule.correct(gradient, parameters, memory, step)
        sent, kept = rule.finish(parameters, memory, STEPS)
        keep(context, kept)
        metrics = MetricRecord({WEIGHT: WEIGHTS[site], REPORTED["steps"]: STEPS})
        return Message(
            RecordDict({ARRAYS: Flat(sent, Layout.made({"x": (PARAMS,)})), METRICS: metrics}), reply_to=message
        )

    return InProcessGrid(execute(app), SITES, {})


def distance(strategy, schedule: Schedule, rounds: int = 600, weights: Sequence[float] = WEIGHTS, **more) -> float:
    """Return how far from the weighted optimum a training ends."""
    losses = Quadratics.of(3)
    adapter = Adapter(
        strategy,
        weights={node_of(site): weight for site, weight in enumerate(weights)},
        schedule=lambda number: [node_of(site) for site in schedule(number)],
        **more,
    )
    start = Flat(torch.zeros(PARAMS), Layout.made({"x": (PARAMS,)}))
    done = run_rounds(adapter, grid_of(losses, strategy), start, rounds, None, lambda number, model: None, patient=True)
    return float(np.abs(flatten(done.arrays).numpy() - losses.weighted_optimum(weights)).max())


@pytest.mark.whole
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda one: one.__name__)
@pytest.mark.parametrize("strategy", [Scaffold(lr=LR), FedDyn(alpha=0.5)], ids=lambda one: type(one).__name__)
def test_they_converge_to_the_weighted_optimum_whoever_is_asked(strategy: Strategy, schedule: Schedule):
    assert distance(strategy, schedule, fixed_denominator=True) < 1e-5
    assert distance(strategy, schedule, fixed_denominator=False) < 1e-5


@pytest.mark.whole
@pytest.mark.parametrize("strategy", [Scaffold(lr=LR, participation=1 / 3), FedDyn(alpha=0.5, participation=1 / 3)])
def test_with_the_share_of_sites_in_its_place_they_do_not(strategy: Strategy):
    """What is given in the scenario stays, and then ends elsewhere: the share of sites is not that of their weight."""
    assert distance(strategy, turns, own_participation=True) > 0.1
    assert distance(strategy, turns, weights=[1.0] * SITES, own_participation=True) < 1e-5


@dataclass(frozen=True)
class Watching(Strategy):
    """Averages, and writes down what it is told of the round."""

    seen: ClassVar[list[tuple[float, list[float]]]] = []
    mean_only: ClassVar = True
    participation: float = 1.0

    def local_rule(self):
        return Scaffold(lr=LR).local_rule()

    def aggregate(self, center: Tensor, updates: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        self.seen.append((self.participation, weights.tolist()))
        return center, state


def watched(**more) -> list[tuple[float, list[float]]]:
    Watching.seen.clear()
    distance(Watching(), turns, rounds=3, **more)
    return [*Watching.seen]


@pytest.mark.parametrize("fixed", [False, True])
def test_participation_times_weights_are_the_shares_of_all_weight(fixed: bool):
    for number, (participation, weights) in enumerate(watched(fixed_denominator=fixed), start=1):
        expected = [WEIGHTS[site] / sum(WEIGHTS) for site in turns(number)]
        assert [participation * weight for weight in weights] == pytest.approx(expected, rel=1e-6)


def test_with_equal_weights_it_is_the_share_of_sites_as_it_was_built_to_the_last_bit():
    """Whatever the weight is: sums of it are rounded."""
    Watching.seen.clear()
    for weight in (0.1, 1 / 3, 7.3, 96.0):
        distance(Watching(participation=1 / 3), turns, rounds=3, weights=[weight] * SITES)
    assert {participation for participation, _ in Watching.seen} == {1 / 3}


def test_it_stays_as_it_was_given_or_where_weights_come_with_the_replies():
    assert {one for one, _ in watched(own_participation=True)} == {1.0}
    grid = grid_of(Quadratics.of(0), Watching())
    Watching.seen.clear()
    start = Flat(torch.zeros(PARAMS), Layout.made({"x": (PARAMS,)}))
    adapter = Adapter(Watching(participation=0.25), schedule=lambda number: [node_of(0), node_of(1)])
    run_rounds(adapter, grid, start, 2, None, lambda number, model: None)
    assert {one for one, _ in Watching.seen} == {0.25}


def test_under_a_trusted_server_it_is_the_share_of_all_weight_that_is_expected():
    """The noisy mean is over the weight that is expected to join, of those that have joined by then."""
    weights = {node_of(site): weight for site, weight in enumerate(WEIGHTS)}
    names = {node: str(node) for node in weights}
    sites = PublicSites(names, weights, 0.5, lambda number: (1.5 * number, 4.0 * number))
    noise = CentralNoise(
        Ledger(1e-3, "add-or-remove-one"), 1.0, 1.0, sites, lambda n: Words.of(0, "n", n), lambda n: Words.of(0, "j", n)
    )
    Watching.seen.clear()
    adapter = Adapter(Watching(), noise=noise, schedule=lambda number: [node_of(0)])
    start = Flat(torch.zeros(PARAMS), Layout.made({"x": (PARAMS,)}))
    run_rounds(adapter, grid_of(Quadratics.of(0), Watching()), start, 2, None, lambda number, model: None)
    assert [one for one, _ in Watching.seen] == [float(Fraction(4 * number, int(sum(WEIGHTS)))) for number in (1, 2)]


def test_a_run_with_all_sites_in_every_round_is_what_it_was(scenario, monkeypatch: pytest.MonkeyPatch):
    """Nothing is set anew: with the strategy as it was built, the same bits come out."""
    for name in ("scaffold", "feddyn"):
        chosen = scenario(f"strategy.name={name}")
        found = run_job(chosen, Job("federated", False, 0), lambda number: None).models[GLOBAL]
        with monkeypatch.context() as patch:
            patch.setattr(Adapter, "_in_round", lambda self, *given: self.math)
            before = run_job(chosen, Job("federated", False, 0), lambda number: None).models[GLOBAL]
        for parameter, value in found.items():
            assert torch.equal(value, before[parameter])


def test_a_run_with_some_of_the_sites_has_the_shares_of_its_weights(scenario, monkeypatch: pytest.MonkeyPatch):
    """On the whole path, with the weights of the scenario, where a site joins late: plain, and under masks."""
    seen: list[float] = []
    honest = FedDyn.aggregate
    monkeypatch.setattr(FedDyn, "aggregate", lambda self, *args: seen.append(self.participation) or honest(self, *args))
    usual = ["strategy.name=feddyn", "faults.joins_late={hungarian=2}"]
    weights = scenario(*usual).training.expected_batch
    assert isinstance(weights, dict)
    masked = ["secure_aggregation.on=true", "secure_aggregation.threshold=1.0"]
    for how in ([], masked):
        seen.clear()
        run_job(scenario(*usual, *how), Job("federated", False, 0), lambda number: None)
        assert seen == pytest.approx([1 - weights["hungarian"] / sum(weights.values()), 1.0], rel=1e-6)
