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
from torch.nn.utils import parameters_to_vector

from fedsim import engines
from fedsim.data.federation import Examples, Site, federate
from fedsim.data.loading import task_of
from fedsim.flower.adapter import Adapter
from fedsim.flower.foreign_strategy import Hosted
from fedsim.flower.grid import FIRST_NODE, InProcessGrid, node_of
from fedsim.flower.records import Flat, Layout, flatten, kept_in
from fedsim.flower.rounds import Budget, CentralBudget, run_rounds
from fedsim.flower.secure.server import SecureAdapter
from fedsim.flower.secure.shares import weights_of
from fedsim.planning.budgets import Spending, passes_of
from fedsim.planning.checks import check_expected_batches
from fedsim.planning.misbehaviour import attack_of, misbehaving, triggered
from fedsim.planning.participation import (
    arrivals_of,
    joined,
    joining_of,
    most_rounds,
    share_of_sites,
    sites_of_round,
    time_after,
)
from fedsim.privacy.ledger import POOL, Ledger
from fedsim.results.evaluation import HEADLINE, Answers, answers, evaluate, predict, said, scores_of
from fedsim.results.groups import tally
from fedsim.results.metrics import METRICS
from fedsim.scenario import catalog
from fedsim.scenario.schema import Arm, Privacy, Scenario
from fedsim.site.app import app
from fedsim.strategy.arrivals import Arrivals
from fedsim.strategy.contract import Strategy
from fedsim.strategy.foreign import Foreign
from fedsim.strategy.initial_models import initial_models
from fedsim.strategy.local_rule import Personal, State
from fedsim.strategy.make import strategy_of
from fedsim.training.model import best_device, losses_of, new_model, parts_of
from fedsim.training.rows_alone import check_rows_are_alone
from fedsim.training.work import Plan, Streams, Work, plan

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
        ledger: What was released; None without privacy.
        notes: What did not go by the book: replies set aside, rounds not run for want of budget.
    """

    models: Models
    scores: pd.DataFrame
    groups: pd.DataFrame
    curve: pd.DataFrame
    ledger: Ledger | None
    notes: list[str]


def jobs(scenario: Scenario) -> list[Job]:
    """Return all trainings of a scenario, in the order they are run."""
    kinds = {False: scenario.arms, True: scenario.private_arms}
    return [Job(arm, private, seed) for seed in scenario.all_seeds for private, arms in kinds.items() for arm in arms]


@dataclass
class _Progress:
    """One job under way: what all arms need, and what they leave behind."""

    scenario: Scenario
    job: Job
    observe: Callable[[], None]

    def __post_init__(self) -> None:
        if not self.job.private:  # a site that is told of privacy does not answer without noise
            secure = self.scenario.secure_aggregation.model_copy(update={"colluding": 0})
            self.scenario = self.scenario.model_copy(update={"privacy": Privacy(), "secure_aggregation": secure})
        self.device = best_device(self.scenario.device)
        self.federation = federate(self.scenario, self.job.seed, self.device)
        check_expected_batches(self.scenario, self.federation)
        self.model = new_model(self.scenario, self.federation.sites[0], self.job.seed, self.device)
        if self.scenario.privacy.unit == "record":
            check_rows_are_alone(self.model, self.federation.sites[0].train)
        self.start = parameters_to_vector(self.model.parameters()).detach()
        self.losses, self.task = losses_of(self.scenario), task_of(self.scenario)
        where = (self.scenario, self.job.seed, self.job.arm, self.federation.names)
        self.spending = Spending.of(*where) if self.job.private else None
        self.joining = joining_of(self.scenario, self.job.seed)
        self.curve: list[dict[str, Any]] = []
        self.time: float | None = None
        self.notes: list[str] = []

    @property
    def noise(self) -> float | None:
        """The noise multiplier; None without privacy."""
        return self.spending.noise if self.spending else None

    @property
    def rounds(self) -> int:
        """The most rounds that any site is in."""
        return most_rounds(self.scenario, self.job.seed, self.federation.names)

    def sites_of(self, number: int) -> list[int]:
        """Return the numbers of a round's sites."""
        return sites_of_round(self.scenario, self.job.seed, self.federation.names, number, self.joining)

    def parts(self, vector: Tensor) -> Mapping[str, Tensor]:
        """Return a model's vector as {name: parameter}."""
        return parts_of(self.model, vector.to(self.device))

    def said(self, models: Models) -> list[Answers]:
        """Return what is said of each site's test rows by the model it would use."""
        return answers(self.model, self.by_site(models), self.federation, "test", self.task.kind)

    def by_site(self, models: Models) -> dict[str, Mapping[str, Tensor]]:
        """Return {site: the model it would use}."""
        return {name: models.get(name) or models[GLOBAL] for name in self.federation.names}

    def end_round(self, number: int, models: Models) -> None:
        """Measure on the validation rows, and tell that a round is over."""
        if self.scenario.split.validation:
            own, kind = self.by_site(models), self.task.kind
            table = evaluate(self.model, own, self.federation, "validation", kind, False, self.task.range)
            first = table[table["site"] == HEADLINE].iloc[0]
            time = {} if self.time is None else {"time": self.time}
            self.curve.append({"round": number, **time, **first[[metric.name for metric in METRICS[self.task.kind]]]})
        self.observe()

    def personal(self, strategy: Strategy, told: State, center: Tensor, grid: InProcessGrid) -> Models:
        """Return {site: its own model} of the sites that a strategy left with one, given what its server would tell."""
        rule = strategy.second_rule() or strategy.local_rule()
        if not isinstance(rule, Personal):
            return {}
        kept = {node - FIRST_NODE: kept_in(context) for node, context in grid.contexts.items()}
        return {
            self.federation.names[site]: self.parts(rule.personal(center, own | told))
            for site, own in kept.items()
            if own
        }

    def note_backdoor(self, scenario: Scenario, models: Models) -> None:
        """Note how often a backdoor works: on test rows of other classes, with the trigger in them."""
        attack = attack_of(scenario)
        target = attack.target_class() if attack else None
        if target is None:
            return
        asked = []
        for site in self.federation.sites:
            others = site.test.target != target
            inputs = triggered(scenario, site.test.inputs[others])
            if inputs is not None and len(inputs):
                asked.append(
                    (site.name, models.get(site.name) or models[GLOBAL], Examples(inputs, site.test.target[others]))
                )
        found = [said(outputs, self.task.kind) for _, _, outputs in predict(self.model, asked)]
        given = [(one >= 0.5) == target if one.ndim == 1 else one.argmax(1) == target for one in found]
        if given:
            share = np.concatenate(given).mean()
            self.notes.append(f"the backdoor works on {share:.1%} of the test rows of other classes")

    def end(self, rounds: int) -> None:
        """Note it if the budget did not last."""
        wanted, limit = self.scenario.training.rounds, self.scenario.privacy.epsilon
        if rounds < wanted:
            self.notes.append(f"stopped after {rounds} of {wanted} rounds: the next would exceed epsilon {limit:g}")


