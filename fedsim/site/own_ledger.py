"""The ledger that a real site keeps on its own disk: what left it, in all trainings of all servers, and what that cost.

It is a file of lines, one for each thing that leaves, written and synced before any work begins: what was asked for is
charged, whatever comes of it. Each line has the digest of the one before it. Beside it lies the last answer of each
training with what the site remembers of it, written before the answer leaves. So a message that comes again, since the
answer was lost or the site or the server was started anew, gets the very same answer at no cost. Another message about
a round that was charged is refused: a round is answered once.

One process at a time holds the lock.
"""

import errno
import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flwr.app import RecordDict

from fedsim.flower.packed import pack, unpack
from fedsim.flower.trees import records_of, tree_of
from fedsim.mistakes import Mistake
from fedsim.privacy.accounting import Neighbours, Segment, composed, epsilon
from fedsim.privacy.ledger import Release
from fedsim.privacy.units import released_in
from fedsim.results.digests import sha256
from fedsim.results.whole_files import open_own, write_bytes
from fedsim.scenario.reading import parse_json, read_ordinary

NAME = "ledger.jsonl"
_LOCK = ".lock"
_FORMAT = 1
_LARGEST = 2**30
_TRAINING = re.compile(r"[0-9a-f]{32}")

EXACT = "exact-model"
"""The kind of an entry for a model that left without noise of the site's own."""

FIGURES = "figures"
"""The kind of an entry for exact figures of a model on the site's rows."""


@dataclass(frozen=True)
class Question:
    """What a message asks, as the ledger tells questions apart.

    Attributes:
        training: The name of the training, which its server drew: 32 hexadecimal digits.
        round: The round.
        what: ``train`` or ``evaluate``.
        terms: The SHA-256 of what is the same in all messages of the training: scenario, seed, noise, code.
        digest: The SHA-256 of all that came with the message.
    """

    training: str
    round: int
    what: str
    terms: str
    digest: str

    def __post_init__(self) -> None:
        if not _TRAINING.fullmatch(self.training):
            raise Mistake("training: expected a name of 32 hexadecimal digits")


@dataclass(frozen=True)
class Entry:
    """One line of the ledger.

    Attributes:
        at: When it was written, UTC.
        question: The message that it is for.
        scenario: The title of the scenario, as the server told it.
        relation: Of the claim that the scenario makes; None where nothing is claimed.
        release: What was done; None of what left exactly.
        kind: The kind of the release, or what left exactly.
    """

    at: str
    question: Question
    scenario: str
    relation: Neighbours | None
    release: Release | None
    kind: str

    def as_json(self) -> dict[str, Any]:
        """Return the line, but for the digest of the one before."""
        values = {"at": self.at, **asdict(self.question), "scenario": self.scenario, "relation": self.relation}
        mechanism = asdict(self.release) if self.release else None  # type: ignore[call-overload]  a dataclass
        return values | {"kind": self.kind, "mechanism": mechanism}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Entry":
        """Return the entry that ``as_json`` wrote.

        Raises:
            Mistake, KeyError, TypeError: Something else was written.
        """
        question = Question(values["training"], values["round"], values["what"], values["terms"], values["digest"])
        release = None
        if values["mechanism"] is not None:
            release = released_in({"kind": values["kind"], "mechanism": values["mechanism"]})
        return cls(values["at"], question, values["scenario"], values["relation"], release, values["kind"])


class AnsweredByFailure(Exception):
    """A message comes again whose work failed."""


