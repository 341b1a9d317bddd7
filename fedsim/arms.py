"""The three arms that are compared: federated, centralized (pooled rows) and local (each site alone).

All arms of a seed see the same splits, start from the same weights, take the same number of steps at the same sampling
rate with the same optimizer and, under privacy, spend the same epsilon per record.
"""

import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import pandas as pd
from torch import Tensor, nn

from fedsim import catalog
from fedsim.adapter import Adapter
from fedsim.evaluation import METRICS, evaluate
from fedsim.federation import Site, federate
from fedsim.grid import InProcessGrid, node_of
from fedsim.mistakes import Mistake
from fedsim.privacy.accounting import Segment, noise_multiplier
from fedsim.privacy.ledger import Ledger, Mechanism
from fedsim.records import to_arrays, to_parameters
from fedsim.rounds import Budget, run_rounds
from fedsim.scenario import Arm, Privacy, Scenario
from fedsim.strategy import Strategy
from fedsim.training import Streams, Work, best_device, expected_batches, new_model, plan

logging.getLogger("flwr").setLevel(logging.WARNING)  # importing flwr sets it to DEBUG

GLOBAL = "global"
Models = Mapping[str, Mapping[str, Tensor]]
"""{site: parameters of its model}, or {GLOBAL: parameters} when all sites share one model."""


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
        curve: The pooled validation metrics after each round: round, auc, accuracy, log_loss.
        ledger: What was released; None without privacy.
        notes: What did not go by the book: replies set aside, rounds not run for want of budget.
    """

    models: Models
    scores: pd.DataFrame
    curve: pd.DataFrame
    ledger: Ledger | None
    notes: list[str]


def jobs(scenario: Scenario) -> list[Job]:
    """Return all trainings of a scenario, in the order they are run."""
    kinds = (False, True) if scenario.private else (False,)
    return [Job(arm, private, seed) for seed in scenario.all_seeds for private in kinds for arm in scenario.arms]


def noise_for(scenario: Scenario) -> float:
    """Return the noise multiplier: the scenario's, or the least that keeps all rounds within its epsilon."""
    privacy, training = scenario.privacy, scenario.training
    steps = training.rounds * training.local_steps
    if privacy.noise_multiplier is not None:
        Segment(training.sampling_rate, privacy.noise_multiplier, steps)  # raises a Mistake if it can't be accounted
        return privacy.noise_multiplier
    if privacy.epsilon is None or privacy.delta is None:
        raise Mistake("privacy: expected epsilon and delta")
    return noise_multiplier(privacy.epsilon, training.sampling_rate, steps, privacy.delta, privacy.neighbours)


def strategy_of(scenario: Scenario) -> Strategy:
    """Make the scenario's strategy with its hyperparameters.

    Raises:
        Mistake: The strategy has no such hyperparameter, or refuses a value.
    """
    chosen, given = scenario.strategy, scenario.strategy.model_extra or {}
    kind = catalog.load("strategies", chosen.name)
    known = [field.name for field in fields(kind)]
    for key in given:
        if key not in known:
            hint = catalog.nearest(key, known) if known else "; it has no hyperparameters"
            raise Mistake(f"strategy.{key}: {chosen.name} has no such hyperparameter{hint}")
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        raise Mistake(f"strategy: {error}") from None


