"""What a tracker is: it writes down the series of a run's trainings where another program shows them.

To add one, write ``fedsim/tracking/trackers/NAME.py`` with a class of that name and a first line that says what it is.
It imports its library when it is made, not before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from fedsim.privacy.so_far import SpentSoFar  # it imports torch, and names of trackers are checked without


@dataclass(frozen=True)
class Training:
    """One training of a run: an arm, with or without noise, under one seed."""

    arm: str
    private: bool
    seed: int

    @property
    def key(self) -> str:
        """A name for files, e.g. ``federated-private-0``."""
        return f"{self.arm}-{'private' if self.private else 'plain'}-{self.seed}"


@dataclass(frozen=True)
class Round:
    """A round of a training that is over.

    Attributes:
        arm: ``federated``, ``centralized`` or ``local``.
        private: Whether the training is private.
        seed: Its seed.
        round: The number of the round, from 1 on.
        rounds: How many rounds there are to be.
        figures: {metric: value} on validation rows, inside sites and without noise; empty where none are held back.
        time: The virtual time, where sites differ in speed.
        spent: What was released so far; None without privacy.
        before: Whether the round was run before an interruption, and is told of once more.
    """

    arm: str
    private: bool
    seed: int
    round: int
    rounds: int
    figures: Mapping[str, float]
    time: float | None = None
    spent: SpentSoFar | None = None
    before: bool = False

    @property
    def training(self) -> Training:
        """The training."""
        return Training(self.arm, self.private, self.seed)

    @property
    def epsilon(self) -> float | None:
        """The epsilon that the costliest site has spent so far; None without privacy.

        It is computed when it is asked for, which takes about a second.
        """
        return self.spent.epsilon if self.spent else None


@dataclass(frozen=True)
class Ended:
    """The end of a training.

    Attributes:
        figures: {name: value} on test rows.
        rounds: How many rounds were run.
        epsilon: The largest epsilon of a site, as the ledger has it; None without privacy.
        notes: Remarks on irregularities.
        failed: Why it failed; None if it did not.
    """

    figures: Mapping[str, float]
    rounds: int
    epsilon: float | None
    notes: tuple[str, ...] = ()
    failed: str | None = None


@dataclass(frozen=True)
class Run:
    """The run that is tracked.

    Attributes:
        name: The scenario's name.
        label: A name that no other run directory has.
        place: The folder to write into.
        settings: The scenario as plain values: {section: {key: value}}.
        is_place_given: Whether the user named the folder.
    """

    name: str
    label: str
    place: Path
    settings: Mapping[str, Any]
    is_place_given: bool

    def flat_settings(self) -> dict[str, Any]:
        """Return the settings as {"section.key": value}."""
        return dict(_flat(self.settings, ""))


def _flat(values: Mapping[str, Any], before: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{before}{key}.")
        else:
            found.append((f"{before}{key}", value))
    return found


class Tracker(ABC):
    """Writes down one run. All calls come from one process, and trainings may be under way beside each other.

    A training is told from its first round on each time it begins, also where it goes on after an interruption: what
    was written of it before is replaced. An error that a method raises ends the tracking, and not the run.

    Attributes:
        needs: The modules that have to be there.
        extra: The extra that brings them.
    """

    needs: ClassVar[tuple[str, ...]]
    extra: ClassVar[str]

    @classmethod  # noqa: B027  most can be used anywhere
    def check(cls, is_place_given: bool) -> None:
        """Make sure that the tracker can be used here.

        Args:
            is_place_given: Whether the user named the folder to write into.

        Raises:
            Mistake: It can't be.
        """

    @abstractmethod
    def __init__(self, run: Run) -> None: ...

    @abstractmethod
    def begin(self, training: Training) -> None:
        """Begin the series of a training anew."""

    @abstractmethod
    def log(self, training: Training, step: int, figures: Mapping[str, float]) -> None:
        """Write down figures after a round, {name: value}; a step that comes twice has other names the second time."""

    @abstractmethod
    def end(self, training: Training, ended: Ended) -> None:
        """Write down the end of a training."""

    @abstractmethod
    def finish(self, report: Path | None) -> None:
        """Finish the run: keep its report. None if it was stopped: trainings that are open go on some other time."""

    @classmethod
    @abstractmethod
    def how_to_look(cls, run: Run) -> str:
        """Return the command that shows what was written of a run."""