def run_job(scenario: Scenario, job: Job, observe: Callable[[], None]) -> Trained:
    """Run one training.

    Args:
        scenario: The experiment.
        job: Which of its trainings.
        observe: Called after each round.
    """
    progress = _Progress(scenario, job, observe)
    models = {"federated": _federated, "centralized": _centralized, "local": _local}[job.arm](progress)
    found, task = progress.said(models), progress.task
    return Trained(
        models,
        scores_of(found, task.kind, range=task.range),
        tally(found, task.kind, task.range),
        pd.DataFrame(progress.curve),
        progress.spending.ledger if progress.spending else None,
        progress.notes,
    )


def _federated(progress: _Progress) -> Models:
    scenario, job, names = progress.scenario, progress.job, progress.federation.names
    strategy, arrivals = strategy_of(scenario, len(names)), arrivals_of(scenario, job.seed, len(names))
    plans = {
        node_of(number): (name, plan(scenario, scenario.expected_batch(name), progress.noise))
        for number, name in enumerate(names)
    }
    budget = _budget(progress, plans)
    execute = engines.load(scenario.engine).execute(app, scenario.cohort_size)
    grid = InProcessGrid(misbehaving(execute, scenario, job.seed, names), len(names), _run_config(progress))
    if isinstance(strategy, Foreign):
        hosted = Hosted(strategy.inner, job.seed, len(names))
    else:
        hosted = _adapted(progress, strategy, arrivals, budget)

    def models(arrays: ArrayRecord) -> Models:
        center = flatten(arrays).to(progress.device)
        told = hosted.told() if isinstance(hosted, Adapter) else {}
        return {GLOBAL: progress.parts(center), **progress.personal(strategy, told, center, grid)}

    def observe(number: int, arrays: ArrayRecord) -> None:
        if scenario.training.duration_spread:
            asked = [node - FIRST_NODE for node in hosted.asked]
            progress.time = time_after(scenario, job.seed, len(names), number, asked, progress.time or 0.0)
        progress.end_round(number, models(arrays))

    finished = run_rounds(
        strategy=hosted,
        grid=grid,
        initial=Flat(progress.start, Layout.of(progress.model)),
        rounds=scenario.training.rounds,
        budget=budget,
        observe=observe,
        patient=arrivals is not None,
        names={node: name for node, (name, _) in plans.items()},
    )
    for number, rejected in finished.rejected.items():
        for one in rejected:
            who = plans[one.node][0] if one.node in plans else f"node {one.node}"
            progress.notes.append(f"round {number}: {who} was left out: {one.reason}")
    for number, doubted in finished.doubted.items():
        for node, doubt in doubted.items():
            progress.notes.append(f"round {number}: {plans[node][0]} was charged as planned: {doubt}")
    progress.notes += [f"round {number} was refused: {why}" for number, why in finished.refused.items()]
    progress.end(finished.rounds)
    found = models(finished.arrays)
    progress.note_backdoor(scenario, found)
    return found