@dataclass
class _Progress:
    """One job under way: what all arms need, and what they leave behind."""

    scenario: Scenario
    job: Job
    observe: Callable[[], None]

    def __post_init__(self) -> None:
        self.device = best_device(self.scenario.device)
        self.federation = federate(self.scenario, self.job.seed, self.device)
        self.batches = expected_batches(self.scenario, self.federation)
        self.blank = new_model(self.scenario, self.federation.sites[0], self.job.seed, self.device)
        self.noise = noise_for(self.scenario) if self.job.private else None
        self.ledger: Ledger | None = None
        self.curve: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def new_model(self) -> nn.Module:
        """Return the model every arm starts from."""
        return copy.deepcopy(self.blank)

    def budget(self, sites: Mapping[int, tuple[str, float]]) -> Budget | None:
        """Open the ledger of a private training, given {node: (site, expected batch)}."""
        privacy, training = self.scenario.privacy, self.scenario.training
        if self.noise is None or privacy.delta is None or privacy.epsilon is None:
            return None
        self.ledger = Ledger(privacy.delta, privacy.neighbours)
        planned = {
            node: (name, Mechanism(training.sampling_rate, self.noise, privacy.clip, batch, training.local_steps))
            for node, (name, batch) in sites.items()
        }
        return Budget(self.ledger, privacy.epsilon, planned)

    def scores(self, models: Models, part: Literal["validation", "test"], sites: bool) -> pd.DataFrame:
        """Measure each site's rows with the model it would use."""
        by_site = {site.name: models.get(site.name) or models[GLOBAL] for site in self.federation.sites}
        return evaluate(self.blank, by_site, self.federation, part, sites)

    def end_round(self, number: int, models: Models) -> None:
        """Measure on the validation rows, and tell that a round is over."""
        if self.scenario.split.validation:
            pooled = self.scores(models, "validation", sites=False).iloc[0]
            self.curve.append({"round": number, **pooled[list(METRICS)]})
        self.observe()

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
    return Trained(
        models,
        progress.scores(models, "test", sites=True),
        pd.DataFrame(progress.curve),
        progress.ledger,
        progress.notes,
    )


def _federated(progress: _Progress) -> Models:
    scenario, job, sites = progress.scenario, progress.job, progress.federation.sites
    if not job.private:  # a site that is told of privacy does not answer without noise
        scenario = scenario.model_copy(update={"privacy": Privacy()})
    run_config: dict[str, Any] = {"scenario": scenario.model_dump_json(), "seed": job.seed, "arm": job.arm}
    if progress.noise is not None:
        run_config["noise-multiplier"] = progress.noise
    execute = catalog.load("engines", scenario.engine).execute(catalog.client_app())
    nodes = {node_of(site.number): (site.name, progress.batches[site.name]) for site in sites}
    finished = run_rounds(
        strategy=Adapter(
            strategy_of(scenario),
            weights={node: batch for node, (_, batch) in nodes.items()},
            fixed_denominator=job.private,
        ),
        grid=InProcessGrid(execute, len(sites), run_config),
        initial=to_arrays(dict(progress.new_model().named_parameters())),
        rounds=scenario.training.rounds,
        budget=progress.budget(nodes),
        observe=lambda number, arrays: progress.end_round(number, {GLOBAL: to_parameters(arrays, progress.device)}),
    )
    for number, rejected in finished.rejected.items():
        progress.notes += [f"round {number}: {nodes[one.node][0]} was left out: {one.reason}" for one in rejected]
    progress.end(finished.rounds)
    return {GLOBAL: to_parameters(finished.arrays, progress.device)}


def _centralized(progress: _Progress) -> Models:
    return _train_alone(progress, {GLOBAL: (progress.federation.pooled(), sum(progress.batches.values()))})


def _local(progress: _Progress) -> Models:
    return _train_alone(
        progress, {site.name: (site, progress.batches[site.name]) for site in progress.federation.sites}
    )


def _train_alone(progress: _Progress, sites: Mapping[str, tuple[Site, float]]) -> Models:
    """Train a model for each of some sites, on its own rows, for as many rounds of steps as the federated arm has.

    Args:
        progress: The job.
        sites: {name of the model: (site, expected batch)}.
    """
    scenario, job = progress.scenario, progress.job
    train_all = catalog.load("engines", scenario.engine).train_all
    models = {key: progress.new_model() for key in sites}
    parameters: Models = {key: dict(model.named_parameters()) for key, model in models.items()}  # follow the models
    budget = progress.budget({site.number: (site.name, batch) for site, batch in sites.values()})
    done = 0
    for number in range(1, scenario.training.rounds + 1):
        if budget and not budget.allows_next(scenario.training.rounds - done):
            break
        works = [
            Work(
                models[key],
                site.train,
                plan(scenario, batch, progress.noise),
                Streams.of(scenario, job.seed, job.arm, site.name, number),
            )
            for key, (site, batch) in sites.items()
        ]
        for (site, _), mechanism in zip(sites.values(), train_all(works), strict=True):
            if budget and mechanism:
                budget.ledger.charge(site.name, number, mechanism)
        done = number
        progress.end_round(number, parameters)
    progress.end(done)
    return parameters
