"""A training under way: what it needs to go on is written down now and then, and found again after an interruption.

Two generations lie beside each other, written in turn, so that there is a whole one at any moment. Trainings whose
noise can't be repeated also write down that a round begins, before anything can leave in it: a round that was
interrupted is charged for, and run again with other noise.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedsim.flower.object_state import Opaque
from fedsim.flower.packed import Unpackable, pack, unpack
from fedsim.mistakes import Mistake
from fedsim.results.digests import sha256
from fedsim.results.run_directory import LARGEST_FILE
from fedsim.results.whole_files import open_own, write_bytes
from fedsim.scenario.reading import read_ordinary
from fedsim.scenario.schema import Checkpoints

_log = logging.getLogger(__name__)
_FORMAT = 2
"""Of what is kept; another version's is not read."""

_KEYS = {"format", "round", "same", "position", "state"}
_SHARE_OF_TIME = 0.1  # at most this part of a training goes into writing it down


class UnderWay:
    """Keeps the state of one training in files of the folder of checkpoints.

    Args:
        folder: The folder; made when it is first needed.
        key: The training, a name for files.
        same: What tells this scenario from others: state that was kept under another is not taken.
        settings: How often the state is kept.
        repeatable: Whether a round that is run again draws the same noise.
        device: Where the state's tensors are to be.
    """

    def __init__(
        self, folder: Path, key: str, same: str, settings: Checkpoints, repeatable: bool, device: str = "cpu"
    ) -> None:
        self._folder = folder
        self._generations = [folder / f"{key}.under-way-{number}" for number in (0, 1)]
        self._journal = folder / f"{key}.begun"
        self._same = same
        self._settings = settings
        self._repeatable = repeatable
        self._device = device
        self._opaque = False
        self._next = 0  # the generation that is written next
        self._kept_at = time.monotonic()
        self._took = 0.0
        self._begun: dict[int, list[list[int]]] = {}  # {round: who was asked}, since the state was kept

    def found(self) -> Mapping[str, Any] | None:
        """Return the newest state that was kept; None if there is none.

        Raises:
            Mistake: It was kept by a training of another scenario, or the rounds that were begun were changed.
        """
        newest = None
        for number, path in enumerate(self._generations):
            kept = self._read(path)
            if kept is not None and (newest is None or kept["round"] > newest["round"]):
                newest = kept
                self._next = 1 - number
        self._begun = self._rounds_begun(newest["position"] if newest else 0)
        return newest["state"] if newest else None

    def unseen(self, number: int) -> Sequence[Sequence[int]]:
        """Return who was asked in a round each time that a training was interrupted in it; see ``Halfway``."""
        return self._begun.pop(number, [])

    def begin(self, number: int, asked: Sequence[int]) -> None:
        """Write down that these are asked now in a round, where it can't be repeated."""
        if self._repeatable:
            return
        self._folder.mkdir(exist_ok=True)
        numbers = " ".join(map(str, [number, *asked]))
        line = f"{sha256(numbers.encode())} {numbers}"
        with open_own(self._journal, os.O_APPEND) as file:
            file.write(f"{line}\n".encode())
            os.fsync(file.fileno())

    def end(self, number: int, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        """Tell that a round is over; its state is kept if that is due."""
        if self._opaque or not self._is_due(number):
            return
        started = time.monotonic()
        kept = {"format": _FORMAT, "round": number, "same": self._same, "position": self._size_of_journal()}
        try:
            content = pack(kept | {"state": snapshot()})
        except (Opaque, Unpackable) as error:
            _log.info("the state of this training is not kept, it begins anew if it is interrupted: %s", error)
            self._opaque = True
            return
        if len(content) > LARGEST_FILE:
            _log.warning("the state of this training is larger than %s bytes and not kept", f"{LARGEST_FILE:,}")
            self._opaque = True
            return

        self._folder.mkdir(exist_ok=True)
        write_bytes(self._generations[self._next], content)
        self._next = 1 - self._next
        self._kept_at = time.monotonic()
        self._took = self._kept_at - started

    def forget(self) -> None:
        """Remove the files: the training is over."""
        for path in (*self._generations, self._journal):
            path.unlink(missing_ok=True)

    def _is_due(self, number: int) -> bool:
        every = self._settings.every_rounds
        if every is not None:
            return number % every == 0
        since = time.monotonic() - self._kept_at
        return since >= max(self._settings.seconds, self._took / _SHARE_OF_TIME)

    def _read(self, path: Path) -> dict[str, Any] | None:
        """Return what one generation holds; None if it is not there, or not what was written."""
        try:
            kept = unpack(read_ordinary(path, LARGEST_FILE), self._device)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.warning("%s is left aside: %s", path, error)
            return None
        if not isinstance(kept, dict) or kept.get("format") != _FORMAT:
            _log.warning("%s is left aside: another version of fedsim wrote it", path)
            return None
        if set(kept) != _KEYS or type(kept["round"]) is not int or type(kept["position"]) is not int:
            _log.warning("%s is left aside: it is not what fedsim writes", path)
            return None
        if kept["same"] != self._same:
            raise Mistake(f"{path}: expected the scenario that this run was begun with, scenario.toml is another one")
        return kept

    def _size_of_journal(self) -> int:
        return self._journal.stat().st_size if self._journal.exists() else 0

    def _rounds_begun(self, position: int) -> dict[int, list[list[int]]]:
        """Return {round: who was asked each time it was begun} since the state was kept.

        A line that was cut off counts for no round, since nothing had left in it, and is removed.
        """
        if self._repeatable or not self._journal.exists():
            return {}
        content = read_ordinary(self._journal, LARGEST_FILE)
        lines, newline, rest = content.rpartition(b"\n")
        if rest:
            with open_own(self._journal) as file:
                file.truncate(len(lines + newline))
        begun: dict[int, list[list[int]]] = {}
        for line in lines[position:].splitlines():
            digest, _, numbers = line.partition(b" ")
            if digest != sha256(numbers).encode():
                raise Mistake(
                    f"{self._journal}: expected the rounds that were begun, as they were written, got another "
                    "line; what was released can't be told: run the scenario into a new directory"
                )
            number, *asked = map(int, numbers.split())
            begun.setdefault(number, []).append(asked)
        return begun
