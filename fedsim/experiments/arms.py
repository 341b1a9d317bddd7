"""The three arms that are compared: federated, centralized (pooled rows) and local (each site alone).

All arms of a seed see the same splits, start from the same weights, take the same number of steps at the same sampling
rate with the same optimizer and, under privacy of records, spend the same epsilon per record.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd
from flwr.app import ArrayRecord
from torch import Tensor

from fedsim import engines
from fedsim.data.federation import Examples, Site
from fedsim.flower.adapter import Adapter
from fedsim.flower.foreign_strategy import Hosted
from fedsim.flower.grid import FIRST_NODE, InProcessGrid, node_of
from fedsim.flower.records import Flat, Layout, flatten, kept_in
from fedsim.flower.rounds import Budget, CentralBudget, run_rounds
from fedsim.flower.secure.server import SecureAdapter
from fedsim.flower.secure.shares import weights_of
from fedsim.planning.budgets import Spending
from fedsim.planning.checks import check_expected_batches
from fedsim.planning.misbehaviour import attack_of, misbehaving, triggered
from fedsim.planning.trial import Trial, without_noise
from fedsim.privacy.ledger import POOL, Ledger
from fedsim.privacy.unit import Place
from fedsim.results.calibration import reliability
from fedsim.results.confusion import confusion
from fedsim.results.evaluation import HEADLINE, Answers, answers, evaluate, predict, said, scores_of
from fedsim.results.groups import tally
from fedsim.results.metrics import METRICS
from fedsim.scenario import catalog
from fedsim.scenario.schema import Arm, Scenario
from fedsim.site.app import SiteApp
from fedsim.strategy.contract import Strategy
from fedsim.strategy.foreign import Foreign
from fedsim.strategy.initial_models import initial_models
from fedsim.strategy.local_rule import Personal, State
from fedsim.training.work import Plan, Work

logging.getLogger("flwr").setLevel(logging.WARNING)  # importing flwr sets it to DEBUG


class Shared(Enum):
    """The key of the model that all sites share. It equals no string, so that no site's name is taken for it."""

    GLOBAL = "global"


GLOBAL = Shared.GLOBAL
Key = str | Shared
"""Whose model: a site's, by its name, or the one that all share."""

Models = Mapping[Key, Mapping[str, Tensor]]
"""{site: parameters of its model}; sites that are not there share the model under ``GLOBAL``."""


@dataclass(frozen=True)
class Job:
    """One training: an arm, with or without noise, under one seed."""

    arm: Arm
    private: bool
    seed: int

    @property
    def key(self) -> str:
        """A name for files, e.g. ``federated-private-0``."""
        return f"{self.arm}-{'private' if self.private else 'plain'}-{self.seed}"


@dataclass(frozen=True)
class Trained:
    """What one job gave.

    Attributes:
        models: What was trained.
        scores: The test metrics, as ``evaluate`` returns them.
        curve: The validation metrics after each round, of the row HEADLINE: round, the metrics of the task's kind and,
            of the federated arm where sites differ in speed, the virtual time, in what a training takes a typical site.
        groups: What the models do to each group of test rows, as ``groups.tally`` returns it.
        calibration: Predicted probabilities in bins, as ``calibration.reliability`` returns them.
        confusion: Test rows by their class and the one that is named, as ``confusion.confusion`` returns them.
        ledger: What was released; None without privacy.
        notes: What did not go by the book: replies set aside, rounds not run for want of budget.
    """

    models: Models
    scores: pd.DataFrame
    groups: pd.DataFrame
    calibration: pd.DataFrame
    confusion: pd.DataFrame
    curve: pd.DataFrame
    ledger: Ledger | None
    notes: list[str]


def jobs(scenario: Scenario) -> list[Job]:
    """Return all trainings of a scenario, in the order they are run."""
    kinds = {False: scenario.arms, True: scenario.private_arms}
    return [Job(arm, private, seed) for seed in scenario.all_seeds for private, arms in kinds.items() for arm in arms]