class OwnLedger:
    """A site's ledger, opened; see ``opened``."""

    def __init__(self, folder: Path, site: str) -> None:
        self.folder = folder
        self.site = site
        self._path = folder / NAME
        self.entries, self._last = _read(self._path, site)

    def epsilon(
        self,
        delta: float,
        relation: Neighbours,
        more: Release | None = None,
        times: int = 1,
        relation_of_more: Neighbours | None = None,
    ) -> float:
        """Return the epsilon of all private releases together.

        Args:
            delta: At which delta.
            relation: Between which tables.
            more: A release to add, as if it had been made.
            times: How often.
            relation_of_more: Between which tables its training makes a claim.

        One row more or less replaces an update that has noise as a whole, and a claim for replaced rows covers rows
        that come or go. So one such entry turns the whole sum into one for replaced rows.
        """
        releases = [entry.release for entry in self.entries if entry.release]
        relations = {relation, *(entry.relation for entry in self.entries if entry.release)}
        segments: list[Segment] = [release.segment() for release in releases]
        if more is not None:
            segments += [more.segment()] * times
            releases.append(more)
            relations.add(relation_of_more)
        replaced = "replace-one" in relations or any(release.kind != "noisy-steps" for release in releases)
        return epsilon(composed(segments), delta, "replace-one" if replaced else relation) if segments else 0.0

    def charged(self, training: str, number: int, what: str) -> Entry | None:
        """Return the entry for a round of a training; None if it was not asked for yet."""
        for entry in self.entries:
            asked = entry.question
            if (asked.training, asked.round, asked.what) == (training, number, what):
                return entry
        return None

    def charge(self, entry: Entry) -> None:
        """Write an entry down; it is on the disk when this returns."""
        line = _line({"previous": self._last, **entry.as_json()})
        with open_own(self._path, os.O_APPEND) as file:
            written = file.write(line)
            if written != len(line):
                raise OSError(errno.ENOSPC, "the ledger could not be written", str(self._path))
            os.fsync(file.fileno())
        self._last = sha256(line)
        self.entries.append(entry)

    def memory(self, training: str) -> RecordDict:
        """Return what the site remembers of a training; nothing of one that is new."""
        kept = self._kept(training)
        return RecordDict() if kept is None else records_of(kept["memory"])

    def answer(self, question: Question) -> RecordDict | None:
        """Return the answer that was given to this very question, if it was the last one of its training.

        Raises:
            AnsweredByFailure: It was answered by a failure.
        """
        kept = self._kept(question.training)
        if kept is None or kept["question"] != asdict(question):
            return None
        if kept["answer"] is None:
            raise AnsweredByFailure("what this message asked for has failed before")
        return records_of(kept["answer"])

    def keep(self, question: Question, answer: RecordDict | None, memory: RecordDict) -> None:
        """Keep an answer, which has not left yet, and what the site remembers beside it.

        Args:
            question: What was asked.
            answer: The answer; None if it failed. It is not tried again: each try would have noise of its own.
            memory: What the site remembers.
        """
        tree = None if answer is None else tree_of(answer)
        kept = {"question": asdict(question), "answer": tree, "memory": tree_of(memory)}
        write_bytes(self._place(question.training), pack({"format": _FORMAT, **kept}))

    def _kept(self, training: str) -> dict[str, Any] | None:
        path = self._place(training)
        try:
            kept = unpack(read_ordinary(path, _LARGEST))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise Mistake(f"{path}: expected what the site kept of a training, got something else: {error}") from None
        if not isinstance(kept, dict) or kept.get("format") != _FORMAT:
            raise Mistake(f"{path}: expected what this version of fedsim keeps of a training")
        return kept

    def _place(self, training: str) -> Path:
        return self.folder / f"training-{training}"


def begin(folder: Path, site: str) -> None:
    """Begin a site's ledger, once.

    Raises:
        Mistake: There is one already.
    """
    path = folder / NAME
    if path.exists():
        raise Mistake(f"{path}: expected a folder without a ledger; what was spent stays spent")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    write_bytes(path, _line({"format": _FORMAT, "site": site, "begun": now()}))


@contextmanager
def opened(folder: Path, site: str) -> Iterator[OwnLedger]:
    """Hold the lock of a site's ledger, and read it.

    Raises:
        Mistake: There is none, it is another site's, or it was changed.
    """
    if not (folder / NAME).is_file():
        raise Mistake(f"{folder / NAME}: expected the site's ledger, there is none; begin it once with: "
                      f"fedsim deploy ledger {folder} --site {site}")  # fmt: skip
    with open_own(folder / _LOCK) as lock:
        fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
        yield OwnLedger(folder, site)


def site_of(folder: Path) -> str:
    """Return whose ledger is in a folder.

    Raises:
        Mistake: There is none.
    """
    path = folder / NAME
    if not path.is_file():
        raise Mistake(f"{path}: expected the site's ledger, there is none")
    first, _, _ = read_ordinary(path, _LARGEST).partition(b"\n")
    return str(parse_json(first, f"{path}:1").get("site"))


def now() -> str:
    """Return the time as files have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, allow_nan=False).encode() + b"\n"


def _read(path: Path, site: str) -> tuple[list[Entry], str]:
    """Return the entries of a ledger, and the digest of its last line.

    A last line that was cut off is removed: no work had begun for it.

    Raises:
        Mistake: It is another site's, or was changed.
    """
    content = read_ordinary(path, _LARGEST)
    whole, newline, rest = content.rpartition(b"\n")
    if rest:
        with open_own(path) as file:
            file.truncate(len(whole + newline))
            os.fsync(file.fileno())
    lines = (whole + newline).splitlines(keepends=True)
    head = parse_json(lines[0], f"{path}:1") if lines else {}
    if head.get("format") != _FORMAT:
        raise Mistake(f"{path}: expected a ledger that this version of fedsim wrote")
    if head.get("site") != site:
        raise Mistake(f"{path}: expected the ledger of {site}, got that of {head.get('site')}")

    last = sha256(lines[0])
    entries = []
    for number, line in enumerate(lines[1:], start=2):
        values = parse_json(line, f"{path}:{number}")
        if values.pop("previous", None) != last:
            raise Mistake(f"{path}:{number}: expected the line after the one before it; the ledger was changed, and "
                          "what was spent can't be told")  # fmt: skip
        try:
            entries.append(Entry.from_json(values))
        except (KeyError, TypeError, ValueError) as error:
            raise Mistake(f"{path}:{number}: expected an entry as fedsim writes it, got {error}") from None
        last = sha256(line)
    return entries, last
