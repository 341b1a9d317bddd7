"""The three arms that are compared: federated, centralized (pooled rows) and local (each site alone).

All arms of a seed see the same splits, start from the same weights, take the same number of steps at the same sampling
rate with the same optimizer and, under privacy, spend the same epsilon per record.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from flwr.app import ArrayRecord
from torch import Tensor

from fedsim import catalog
from fedsim.adapter import Adapter
from fedsim.evaluation import evaluate
from fedsim.federation import Federation, Site, federate
from fedsim.grid import InProcessGrid, node_of
from fedsim.mistakes import Mistake
from fedsim.privacy.accounting import noise_multiplier
from fedsim.privacy.ledger import Ledger, Mechanism
from fedsim.records import to_arrays, to_parameters
from fedsim.rounds import Budget, run_rounds
from fedsim.scenario import Arm, Scenario
from fedsim.strategy import Strategy
from fedsim.training import Streams, best_device, expected_batches, new_model, plan, train

logging.getLogger("flwr").setLevel(logging.WARNING)  # importing flwr sets it to DEBUG

Parameters = dict[str, Tensor]


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
        models: {site: parameters of the model that site would use}; {"global": ...} when all sites share one.
        scores: The test metrics, as ``evaluate`` returns them.
        curve: The pooled validation metrics after each round: round, auc, accuracy, log_loss.
        ledger: What was released; None without privacy.
        notes: What did not go by the book: replies set aside, rounds not run for want of budget.
    """

    models: dict[str, Parameters]
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
    if privacy.noise_multiplier is not None:
        return privacy.noise_multiplier
    if privacy.epsilon is None or privacy.delta is None:
        raise Mistake("privacy: expected epsilon and delta")
    steps = training.rounds * training.local_steps
    return noise_multiplier(privacy.epsilon, training.sampling_rate, steps, privacy.delta, privacy.neighbours)


def strategy_of(scenario: Scenario) -> Strategy:
    """Make the scenario's strategy with its hyperparameters.

    Raises:
        Mistake: The strategy has no such hyperparameter, or refuses a value.
    """
    chosen = scenario.strategy
    try:
        return catalog.load("strategies", chosen.name)(**(chosen.model_extra or {}))
    except (TypeError, ValueError) as error:
        raise Mistake(f"strategy {chosen.name}: {error}") from None


class _Trainer:
    """One job under way: trains, measures after each round, keeps the ledger."""

    def __init__(self, scenario: Scenario, job: Job, observe: Callable[[], None]) -> None:
        self.scenario, self.job, self.observe = scenario, job, observe
        self.device = best_device(scenario.device)
        self.federation = federate(scenario, job.seed, self.device)
        self.batches = expected_batches(scenario, self.federation)
        self.model = new_model(scenario, self.federation.sites[0], job.seed, self.device)
        self.noise = noise_for(scenario) if job.private else None
        self.curve: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.ledger: Ledger | None = None

    def initial(self) -> Parameters:
        return {name: value.detach().clone() for name, value in self.model.named_parameters()}

    def budget(self, sites: Mapping[int, str], batches: Mapping[str, float]) -> Budget | None:
        """Open the ledger of a private training, with what each of some nodes is to do in one round."""
        privacy, training = self.scenario.privacy, self.scenario.training
        if self.noise is None or privacy.delta is None or privacy.epsilon is None:
            return None
        self.ledger = Ledger(privacy.delta, privacy.neighbours)
        planned = {
            node: (
                name,
                Mechanism(training.sampling_rate, self.noise, privacy.clip, batches[name], training.local_steps),
            )
            for node, name in sites.items()
        }
        return Budget(self.ledger, privacy.epsilon, planned)

    def measured(self, round_number: int, models: Mapping[str, Parameters]) -> None:
        """Measure all sites' models on the validation rows."""
        if self.scenario.split.validation:
            table = evaluate(self.model, models, self.federation, "validation", sites=False)
            self.curve.append({"round": round_number, **table.iloc[0][["auc", "accuracy", "log_loss"]]})
        self.observe()

    def shared(self, parameters: Parameters) -> dict[str, Parameters]:
        return {site.name: parameters for site in self.federation.sites}