def _run_config(progress: _Progress) -> dict[str, Any]:
    """Return what the server tells every site."""
    scenario, job = progress.scenario, progress.job
    told: dict[str, Any] = {
        "scenario": scenario.model_dump_json(),
        "seed": job.seed,
        "arm": job.arm,
        "strategy-code": catalog.code_hash(scenario.strategy.name),
    }
    if progress.noise is not None:
        told["noise-multiplier"] = progress.noise
    if scenario.secure_aggregation.on:
        told["secure-aggregation"] = True
    return told


def _budget(progress: _Progress, plans: Mapping[int, tuple[str, Plan]]) -> Budget | CentralBudget | None:
    """Return what the sites may spend, given {node: (site, what it trains in a round)}; None without privacy."""
    spending, unit = progress.spending, progress.scenario.privacy.unit
    if spending is None:
        return None
    if unit == "client":
        return spending.central(progress.joining)
    if unit == "distributed":
        return spending.shared(len(progress.sites_of(1)), len(progress.start))
    passes = passes_of(progress.scenario)
    spent = {node: (name, replace(todo, steps=passes * todo.steps)) for node, (name, todo) in plans.items()}
    return spending.own(spent, progress.rounds)


def _adapted(
    progress: _Progress,
    strategy: Strategy,
    arrivals: Arrivals | None,
    budget: Budget | CentralBudget | None,
) -> Adapter | SecureAdapter:
    """Return a strategy of ours as Flower's, with the server's noise or masks around it."""
    scenario, job, names = progress.scenario, progress.job, progress.federation.names
    shares = progress.spending if scenario.privacy.unit == "distributed" else None
    weights = weights_of(scenario, names) if shares else {name: scenario.expected_batch(name) for name in names}
    draw = partial(initial_models, progress.model, job.seed)
    adapter = Adapter(
        strategy,
        weights={node_of(site): weight for site, weight in enumerate(weights.values())},
        fixed_denominator=job.private,
        schedule=None if arrivals else lambda number: [node_of(site) for site in progress.sites_of(number)],
        arrivals=arrivals,
        state=strategy.first_state(draw),
        noise=budget.noise if isinstance(budget, CentralBudget) else None,
        own_participation="participation" in (scenario.strategy.model_extra or {}),
    )
    if not scenario.secure_aggregation.on:
        return adapter
    return SecureAdapter(adapter, scenario.secure_aggregation, shares.share if shares else None)


