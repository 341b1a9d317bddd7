"""The three arms that are compared: federated, centralized (pooled rows) and local (each site alone).

All arms of a seed see the same splits, start from the same weights, take the same number of steps at
the same sampling rate with the same optimizer and, under privacy of records, spend the same epsilon per
record.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from flwr.app import ArrayRecord
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from fedsim import engines
from fedsim.data.federation import Examples, Federation, Site
from fedsim.experiments.server_side import adapted, irregularities, names_of_nodes, plans_of, run_config
from fedsim.experiments.watched import Teller
from fedsim.flower import memories
from fedsim.flower.adapter import Adapter
from fedsim.flower.foreign_strategy import Hosted
from fedsim.flower.grid import FIRST_NODE, InProcessGrid
from fedsim.flower.records import Flat, Layout, flatten, kept_in
from fedsim.flower.rounds import (
    Budget,
    CentralBudget,
    Halfway,
    NothingKept,
    charge_unseen,
    run_rounds,
    taken_up,
)
from fedsim.flower.unchanged import check_changed, watching
from fedsim.mistakes import Mistake, RunFailed
from fedsim.outcomes import outcome_of
from fedsim.planning.budgets import Spending
from fedsim.planning.checks import check_expected_batches
from fedsim.planning.misbehaviour import attack_of, misbehaving, triggered
from fedsim.planning.stopping import Choice, metric_of
from fedsim.planning.trial import Trial, without_noise
from fedsim.privacy.central import CentralNoise
from fedsim.privacy.ledger import POOL, Ledger
from fedsim.privacy.unit import Protected
from fedsim.results.calibration import reliability
from fedsim.results.confusion import confusion
from fedsim.results.evaluation import Answers, answers, headline_figures, predict, scores_of
from fedsim.results.groups import tally
from fedsim.scenario.schema import Arm, Scenario
from fedsim.site.app import SiteApp
from fedsim.strategy.contract import Strategy
from fedsim.strategy.foreign import Foreign
from fedsim.strategy.local_rule import Personal, State
from fedsim.tracking.contract import Round, Training
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
    """The result of one job.

    Attributes:
        models: The trained models.
        scores: The test metrics, as ``evaluate`` returns them.
        groups: The answers of the models for each group of test rows, as ``groups.tally`` counts them.
        calibration: The predicted probabilities in bins, as ``calibration.reliability`` returns them.
        confusion: The test rows by their class and the predicted one, as ``confusion.confusion``
            returns them.
        curve: The validation metrics after each round, of the row HEADLINE: round, the metrics of the
            task's kind and, of the federated arm where sites differ in speed, the virtual time. It is
            counted in trainings of a typical site. Where a round is chosen (``training.stopping``), ``judged``, the
            figure by which, and whether the round is the one that is ``kept``.
        ledger: The ledger of all releases; None without privacy.
        notes: Remarks on irregularities: replies set aside, rounds not run for want of budget.
        kept_round: The round after which the models were as they are here: the last, or the one that was chosen by
            validation figures.
        stopped: Whether the training ended before its last round, since it gained nothing more.
        traffic: The messages that passed between server and sites, as ``Traffic.rows`` returns them; None where they
            were not counted from the first round on.
    """

    models: Models
    scores: pd.DataFrame
    groups: pd.DataFrame
    calibration: pd.DataFrame
    confusion: pd.DataFrame
    curve: pd.DataFrame
    ledger: Ledger | None
    notes: list[str]
    kept_round: int
    stopped: bool
    traffic: list[dict[str, Any]] | None = None


def jobs(scenario: Scenario) -> list[Job]:
    """Return all trainings of a scenario, in the order they are run."""
    trainings = []
    for seed in scenario.all_seeds:
        trainings += [Job(arm, False, seed) for arm in scenario.arms]
        trainings += [Job(arm, True, seed) for arm in scenario.private_arms]
    return trainings


class _Training:
    """One training under way: its trial, and the records that it leaves behind.

    Attributes:
        trial: The scenario, seed and arm.
        observe: Called after each round with its number.
        halfway: Where the state after a round is kept.
        teller: Tells those who watch of each round; None if nobody does.
        note: Called with the validation metrics after each round; None if nobody notes them.
        spending: The ledger and the budget; None without privacy.
        curve: The validation metrics after each round: {column: its values}.
        time: The virtual time, where sites differ in speed.
        notes: Remarks on irregularities.
        choice: The choice of a round by validation figures; None where it is the last.
        best: The models after the best round so far, where that one is kept.
        kept_round: The round whose models are kept, once the training is over.
        stopped: Whether it ended before its last round, since it gained nothing more.
    """

    def __init__(self, trial: Trial, observe: Callable[[int], None], halfway: Halfway) -> None:
        check_expected_batches(trial.scenario, trial.federation)
        self.trial = trial
        self.observe = observe
        self.halfway = halfway
        self.teller: Teller | None = None
        self.note: Callable[[Mapping[str, Any]], None] | None = None
        self.spending = Spending.of(trial) if trial.private else None
        self.curve: dict[str, list[float]] = {}
        self.time: float | None = None
        self.notes: list[str] = []
        self.choice = _choice_of(trial)
        self.best: Models = {}
        self.kept_round = 0
        self.stopped = False
        self.traffic: list[dict[str, Any]] | None = []

    def answers(self, models: Models) -> list[Answers]:
        """Return each site's answers on its test rows, by the model that it would use."""
        trial = self.trial
        by_site = self.by_site(models)
        return answers(trial.model, by_site, trial.tested, "test", trial.task.kind)

    def by_site(self, models: Models, sites: Federation | None = None) -> dict[str, Mapping[str, Tensor]]:
        """Return {site: the model it would use} of some sites, by default those on whose rows models are tested."""
        names = (sites or self.trial.tested).names
        return {name: models.get(name) or models[GLOBAL] for name in names}

    def end_round(self, number: int, models: Models) -> None:
        """Measure on the validation rows, and tell that a round is over."""
        trial = self.trial
        if trial.scenario.split.validation:
            headline = self.validated(models, trial.tested)
            point: dict[str, Any] = {"round": number}
            if self.time is not None:
                point["time"] = self.time
            for metric in outcome_of(trial.task.kind).metrics:
                point[metric.name] = headline[metric.name]
            if self.choice:
                on_all = trial.judged is trial.tested
                point["judged"] = self.judge(self.choice, models, headline if on_all else None)
            for column, value in point.items():
                self.curve.setdefault(column, []).append(value)
            if self.note:
                self.note(point)
        if self.teller:
            self.teller.tell(number, self.curve, self.spending.ledger if self.spending else None)
        self.observe(number)

    def validated(self, models: Models, sites: Federation) -> Mapping[str, Any]:
        """Return the figures of models on the validation rows of some sites, together."""
        trial = self.trial
        by_site = self.by_site(models, sites)
        return headline_figures(trial.model, by_site, sites, "validation", trial.task.kind, trial.task.range)

    def judge(self, choice: Choice, models: Models, figures: Mapping[str, Any] | None) -> float:
        """Judge the models of a round, and keep them if they are the best so far; return their figure.

        Args:
            choice: The choice of a round.
            models: The models.
            figures: Their figures on the rows by which is chosen, if they are known.
        """
        if figures is None:
            figures = self.validated(models, self.trial.judged)
        figure = figures[choice.metric.name]
        if choice.judge(figure) and choice.keeps_best:
            self.best = models
        return float("nan") if figure is None else float(figure)

    def enough(self) -> bool:
        """Whether the training ends before its next round, since it gains nothing more."""
        return self.choice is not None and self.choice.enough

    def kept(self, models: Models, rounds: int) -> Models:
        """Return the models that are kept, of all keys from one round, and note which that is.

        Args:
            models: The models after the last round.
            rounds: The number of rounds that were run.

        Raises:
            RunFailed: The best round is to be kept, and none had a figure.
        """
        self.kept_round = rounds
        if not rounds or self.choice is None or not self.choice.keeps_best:
            return models
        if not self.best:
            raise RunFailed(
                f"training.stopping: no round has a figure ({self.choice.metric.label}) on the rows that rounds are "
                "judged on, so none is the best; take another metric, or a larger split.validation"
            )
        self.kept_round = self.choice.judged.best_round
        return self.best

    def finished_curve(self) -> pd.DataFrame:
        """Return the curve, with the mark of the round that is kept where one was chosen."""
        curve = pd.DataFrame(self.curve)
        if self.choice and len(curve):
            curve["kept"] = curve["round"] == self.kept_round
        return curve

    def personal(
        self,
        strategy: Strategy,
        told: State,
        center: Tensor,
        grid: InProcessGrid,
        number: int,
    ) -> Models:
        """Return {site: its own model} of the sites that a strategy left with one.

        Args:
            strategy: The strategy.
            told: The vectors that its server would send with the next model.
            center: The global model, (params,).
            grid: The grid that the sites are on, with their memories.
            number: The round.

        Raises:
            RunFailed: A model that may be looked at holds a NaN or an infinity.
        """
        rule = strategy.second_rule() or strategy.local_rule()
        if not isinstance(rule, Personal):
            return {}

        # Where whole sites are protected, what a site keeps is exact: that its rows spoilt it must not show.
        exact = self.trial.private and self.trial.unit.protects is Protected.SITE
        models: dict[Key, Mapping[str, Tensor]] = {}
        for node, context in grid.contexts.items():
            memory = kept_in(context)
            if memory:
                name = self.trial.names[node - FIRST_NODE]
                vector = rule.personal(center, memory | told)
                if not exact:
                    check_finite(vector, number, f"the personal model of {name}")
                models[name] = self.trial.parts(vector)
        return models

    def note_backdoor(self, models: Models) -> None:
        """Note how often a backdoor works: on test rows of other classes, with the trigger in them."""
        trial = self.trial
        attack = attack_of(trial.scenario)
        target = attack.target_class() if attack else None
        if target is None:
            return

        # The rows of other classes with the trigger in them, and the model that each site would use.
        by_site = self.by_site(models)
        asked = []
        for site in trial.tested.sites:
            others = site.test.target != target
            inputs = triggered(trial.scenario, site.test.inputs[others])
            if inputs is not None and len(inputs):
                examples = Examples(inputs, site.test.target[others])
                asked.append((site.name, by_site[site.name], examples))

        # It works on a row that the model takes for the attacker's class.
        fooled = []
        outcome = outcome_of(trial.task.kind)
        for _, examples, outputs in predict(trial.model, asked):
            answer = outcome.said(outputs, examples.target)
            is_binary = answer.ndim == 1
            predicted = answer >= 0.5 if is_binary else answer.argmax(1)
            fooled.append(predicted == target)
        if fooled:
            share = np.concatenate(fooled).mean()
            self.notes.append(f"the backdoor works on {share:.1%} of the test rows of other classes")

    def snapshot(self) -> dict[str, Any]:
        """Return the records so far as values that can be written down."""
        records: dict[str, Any] = {
            "curve": {column: np.array(values) for column, values in self.curve.items()},
            "time": self.time,
            "ledger": self.spending.snapshot() if self.spending else None,
        }
        if self.choice:
            records["choice"] = self.choice.snapshot()
            records["best"] = [
                (None if isinstance(key, Shared) else key, parameters_to_vector(parts.values()))
                for key, parts in self.best.items()
            ]
        return records

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``snapshot`` returned."""
        self.curve = {column: values.tolist() for column, values in state["curve"].items()}
        self.time = state["time"]
        columns = {"round", *(metric.name for metric in outcome_of(self.trial.task.kind).metrics)}
        if self.time is not None:
            columns.add("time")
        if self.choice:
            columns.add("judged")
            self.choice.restore(state["choice"])
            for key, vector in state["best"]:
                if vector.shape != self.trial.start.shape:
                    raise ValueError(f"expected the best models to have {len(self.trial.start)} parameters")
                self.best = {**self.best, GLOBAL if key is None else key: self.trial.parts(vector)}
            if self.choice.keeps_best and bool(self.choice.judged.best_round) != bool(self.best):
                raise ValueError("expected the models of the best round")
        if set(self.curve) not in (set(), columns) or len({len(values) for values in self.curve.values()}) > 1:
            raise ValueError(f"expected the columns {', '.join(sorted(columns))} of one length")
        if self.spending:
            self.spending.restore(state["ledger"])

    def note_unseen(self, unseen: Mapping[int, int]) -> None:
        """Note the rounds that were begun, interrupted and run again, {round: how often}, where that costs privacy."""
        for number, times in unseen.items():
            what = "once" if times == 1 else f"{times} times"
            self.notes.append(
                f"round {number} was begun {what} before and interrupted: what may have left until then is charged, too"
            )

    def end(self, rounds: int) -> None:
        """Note it if the budget did not last for the rounds that were wanted, and there were not enough."""
        wanted = self.trial.scenario.training.rounds
        limit = self.trial.scenario.privacy.epsilon
        self.stopped = rounds < wanted and self.enough()
        if rounds < wanted and not self.stopped:
            self.notes.append(f"stopped after {rounds} of {wanted} rounds: the next would exceed epsilon {limit:g}")


def _choice_of(trial: Trial) -> Choice | None:
    """Return the choice of a round that a scenario asks for, before the first.

    Raises:
        Mistake: There is no such metric.
    """
    stopping = trial.scenario.training.stopping
    if stopping is None:
        return None
    metric = metric_of(stopping, trial.task.kind)
    if metric is None:
        raise Mistake(f"training.stopping.metric: expected a metric of the task, got {stopping.metric!r}")
    return Choice(stopping, metric)


def run_job(
    scenario: Scenario,
    job: Job,
    observe: Callable[[int], None],
    halfway: Halfway | None = None,
    watch: Callable[[Round], None] | None = None,
    note: Callable[[Mapping[str, Any]], None] | None = None,
) -> Trained:
    """Run one training.

    Args:
        scenario: The experiment.
        job: The training.
        observe: Called after each round with its number.
        halfway: Where the state after a round is kept, and from which an interrupted training goes on.
        watch: Called after each round with its figures; where a training goes on, first with the rounds before.
        note: Called after each round, ahead of ``observe``, with its validation metrics, where there are any.
    """
    if not job.private:
        scenario = without_noise(scenario)
    trial = Trial(scenario, job.seed, job.arm)
    training = _Training(trial, observe, halfway or NothingKept())
    training.note = note
    if watch is not None:
        training.teller = Teller(scenario, Training(job.arm, job.private, job.seed), trial.task.kind, watch)

    train = {"federated": _federated, "centralized": _centralized, "local": _local}[job.arm]
    models = train(training)
    test_answers = training.answers(models)
    task = trial.task
    return Trained(
        models=models,
        scores=scores_of(test_answers, task.kind, range=task.range),
        groups=tally(test_answers, task.kind, task.range),
        calibration=reliability(test_answers, task.kind),
        confusion=confusion(test_answers, task.kind, scenario.evaluation.threshold),
        curve=training.finished_curve(),
        ledger=training.spending.ledger if training.spending else None,
        notes=training.notes,
        kept_round=training.kept_round,
        stopped=training.stopped,
        traffic=training.traffic,
    )


def _federated(training: _Training) -> Models:
    """Train one model at all sites, in rounds, by the strategy."""
    trial = training.trial
    scenario = trial.scenario
    strategy = trial.strategy

    plans = plans_of(trial)
    names = names_of_nodes(trial)
    budget = training.spending.federated(plans) if training.spending else None

    # Attackers and faulty sites stand between the engine and the server.
    execute = engines.load(scenario.engine).execute(SiteApp(), scenario.cohort_size)
    if scenario.training.adapt is not None and not scenario.secure_aggregation.on:
        execute = watching(execute, Layout.of(trial.model))
    sites = misbehaving(execute, scenario, trial.seed, trial.names)
    grid = InProcessGrid(sites, len(trial.names), run_config(trial))
    noise = budget.noise if isinstance(budget, CentralBudget) else None
    if isinstance(strategy, Foreign):
        hosted = Hosted(strategy.inner, trial.seed, len(trial.names))
    else:
        hosted = adapted(trial, training.spending, budget)

    def models(arrays: ArrayRecord, number: int) -> Models:
        center = flatten(arrays).to(trial.device)
        told = hosted.told() if isinstance(hosted, Adapter) else {}
        personal = training.personal(trial.strategy_in(number), told, center, grid, number)
        return {GLOBAL: trial.parts(center), **personal}

    before = trial.start

    def observe(number: int, arrays: ArrayRecord) -> None:
        nonlocal before
        if scenario.training.adapt is not None and scenario.secure_aggregation.on:  # what a site sent, nobody sees
            center = flatten(arrays).to(trial.device)
            check_changed(number, [(trial.parts(before), trial.parts(center))])
            before = center.clone()
        if scenario.training.duration_spread:
            asked = [node - FIRST_NODE for node in hosted.asked]
            training.time = trial.time_after(number, asked, training.time or 0.0)
        training.end_round(number, models(arrays, number))

    finished = run_rounds(
        strategy=hosted,
        grid=grid,
        initial=Flat(trial.start, Layout.of(trial.model)),
        rounds=scenario.training.rounds,
        budget=budget,
        observe=observe,
        patient=trial.arrivals is not None,
        names=names,
        halfway=_WithRecords(training, grid, noise),
        enough=training.enough,
    )

    if training.traffic is not None:
        training.traffic = grid.traffic.rows()
    training.note_unseen(finished.unseen)
    training.notes += irregularities(finished, names)
    training.end(finished.rounds)
    trained = training.kept(models(finished.arrays, finished.rounds), finished.rounds)
    training.note_backdoor(trained)
    return trained


def check_finite(vector: Tensor, number: int, whose: str) -> None:
    """Make sure that a model, (params,), holds numbers after a round.

    Raises:
        RunFailed: It holds a NaN or an infinity.
    """
    if not vector.isfinite().all():
        raise RunFailed(
            f"round {number}: {whose} is no longer finite: the training diverged; a lower training.optimizer.lr "
            "or weight_decay may help"
        )


class _WithRecords:
    """Keeps, beside the state of the rounds, what the training and its sites remember.

    Args:
        training: The training.
        grid: The grid with the sites' memories.
        noise: The server's noise, if it adds any.
    """

    def __init__(self, training: _Training, grid: InProcessGrid, noise: CentralNoise | None) -> None:
        self._training = training
        self._grid = grid
        self._noise = noise

    def found(self) -> Mapping[str, Any] | None:
        """Return the state of the rounds that was kept, and put back what was kept beside it."""
        state = self._training.halfway.found()
        if state is None:
            return None
        with taken_up():
            self._training.restore(state["training"])
            memories.restore(self._grid, state["sites"])
            if "traffic" in state:
                self._grid.traffic.restore(state["traffic"])
            else:
                self._training.traffic = None  # begun by a version that did not count
            if self._noise:
                self._noise.restore(state["noise"])
            return state["server"]

    def unseen(self, number: int) -> Sequence[Sequence[int]]:
        """Hand it on."""
        return self._training.halfway.unseen(number)

    def begin(self, number: int, asked: Sequence[int]) -> None:
        """Hand it on."""
        self._training.halfway.begin(number, asked)

    def end(self, number: int, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        """Hand it on, with what is kept beside the state of the rounds."""

        def all_of_it() -> Mapping[str, Any]:
            return {
                "server": snapshot(),
                "training": self._training.snapshot(),
                "sites": memories.snapshot(self._grid),
                **({} if self._training.traffic is None else {"traffic": self._grid.traffic.rows()}),
                "noise": self._noise.snapshot() if self._noise else None,
            }

        self._training.halfway.end(number, all_of_it)


@dataclass(frozen=True)
class _Learner:
    """One model that is trained on rows of its own, in no federation.

    Attributes:
        rows_of: From the number of a round to the rows, as one site.
        plan_of: From the number of a round to the plan of its steps.
    """

    rows_of: Callable[[int], Site]
    plan_of: Callable[[int], Plan]


def _centralized(training: _Training) -> Models:
    """Train on the rows of all sites that have joined.

    Where a round has some of the sites only, drawn at random, a row joins a step that much less often.
    """
    trial = training.trial
    share = trial.share_of_sites
    pooled = cache(trial.federation.pooled)

    def rows_of(number: int) -> Site:
        return pooled(tuple(trial.joined(number)))

    def plan_of(number: int) -> Plan:
        expected_batch = sum(trial.weights[trial.names[site]] for site in trial.joined(number))
        of_all_rows = trial.plan(share * expected_batch, number)
        return replace(of_all_rows, sampling_rate=share * of_all_rows.sampling_rate)

    return _train_alone(training, {GLOBAL: _Learner(rows_of, plan_of)}, lambda number: [GLOBAL])


def _local(training: _Training) -> Models:
    """Train a model for each site, in the rounds in which it would take part."""
    trial = training.trial
    federation = trial.federation

    def alone(site: int, name: str) -> _Learner:
        # By number: made-up sites appear on demand, and all of them may not fit into memory.
        def plan_of(number: int) -> Plan:
            return trial.plan(trial.weights[name], number)

        return _Learner(rows_of=lambda number: federation.sites[site], plan_of=plan_of)

    def names_of(number: int) -> list[str]:
        return [trial.names[site] for site in trial.sites_of(number)]

    learners: dict[Key, _Learner] = {}
    for site, name in enumerate(trial.names):
        learners[name] = alone(site, name)
    return _train_alone(training, learners, names_of)


def _train_alone(
    training: _Training,
    learners: Mapping[Key, _Learner],
    keys_of: Callable[[int], Sequence[Key]],
) -> Models:
    """Train some models, each on its own rows.

    Args:
        training: The training.
        learners: {key of the model: its rows and plans}.
        keys_of: From the number of a round to the models that are trained in it.
    """
    trial = training.trial
    alone = _Alone(training, learners)
    for number in range(alone.done + 1, trial.scenario.training.rounds + 1):
        if training.enough() or not alone.round(number, keys_of(number)):
            break
        training.end_round(number, alone.models)
        training.halfway.end(number, alone.snapshot)
    training.note_unseen(alone.unseen)
    training.end(alone.done)
    return training.kept(alone.models, alone.done)


class _Alone:
    """Models that are trained in no federation, each on its own rows.

    Args:
        training: The training.
        learners: {key of the model: its rows and plans}.

    Attributes:
        done: The number of rounds that were run.
        unseen: {round: how often it was begun by trainings that were interrupted in it}.
    """

    def __init__(self, training: _Training, learners: Mapping[Key, _Learner]) -> None:
        self._training = training
        self._learners = learners
        self._vectors = dict.fromkeys(learners, training.trial.start)
        self._numbers = {key: number for number, key in enumerate(learners)}
        # The pool is in every round, a site in those in which it would take part.
        self._charged = {key: POOL if isinstance(key, Shared) else key for key in learners}
        self._budget = self._planned(training.spending) if training.spending else None
        self.done = 0
        self.unseen: dict[int, int] = {}
        state = training.halfway.found()
        if state is not None:
            with taken_up():
                self._restore(state)

    @property
    def models(self) -> Models:
        """The models as they are now."""
        parts = self._training.trial.parts
        return {key: parts(vector) for key, vector in self._vectors.items()}

    def round(self, number: int, keys: Sequence[Key]) -> bool:
        """Train some of the models for a round; return whether the budget allowed it."""
        trial = self._training.trial
        halfway = self._training.halfway
        numbers = [self._numbers[key] for key in keys]
        charge_unseen(halfway, number, self._budget, self.unseen)
        if self._budget and not self._budget.allows(numbers):
            return False

        halfway.begin(number, numbers)
        works = []
        for key in keys:
            site = self._learners[key].rows_of(number)
            work = Work(
                model=trial.model,
                start=self._vectors[key],
                examples=site.train,
                plan=self._learners[key].plan_of(number),
                streams=trial.streams(site.name, number),
                losses=trial.losses,
            )
            works.append(work)

        # All at once: an engine may stack them.
        train_all = engines.load(trial.scenario.engine).train_all
        results = train_all(works, trial.scenario.cohort_size)
        if trial.scenario.training.adapt is not None:
            models = [
                (trial.parts(work.start), trial.parts(one.parameters)) for work, one in zip(works, results, strict=True)
            ]
            check_changed(number, models)
        for key, trained in zip(keys, results, strict=True):
            check_finite(trained.parameters, number, "the model" if key is GLOBAL else f"the model of {key}")
            self._vectors[key] = trained.parameters
            if self._budget and trained.mechanism:
                self._budget.ledger.charge(self._charged[key], number, trained.mechanism)
        self.done = number
        return True

    def snapshot(self) -> Mapping[str, Any]:
        """Return what later rounds depend on; of the models those that were trained."""
        start = self._training.trial.start
        trained = {self._numbers[key]: vector for key, vector in self._vectors.items() if vector is not start}
        records = self._training.snapshot()
        return {"training": records, "rounds": self.done, "unseen": self.unseen, "models": trained}

    def _restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``snapshot`` returned."""
        self._training.restore(state["training"])
        self.done = state["rounds"]
        self.unseen = state["unseen"]
        for key, number in self._numbers.items():
            if number in state["models"]:
                self._vectors[key] = state["models"][number]

    def _planned(self, spending: Spending) -> Budget:
        """Return the budget of the models' rows."""
        trial = self._training.trial
        planned = {}
        for key, learner in self._learners.items():
            planned[self._numbers[key]] = (self._charged[key], learner.plan_of(1))
        most_rounds = trial.scenario.training.rounds if GLOBAL in self._learners else trial.most_rounds
        return spending.own(planned, most_rounds)
