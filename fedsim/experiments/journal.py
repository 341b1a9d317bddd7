"""The journal of a run under way: rounds as they end, for whoever looks at the run from another process.

``.journal`` in the run directory has a JSON object in each line. The first says what is to be trained, the others tell
of a round, or of the end of a training. The process at work holds a lock on the file, and nobody else takes it for
longer than it takes to ask; when the run is finished, the file is removed.
"""

import fcntl
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeGuard

from fedsim.mistakes import Mistake
from fedsim.results.whole_files import open_own
from fedsim.scenario.reading import open_ordinary, parse_json, read_ordinary

NAME = ".journal"
LARGEST = 2**24
"""Bytes of the journal; rounds after that are not written."""

_SECONDS_BETWEEN_WRITES = 0.5
_MOST_ROUNDS = 2**31
_log = logging.getLogger(__name__)


class Journal(Protocol):
    """Notes what goes on in a run."""

    def begin(self, rounds: int, metric: str, done: Mapping[str, int]) -> None:
        """Note what is to be trained.

        Args:
            rounds: The rounds of each training.
            metric: The name of the figure that is noted.
            done: {training: its rounds that were done before}.
        """

    def round(self, training: str, number: int, figure: float | None) -> None:
        """Note a round that is over, and its figure on validation rows; None if there is none."""

    def over(self, training: str, failed: str | None) -> None:
        """Note the end of a training, and why it failed, if it did."""


class _File:
    """Writes the journal, some lines at a time. An error of the disk ends the journal, and not the run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open_own(path, os.O_APPEND)
        fcntl.flock(self._file, fcntl.LOCK_EX)  # a reader holds it for an instant only
        self._size = self._file.seek(0, os.SEEK_END)
        self._lines: list[bytes] = []
        self._written = 0.0

    def begin(self, rounds: int, metric: str, done: Mapping[str, int]) -> None:
        self._note({"rounds": rounds, "metric": metric, "done": dict(done)}, at_once=True)

    def round(self, training: str, number: int, figure: float | None) -> None:
        known = float(figure) if figure is not None and math.isfinite(figure) else None
        self._note({"training": training, "round": number, "figure": known})

    def over(self, training: str, failed: str | None) -> None:
        self._note({"training": training, "over": True, "failed": failed}, at_once=True)

    def _note(self, values: Mapping[str, Any], at_once: bool = False) -> None:
        line = json.dumps(values, allow_nan=False).encode() + b"\n"
        if self._size + len(line) > LARGEST:
            return
        self._size += len(line)
        self._lines.append(line)
        if at_once or time.monotonic() - self._written >= _SECONDS_BETWEEN_WRITES:
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        try:
            self._file.write(b"".join(self._lines))
        except OSError as error:
            _log.debug("%s: %s", self._path, error.strerror)
            self._size = LARGEST
        self._lines = []

    def close(self, finished: bool) -> None:
        self._write()
        if finished:
            self._path.unlink(missing_ok=True)
        self._file.close()  # and with it the lock is given back


@contextmanager
def kept_in(folder: Path) -> Iterator[Journal]:
    """Keep the journal of a run while the body runs; it is removed if the body ends well.

    Raises:
        Mistake: The file can't be written, or is a link.
    """
    try:
        file = _File(folder / NAME)
    except OSError as error:
        raise Mistake(f"{folder / NAME}: expected a file that can be written, got {error.strerror}") from None
    finished = False
    try:
        yield file
        finished = True
    finally:
        file.close(finished)


def is_at_work(folder: Path) -> bool:
    """Whether a process is at work in a run directory now."""
    try:
        with open_ordinary(folder / NAME, LARGEST) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, Mistake):
        return False
    return False


@dataclass
class Followed:
    """A training of the journal.

    Attributes:
        done: The rounds that are done.
        over: Whether it is over.
        failed: Why it failed; None if it did not.
        curve: {round: the figure on validation rows after it}.
    """

    done: int = 0
    over: bool = False
    failed: str | None = None
    curve: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Read:
    """The contents of a journal.

    Attributes:
        rounds: The rounds of each training.
        metric: The name of the figure.
        trainings: {name: the training}.
    """

    rounds: int
    metric: str
    trainings: Mapping[str, Followed]

    @property
    def share(self) -> float:
        """The share of all rounds that is done, or no longer to be done."""
        total = self.rounds * len(self.trainings)
        done = sum(self.rounds if one.over else min(one.done, self.rounds) for one in self.trainings.values())
        return done / total if total else 0.0


def read(folder: Path) -> Read | None:
    """Read the journal of a run; None if there is none, or nothing in it yet.

    Lines that fedsim does not write are left aside: the directory may be a stranger's.
    """
    try:
        content = read_ordinary(folder / NAME, LARGEST)
    except (OSError, Mistake):
        return None
    found: Read | None = None
    for line in content.splitlines():
        try:
            values = parse_json(line, NAME)
        except Mistake:
            continue  # such as the last line, while it is written
        if "done" in values:
            found = _begun(values, found)
        elif found is not None:
            _follow(found.trainings, values)
    return found


def _begun(values: Mapping[str, Any], before: Read | None) -> Read | None:
    """Return a journal at its beginning; the curves of what was trained before an interruption are kept."""
    rounds, metric, done = values.get("rounds"), values.get("metric"), values["done"]
    if not _is_count(rounds) or not isinstance(metric, str) or not isinstance(done, dict):
        return before
    trainings: dict[str, Followed] = {}
    for name, number in done.items():
        earlier = before.trainings.get(name) if before else None
        count = number if _is_count(number) else 0
        curve = earlier.curve if earlier else {}
        trainings[name] = Followed(done=count, over=count >= rounds > 0, curve=curve)
    return Read(rounds, metric, trainings)


def _follow(trainings: Mapping[str, Followed], values: Mapping[str, Any]) -> None:
    training = trainings.get(str(values.get("training")))
    if training is None:
        return
    number = values.get("round")
    if values.get("over") is True:
        training.over = True
        reason = values.get("failed")
        training.failed = reason if isinstance(reason, str) else None
    elif _is_count(number):
        training.done = number
        figure = values.get("figure")
        if isinstance(figure, int | float) and not isinstance(figure, bool) and math.isfinite(figure):
            training.curve[number] = float(figure)


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_ROUNDS


def names(keys: Sequence[str]) -> list[tuple[str, bool, int]]:
    """Return (arm, private, seed) of trainings by their names; what is no such name is left out."""
    found = []
    for key in keys:
        parts = key.split("-")
        if len(parts) == 3 and parts[1] in ("plain", "private") and parts[2].isdecimal() and len(parts[2]) < 20:
            found.append((parts[0], parts[1] == "private", int(parts[2])))
    return found