def _centralized(progress: _Progress) -> Models:
    """Train on the rows of all sites that have joined.

    Where a round has some of the sites only, drawn at random, a row joins a step that much less often.
    """
    scenario, federation, names = progress.scenario, progress.federation, progress.federation.names
    share, pooled = share_of_sites(scenario, names), cache(federation.pooled)

    def rows(number: int) -> Site:
        return pooled(tuple(joined(scenario, names, number)))

    def todo(number: int) -> Plan:
        expected = sum(scenario.expected_batch(names[site]) for site in joined(scenario, names, number))
        alone = plan(scenario, share * expected, progress.noise)
        return replace(alone, sampling_rate=share * alone.sampling_rate)

    return _train_alone(progress, {GLOBAL: (rows, todo)}, lambda number: [GLOBAL])


def _local(progress: _Progress) -> Models:
    """Train a model for each site, in the rounds in which it would take part."""
    scenario, federation = progress.scenario, progress.federation

    def alone(site: int, name: str) -> tuple[Callable[[int], Site], Callable[[int], Plan]]:
        todo = plan(scenario, scenario.expected_batch(name), progress.noise)
        return lambda number: federation.sites[site], lambda number: todo

    sites: dict[Key, tuple[Callable[[int], Site], Callable[[int], Plan]]] = {}
    for site, name in enumerate(federation.names):
        sites[name] = alone(site, name)
    return _train_alone(progress, sites, lambda number: [federation.names[site] for site in progress.sites_of(number)])


def _train_alone(
    progress: _Progress,
    sites: Mapping[Key, tuple[Callable[[int], Site], Callable[[int], Plan]]],
    keys_of: Callable[[int], Sequence[Key]],
) -> Models:
    """Train a model for each of some sites, on its own rows.

    Args:
        progress: The job.
        sites: {whose model: (from the number of a round to its rows, and to what is done to them)}.
        keys_of: From the number of a round to the models that are trained in it.
    """
    scenario, job = progress.scenario, progress.job
    train_all = engines.load(scenario.engine).train_all
    vectors = dict.fromkeys(sites, progress.start)
    charged = {key: POOL if isinstance(key, Shared) else key for key in sites}
    number_of = {key: number for number, key in enumerate(sites)}
    numbered = {number_of[key]: (charged[key], todo(1)) for key, (_, todo) in sites.items()}
    most = scenario.training.rounds if GLOBAL in sites else progress.rounds
    budget, done = progress.spending.own(numbered, most) if progress.spending else None, 0
    for number in range(1, scenario.training.rounds + 1):
        keys = keys_of(number)
        if budget and not budget.allows(number_of[key] for key in keys):
            break
        works = []
        for key in keys:
            site, todo = sites[key][0](number), sites[key][1](number)
            streams = Streams.of(scenario, job.seed, job.arm, site.name, number)
            works.append(Work(progress.model, vectors[key], site.train, todo, streams, progress.losses))
        for key, trained in zip(keys, train_all(works, scenario.cohort_size), strict=True):
            vectors[key] = trained.parameters
            if budget and trained.mechanism:
                budget.ledger.charge(charged[key], number, trained.mechanism)
        done = number
        progress.end_round(number, {key: progress.parts(vector) for key, vector in vectors.items()})
    progress.end(done)
    return {key: progress.parts(vector) for key, vector in vectors.items()}