class _Training:
    """One training under way: its trial, and what it leaves behind.

    Attributes:
        trial: Scenario, seed and arm.
        observe: Called after each round.
        spending: The ledger and the budget; None without privacy.
        curve: The validation metrics after each round.
        time: The virtual time, where sites differ in speed.
        notes: Remarks on what did not go by the book.
    """

    def __init__(self, trial: Trial, observe: Callable[[], None]) -> None:
        check_expected_batches(trial.scenario, trial.federation)
        self.trial = trial
        self.observe = observe
        self.spending = Spending.of(trial) if trial.private else None
        self.curve: list[dict[str, Any]] = []
        self.time: float | None = None
        self.notes: list[str] = []

    def answers(self, models: Models) -> list[Answers]:
        """Return each site's answers on its test rows, by the model that it would use."""
        trial = self.trial
        return answers(trial.model, self.by_site(models), trial.federation, "test", trial.task.kind)

    def by_site(self, models: Models) -> dict[str, Mapping[str, Tensor]]:
        """Return {site: the model it would use}."""
        return {name: models.get(name) or models[GLOBAL] for name in self.trial.names}

    def end_round(self, number: int, models: Models) -> None:
        """Measure on the validation rows, and tell that a round is over."""
        trial = self.trial
        if trial.scenario.split.validation:
            kind = trial.task.kind
            table = evaluate(
                trial.model, self.by_site(models), trial.federation, "validation", kind, False, trial.task.range
            )
            first = table[table["site"] == HEADLINE].iloc[0]
            time = {} if self.time is None else {"time": self.time}
            self.curve.append({"round": number, **time, **first[[metric.name for metric in METRICS[kind]]]})
        self.observe()

    def personal(self, strategy: Strategy, told: State, center: Tensor, grid: InProcessGrid) -> Models:
        """Return {site: its own model} of the sites that a strategy left with one, given what its server would tell."""
        rule = strategy.second_rule() or strategy.local_rule()
        if not isinstance(rule, Personal):
            return {}
        kept = {node - FIRST_NODE: kept_in(context) for node, context in grid.contexts.items()}
        return {
            self.trial.names[site]: self.trial.parts(rule.personal(center, own | told))
            for site, own in kept.items()
            if own
        }

    def note_backdoor(self, models: Models) -> None:
        """Note how often a backdoor works: on test rows of other classes, with the trigger in them."""
        scenario = self.trial.scenario
        attack = attack_of(scenario)
        target = attack.target_class() if attack else None
        if target is None:
            return
        asked = []
        for site in self.trial.federation.sites:
            others = site.test.target != target
            inputs = triggered(scenario, site.test.inputs[others])
            if inputs is not None and len(inputs):
                asked.append(
                    (site.name, models.get(site.name) or models[GLOBAL], Examples(inputs, site.test.target[others]))
                )
        kind = self.trial.task.kind
        found = [said(outputs, kind) for _, _, outputs in predict(self.trial.model, asked)]
        given = [(one >= 0.5) == target if one.ndim == 1 else one.argmax(1) == target for one in found]
        if given:
            share = np.concatenate(given).mean()
            self.notes.append(f"the backdoor works on {share:.1%} of the test rows of other classes")

    def end(self, rounds: int) -> None:
        """Note it if the budget did not last."""
        wanted = self.trial.scenario.training.rounds
        limit = self.trial.scenario.privacy.epsilon
        if rounds < wanted:
            self.notes.append(f"stopped after {rounds} of {wanted} rounds: the next would exceed epsilon {limit:g}")


def run_job(scenario: Scenario, job: Job, observe: Callable[[], None]) -> Trained:
    """Run one training.

    Args:
        scenario: The experiment.
        job: Which of its trainings.
        observe: Called after each round.
    """
    trial = Trial(scenario if job.private else without_noise(scenario), job.seed, job.arm)
    training = _Training(trial, observe)
    models = {"federated": _federated, "centralized": _centralized, "local": _local}[job.arm](training)
    found = training.answers(models)
    task = trial.task
    return Trained(
        models,
        scores_of(found, task.kind, range=task.range),
        tally(found, task.kind, task.range),
        reliability(found, task.kind),
        confusion(found, task.kind, scenario.evaluation.threshold),
        pd.DataFrame(training.curve),
        training.spending.ledger if training.spending else None,
        training.notes,
    )


def _federated(training: _Training) -> Models:
    trial = training.trial
    scenario = trial.scenario
    strategy = trial.strategy
    plans = {
        node_of(number): (name, trial.plan(expected_batch))
        for number, (name, expected_batch) in enumerate(trial.weights.items())
    }
    budget = training.spending.federated(plans) if training.spending else None
    execute = engines.load(scenario.engine).execute(SiteApp(), scenario.cohort_size)
    sites = misbehaving(execute, scenario, trial.seed, trial.names)
    grid = InProcessGrid(sites, len(trial.names), _run_config(trial))
    if isinstance(strategy, Foreign):
        hosted = Hosted(strategy.inner, trial.seed, len(trial.names))
    else:
        hosted = _adapted(training, budget)

    def models(arrays: ArrayRecord) -> Models:
        center = flatten(arrays).to(trial.device)
        told = hosted.told() if isinstance(hosted, Adapter) else {}
        return {GLOBAL: trial.parts(center), **training.personal(strategy, told, center, grid)}

    def observe(number: int, arrays: ArrayRecord) -> None:
        if scenario.training.duration_spread:
            asked = [node - FIRST_NODE for node in hosted.asked]
            training.time = trial.time_after(number, asked, training.time or 0.0)
        training.end_round(number, models(arrays))

    finished = run_rounds(
        strategy=hosted,
        grid=grid,
        initial=Flat(trial.start, Layout.of(trial.model)),
        rounds=scenario.training.rounds,
        budget=budget,
        observe=observe,
        patient=trial.arrivals is not None,
        names={node: name for node, (name, _) in plans.items()},
    )

    for number, rejected in finished.rejected.items():
        for one in rejected:
            who = plans[one.node][0] if one.node in plans else f"node {one.node}"
            training.notes.append(f"round {number}: {who} was left out: {one.reason}")
    for number, doubted in finished.doubted.items():
        for node, doubt in doubted.items():
            training.notes.append(f"round {number}: {plans[node][0]} was charged as planned: {doubt}")
    training.notes += [f"round {number} was refused: {why}" for number, why in finished.refused.items()]
    training.end(finished.rounds)
    found = models(finished.arrays)
    training.note_backdoor(found)
    return found


