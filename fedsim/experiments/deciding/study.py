"""One search for good settings: an arm under one seed, by Optuna, trial after trial.

A study is run from its first trial on whenever it is asked for. What was trained before is read from the cache, so a
search that was interrupted proposes the same settings, repeats no training, and ends where it would have ended.
"""

import json
import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from fedsim.experiments.arms import Job
from fedsim.experiments.deciding.kept import CutShort, Outcome, Training, of_arm, read_kept, train
from fedsim.experiments.deciding.space import Dimension
from fedsim.mistakes import Mistake, RunFailed
from fedsim.planning.checks import check
from fedsim.randomness import stream
from fedsim.results import run_directory as results
from fedsim.scenario.schema import Arm, Scenario
from fedsim.tracking.contract import Round

optuna.logging.set_verbosity(optuna.logging.WARNING)

COMPLETE = "complete"
PRUNED = "pruned"
FAILED = "failed"

_TRIALS_BEFORE_PRUNING = 5
_SHARE_BEFORE_PRUNING = 0.25  # of the rounds


@dataclass(frozen=True)
class Tried:
    """One trial of a study.

    Attributes:
        number: Its number, from 0 on; 0 has the scenario's own settings, or the nearest in the space.
        settings: {setting: its value, as text}.
        state: ``complete``, ``pruned`` or ``failed``.
        rounds: The number of rounds that were run.
        validation: The last validation figure; None where there is none.
        outcome: The result of a complete training.
        reason: Why it failed.
    """

    number: int
    settings: Mapping[str, str]
    state: str
    rounds: int
    validation: float | None
    outcome: Outcome | None = None
    reason: str = ""


@dataclass(frozen=True)
class Study:
    """A search, which can be handed to another process.

    Attributes:
        arm: The arm.
        seed: The seed.
        space: The settings that are varied.
        own: {setting: the value of the space that is nearest to the scenario's own}.
        make: From {setting: value} to the scenario of a trial.
        trials: The number of trials.
        metric: The metric that is to be large.
        prune: Whether a trial is ended early if it does worse than the median of those before it.
        folder: Where trainings are kept.
    """

    arm: Arm
    seed: int
    space: Sequence[Dimension]
    own: Mapping[str, Any]
    make: Callable[[Mapping[str, str]], Scenario]
    trials: int
    metric: str
    prune: bool
    folder: Path

    @property
    def name(self) -> str:
        """A name for people."""
        return f"{self.arm}, seed {self.seed}"

    def __call__(self, tell: Callable[[int], None]) -> list[Tried]:
        """Run all trials; return them in their order.

        Args:
            tell: Called with the number of trials that are done.

        Raises:
            OSError: Something can't be written.
        """
        search = self.search()
        tried = []
        for number in range(self.trials):
            tell(number)
            trial = search.ask()
            settings = {dimension.key: dimension.suggest(trial) for dimension in self.space}
            one = self._try(trial, number, settings)
            tried.append(one)
            if one.state == COMPLETE and one.validation is not None:
                search.tell(trial, one.validation)
            else:
                search.tell(trial, state=TrialState.PRUNED if one.state == PRUNED else TrialState.FAIL)
        return tried

    def search(self) -> optuna.Study:
        """Return the search, with the scenario's own settings as its first trial."""
        sampler = optuna.samplers.TPESampler(seed=int(stream(self.seed, "tuning", self.arm).integers(2**31)))
        pruner = optuna.pruners.NopPruner()
        if self.prune:
            pruner = optuna.pruners.MedianPruner(n_startup_trials=_TRIALS_BEFORE_PRUNING)
        search = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner, study_name=self.name)
        search.enqueue_trial(dict(self.own))
        return search

    def _try(self, trial: optuna.Trial, number: int, settings: Mapping[str, str]) -> Tried:
        """Run one trial, or read what came of it before."""
        try:
            scenario = self.make(settings)
            check(scenario)
            training = Training(of_arm(scenario, self.arm), Job(self.arm, scenario.private, self.seed), self.name)
            return self._trained(trial, number, settings, training)
        except (Mistake, RunFailed) as error:
            return Tried(number, settings, FAILED, 0, None, reason=" ".join(str(error).split()))

    def _trained(self, trial: optuna.Trial, number: int, settings: Mapping[str, str], training: Training) -> Tried:
        course = _Course(trial, self.prune, training.scenario.training.rounds)

        # A training that was cut short before is cut short again, if this study has come the same way.
        for round_number, figure in _read_cut(self.folder, training, self.metric) if self.prune else ():
            if course.falls_behind(round_number, figure):
                return Tried(number, settings, PRUNED, round_number, figure)

        seen: list[tuple[int, dict[str, float]]] = []

        def watch(told: Round) -> None:
            figure = _known(told.figures.get(self.metric))
            seen.append((told.round, dict(told.figures)))
            if course.falls_behind(told.round, figure):
                raise CutShort

        outcome = read_kept(self.folder, training)
        if outcome is None:
            try:
                outcome = train(training, self.folder, watch)
            except CutShort:
                _keep_cut(self.folder, training, seen)
                last, figures = seen[-1]
                return Tried(number, settings, PRUNED, last, _known(figures.get(self.metric)))
        else:
            # It was wanted whole by another command. Here it is cut short all the same: what a search proposes must
            # not depend on what others have trained.
            for row in outcome.curve:
                figure = _known(row[self.metric])
                if course.falls_behind(row["round"], figure):
                    return Tried(number, settings, PRUNED, row["round"], figure)

        figure = _known(outcome.validated.get(self.metric))
        if not math.isfinite(figure):
            reason = "; ".join(["it has no validation figure", *outcome.notes])
            return Tried(number, settings, FAILED, len(outcome.curve), None, reason=reason)
        return Tried(number, settings, COMPLETE, len(outcome.curve), figure, outcome)


class _Course:
    """The course of one trial, beside that of the trials before it.

    Args:
        trial: The trial.
        prune: Whether it may be cut short.
        rounds: The number of rounds of its training.
    """

    def __init__(self, trial: optuna.Trial, prune: bool, rounds: int) -> None:
        self._trial = trial
        self._prune = prune
        self._first = max(1, round(_SHARE_BEFORE_PRUNING * rounds))
        self._last = rounds

    def falls_behind(self, round_number: int, figure: float) -> bool:
        """Tell of a round; return whether the training is not worth going on with."""
        if not math.isfinite(figure):
            return False  # no validation rows of both classes, say: nothing can be told
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a round that was told before an interruption is told twice
            self._trial.report(figure, round_number)
        is_between = self._first <= round_number < self._last
        return self._prune and is_between and self._trial.should_prune()


def _known(figure: float | None) -> float:
    return math.nan if figure is None else float(figure)


def _cut_path(folder: Path, training: Training) -> Path:
    return folder / f"{training.key}.cut-short.json"


def _keep_cut(folder: Path, training: Training, seen: Sequence[tuple[int, Mapping[str, float]]]) -> None:
    """Keep the figures of a training that was cut short."""
    results.write_json(_cut_path(folder, training), {"seen": [list(one) for one in seen]})


def _read_cut(folder: Path, training: Training, metric: str) -> list[tuple[int, float]]:
    """Return a metric after each round of a training that was cut short; none if there is none that can be read."""
    path = _cut_path(folder, training)
    if not path.exists():
        return []
    try:
        return [(int(number), _known(figures.get(metric))) for number, figures in results.read_json(path)["seen"]]
    except (AttributeError, KeyError, TypeError, ValueError, json.JSONDecodeError) as error:
        logging.getLogger(__name__).warning("%s is left aside: %s", path, error)
        return []