def run_job(scenario: Scenario, job: Job, observe: Callable[[], None]) -> Trained:
    """Run one training.

    Args:
        scenario: The experiment.
        job: Which of its trainings.
        observe: Called after each round.
    """
    trainer = _Trainer(scenario, job, observe)
    arms = {"federated": _federated, "centralized": _centralized, "local": _local}
    models = arms[job.arm](trainer)
    everyone = models if "global" not in models else trainer.shared(models["global"])
    scores = evaluate(trainer.model, everyone, trainer.federation, "test")
    return Trained(models, scores, pd.DataFrame(trainer.curve), trainer.ledger, trainer.notes)


def _federated(trainer: _Trainer) -> dict[str, Parameters]:
    scenario, job, sites = trainer.scenario, trainer.job, trainer.federation.sites
    run_config: dict[str, Any] = {"scenario": scenario.model_dump_json(), "seed": job.seed, "arm": job.arm}
    if trainer.noise is not None:
        run_config["noise-multiplier"] = trainer.noise
    engine = catalog.load("engines", scenario.engine)(catalog.client_app())
    weights = {node_of(site.number): trainer.batches[site.name] for site in sites}
    names = {node_of(site.number): site.name for site in sites}

    def observe(round_number: int, arrays: ArrayRecord) -> None:
        trainer.measured(round_number, trainer.shared(to_parameters(arrays)))

    finished = run_rounds(
        strategy=Adapter(strategy_of(scenario), weights, fixed_denominator=job.private),
        grid=InProcessGrid(engine, len(sites), run_config),
        initial=to_arrays(trainer.initial()),
        rounds=scenario.training.rounds,
        budget=trainer.budget(names, trainer.batches),
        observe=observe,
    )
    for number, rejected in finished.rejected.items():
        trainer.notes += [f"round {number}: {names[one.node]} was left out: {one.reason}" for one in rejected]
    _note_stop(trainer, finished.rounds)
    return {"global": to_parameters(finished.arrays)}


def _centralized(trainer: _Trainer) -> dict[str, Parameters]:
    pooled = trainer.federation.pooled()
    models = _train_alone(trainer, {"pooled": pooled}, {"pooled": sum(trainer.batches.values())})
    return {"global": models["pooled"]}


def _local(trainer: _Trainer) -> dict[str, Parameters]:
    return _train_alone(trainer, {site.name: site for site in trainer.federation.sites}, trainer.batches)


def _train_alone(
    trainer: _Trainer, sites: Mapping[str, Site], batches: Mapping[str, float]
) -> dict[str, Parameters]:
    """Train each of some sites on its own rows alone, for as many rounds of steps as the federated arm has."""
    scenario, job = trainer.scenario, trainer.job
    models = {name: new_model(scenario, site, job.seed, trainer.device) for name, site in sites.items()}
    budget = trainer.budget({site.number: name for name, site in sites.items()}, batches)
    done = 0
    for number in range(1, scenario.training.rounds + 1):
        if budget and not (budget.allows(scenario.training.rounds - done) or budget.allows(1)):
            break
        for name, site in sites.items():
            streams = Streams.of(job.seed, job.arm, name, number)
            todo = plan(scenario, batches[name], trainer.noise)
            mechanism = train(models[name], site.train, todo, streams)
            if budget and mechanism:
                budget.ledger.charge(name, number, mechanism)
        done = number
        current = {name: dict(model.named_parameters()) for name, model in models.items()}
        trainer.measured(number, trainer.shared(current["pooled"]) if "pooled" in current else current)
    _note_stop(trainer, done)
    return {name: dict(model.named_parameters()) for name, model in models.items()}


def _note_stop(trainer: _Trainer, rounds: int) -> None:
    wanted, limit = trainer.scenario.training.rounds, trainer.scenario.privacy.epsilon
    if rounds < wanted:
        trainer.notes.append(f"stopped after {rounds} of {wanted} rounds: the next would exceed epsilon {limit:g}")