def _run_config(trial: Trial) -> dict[str, Any]:
    """Return what the server tells every site."""
    scenario = trial.scenario
    told: dict[str, Any] = {
        "scenario": scenario.model_dump_json(),
        "seed": trial.seed,
        "arm": trial.arm,
        "strategy-code": catalog.code_hash(scenario.strategy.name),
    }
    if trial.noise is not None:
        told["noise-multiplier"] = trial.noise
    if scenario.secure_aggregation.on:
        told["secure-aggregation"] = True
    return told


def _adapted(training: _Training, budget: Budget | CentralBudget | None) -> Adapter | SecureAdapter:
    """Return a strategy of ours as Flower's, with the server's noise or masks around it."""
    trial = training.trial
    scenario = trial.scenario
    strategy = trial.strategy
    shares = training.spending if trial.unit.place is Place.IN_SHARES else None
    weights = weights_of(scenario, trial.names) if shares else trial.weights
    draw = partial(initial_models, trial.model, trial.seed)
    adapter = Adapter(
        strategy,
        weights={node_of(site): weight for site, weight in enumerate(weights.values())},
        fixed_denominator=trial.private,
        schedule=None if trial.arrivals else lambda number: [node_of(site) for site in trial.sites_of(number)],
        arrivals=trial.arrivals,
        state=strategy.first_state(draw),
        noise=budget.noise if isinstance(budget, CentralBudget) else None,
        own_participation="participation" in (scenario.strategy.model_extra or {}),
    )
    if not scenario.secure_aggregation.on:
        return adapter
    return SecureAdapter(adapter, scenario.secure_aggregation, shares.share if shares else None)


def _centralized(training: _Training) -> Models:
    """Train on the rows of all sites that have joined.

    Where a round has some of the sites only, drawn at random, a row joins a step that much less often.
    """
    trial = training.trial
    share = trial.share_of_sites
    pooled = cache(trial.federation.pooled)

    def rows(number: int) -> Site:
        return pooled(tuple(trial.joined(number)))

    def todo(number: int) -> Plan:
        expected = sum(trial.weights[trial.names[site]] for site in trial.joined(number))
        alone = trial.plan(share * expected)
        return replace(alone, sampling_rate=share * alone.sampling_rate)

    return _train_alone(training, {GLOBAL: (rows, todo)}, lambda number: [GLOBAL])


def _local(training: _Training) -> Models:
    """Train a model for each site, in the rounds in which it would take part."""
    trial = training.trial
    federation = trial.federation

    def alone(site: int, name: str) -> tuple[Callable[[int], Site], Callable[[int], Plan]]:
        todo = trial.plan(trial.weights[name])
        return lambda number: federation.sites[site], lambda number: todo

    sites: dict[Key, tuple[Callable[[int], Site], Callable[[int], Plan]]] = {}
    for site, name in enumerate(trial.names):
        sites[name] = alone(site, name)
    return _train_alone(training, sites, lambda number: [trial.names[site] for site in trial.sites_of(number)])


def _train_alone(
    training: _Training,
    sites: Mapping[Key, tuple[Callable[[int], Site], Callable[[int], Plan]]],
    keys_of: Callable[[int], Sequence[Key]],
) -> Models:
    """Train a model for each of some sites, on its own rows.

    Args:
        training: The training.
        sites: {whose model: (from the number of a round to its rows, and to what is done to them)}.
        keys_of: From the number of a round to the models that are trained in it.
    """
    trial = training.trial
    scenario = trial.scenario
    train_all = engines.load(scenario.engine).train_all
    vectors = dict.fromkeys(sites, trial.start)

    charged = {key: POOL if isinstance(key, Shared) else key for key in sites}
    number_of = {key: number for number, key in enumerate(sites)}
    numbered = {number_of[key]: (charged[key], todo(1)) for key, (_, todo) in sites.items()}
    most = scenario.training.rounds if GLOBAL in sites else trial.most_rounds
    budget = training.spending.own(numbered, most) if training.spending else None

    done = 0
    for number in range(1, scenario.training.rounds + 1):
        keys = keys_of(number)
        if budget and not budget.allows(number_of[key] for key in keys):
            break
        works = []
        for key in keys:
            rows_of, plan_of = sites[key]
            site = rows_of(number)
            streams = trial.streams(site.name, number)
            works.append(Work(trial.model, vectors[key], site.train, plan_of(number), streams, trial.losses))
        for key, trained in zip(keys, train_all(works, scenario.cohort_size), strict=True):
            vectors[key] = trained.parameters
            if budget and trained.mechanism:
                budget.ledger.charge(charged[key], number, trained.mechanism)
        done = number
        training.end_round(number, {key: trial.parts(vector) for key, vector in vectors.items()})
    training.end(done)
    return {key: trial.parts(vector) for key, vector in vectors.items()}
