"""Telling of a run as it goes: to a function of the caller's, and to trackers. It changes nothing about the run."""

import hashlib
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fedsim.mistakes import Mistake, StoppedByCaller, said_by
from fedsim.scenario import catalog
from fedsim.tracking.contract import Ended, Round, Run, Tracker, Training

_log = logging.getLogger(__name__)

FOLDER = "tracking"
"""The folder in the run directory that trackers write into; the seal is not over it."""

EPSILON = "epsilon"

_MOST_EPSILONS = 40
"""In a training's series, and the one at its end: each takes about a second."""

_LONGEST_NAME = 64

OnRound = Callable[[Round], object]


@dataclass(frozen=True)
class Watch:
    """Who watches a run.

    Attributes:
        track: The names of trackers.
        to: The folder they write into; None for the folder ``tracking`` in the run directory.
        on_round: Called after each round, in the process that began the run. What it raises ends the run, which can be
            gone on with, and is raised there.
    """

    track: tuple[str, ...] = ()
    to: Path | None = None
    on_round: OnRound | None = None

    def check(self) -> None:
        """Make sure that all that is asked for can be done, before anything is trained.

        Raises:
            Mistake: A tracker is misspelt, is named twice or lacks its library, or there is nothing to track.
        """
        faults = [f"track: expected {name} once" for name in sorted(set(self.track)) if self.track.count(name) > 1]
        for name in dict.fromkeys(self.track):
            try:
                self._check_tracker(name)
            except Mistake as mistake:
                faults.append(str(mistake))
        if self.to is not None and not self.track:
            faults.append("track-to: expected with track only, which names what writes there")
        if self.to is not None and self.to.exists() and not self.to.is_dir():
            faults.append(f"track-to: expected a folder, got {self.to}")
        if self.on_round is not None and not callable(self.on_round):
            faults.append(f"on_round: expected a function, got {type(self.on_round).__name__}")
        if faults:
            raise Mistake("\n".join(faults))

    def _check_tracker(self, name: str) -> None:
        try:
            catalog.check("trackers", name)
        except Mistake as mistake:
            raise Mistake(f"track: {mistake}") from None
        tracker = catalog.load("trackers", name)
        lacking = [module for module in tracker.needs if find_spec(module) is None]
        if lacking:
            extra = f"pip install 'fedsim-flower[{tracker.extra}]'"
            raise Mistake(f"track: {name!r} needs the extra {tracker.extra}: {extra}")
        tracker.check(self.to is not None)

    @contextmanager
    def begun(self, folder: Path, name: str, settings: Mapping[str, Any]) -> Iterator["Watchers | None"]:
        """Tell of a run while the body runs.

        Args:
            folder: The run directory.
            name: The scenario's name.
            settings: The scenario's values.

        Yields:
            Whom to tell; None if nobody watches.

        Raises:
            Mistake: A tracker can't begin.
        """
        if not self.track and self.on_round is None:
            yield None
            return
        run = self._run(folder, name, settings)
        trackers: dict[str, Tracker] = {}
        for each in self.track:
            try:
                run.place.mkdir(parents=True, exist_ok=True)
                trackers[each] = catalog.load("trackers", each)(run)
            except Exception as error:
                raise Mistake(f"track: {each} can't begin: {said_by(error)}") from error
        watchers = Watchers(trackers, self.on_round)
        try:
            yield watchers
        except BaseException:
            watchers.finish(None)
            raise

    def how_to_look(self, folder: Path, name: str) -> dict[str, str]:
        """Return {tracker: the command that shows what was written of a run}."""
        run = self._run(folder, name, {})
        return {each: catalog.load("trackers", each).how_to_look(run) for each in self.track}

    def _run(self, folder: Path, name: str, settings: Mapping[str, Any]) -> Run:
        return Run(_plain(name), label_of(folder), self.to or folder / FOLDER, settings, self.to is not None)


def names_of(text: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of trackers: of ``"tensorboard,mlflow"``, or of several such texts."""
    texts = [text] if isinstance(text, str) else text or []
    names = [name.strip() for each in texts for name in each.split(",")]
    return tuple(name for name in names if name)


def label_of(folder: Path) -> str:
    """Return a name for a run directory that no other one on this machine has."""
    whole = folder.resolve()
    return f"{_plain(whole.name)}-{hashlib.sha256(str(whole).encode()).hexdigest()[:6]}"


def _plain(name: str) -> str:
    """Return a name that every tracker takes: in it is nothing that means something to one of them."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)[:_LONGEST_NAME]


class Watchers:
    """Tells of rounds and of ends as they come, each once.

    Args:
        trackers: {name: tracker}.
        on_round: The caller's function.
    """

    def __init__(self, trackers: Mapping[str, Tracker], on_round: OnRound | None) -> None:
        self._trackers = dict(trackers)
        self._on_round = on_round
        self._told: dict[Training, int] = {}  # the last round that trackers were told of
        self._last_epsilon: dict[Training, int] = {}  # the last round whose epsilon they were told

    @property
    def tracks(self) -> bool:
        """Whether there is a tracker, so that ends of trainings are of interest."""
        return bool(self._trackers)

    def round(self, end: Round) -> None:
        """Tell of a round that is over.

        Raises:
            StoppedByCaller: The caller's function raised an error.
        """
        self._track(end)
        if self._on_round is None or end.before:
            return
        try:
            self._on_round(end)
        except Exception as error:
            raise StoppedByCaller(error) from error

    def over(self, training: Training, rounds: Iterable[Round], ended: Ended) -> None:
        """Tell trackers that a training is over, and first of those of its rounds that they were not told of."""
        for end in rounds:
            self._track(end)
        self._begin(training)
        epsilon = ended.epsilon
        if epsilon is not None and ended.rounds and self._last_epsilon.get(training) != ended.rounds:
            self._each(lambda tracker: tracker.log(training, ended.rounds, {EPSILON: epsilon}))
        self._each(lambda tracker: tracker.end(training, ended))

    def finish(self, report: Path | None) -> None:
        """Tell trackers that the run is over; without a report, that it was stopped."""
        self._each(lambda tracker: tracker.finish(report))

    def _track(self, end: Round) -> None:
        training = end.training
        if not self._trackers or end.round <= self._told.get(training, 0):
            return
        self._begin(training)
        self._told[training] = end.round

        figures = {f"validation/{name}": value for name, value in end.figures.items()}
        if end.time is not None:
            figures["virtual time"] = end.time
        if end.spent is not None and _is_due(end):
            figures[EPSILON] = end.spent.epsilon
            self._last_epsilon[training] = end.round
        if figures:
            self._each(lambda tracker: tracker.log(training, end.round, figures))

    def _begin(self, training: Training) -> None:
        if training not in self._told:
            self._told[training] = 0
            self._each(lambda tracker: tracker.begin(training))

    def _each(self, call: Callable[[Tracker], None]) -> None:
        """Call each tracker; one that fails is not called again."""
        for name, tracker in list(self._trackers.items()):
            try:
                call(tracker)
            except Exception as error:
                del self._trackers[name]
                _log.warning("%s tracks no more, the run goes on without it: %s", name, said_by(error))
                _log.debug("%s failed", name, exc_info=error)


def _is_due(end: Round) -> bool:
    """Whether the epsilon after a round belongs into the series: of long trainings, evenly spaced ones do."""
    every = math.ceil(end.rounds / _MOST_EPSILONS)
    return end.round % every == 0 or end.round in (1, end.rounds)
