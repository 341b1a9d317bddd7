"""Survey a table column by column: its kind, its values, and what is wrong or still to be declared."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedsim.data.own_table import cleaning
from fedsim.data.own_table.cleaning import Cells
from fedsim.data.own_table.images.folder import in_columns
from fedsim.data.own_table.prepared import Intake, Usable, assembled, usable
from fedsim.data.own_table.ranges import LEAVE_OUT, declares
from fedsim.mistakes import Mistake
from fedsim.scenario.schema import Data

_MOST_LEVELS = 6  # texts that are listed


@dataclass(frozen=True)
class ColumnSurvey:
    """A column as it was found.

    Attributes:
        name: Its name.
        role: ``outcome``, ``site``, ``time``, ``image``, ``feature``, or ``not used``.
        kind: ``numbers``, ``dates``, ``text``, ``images``, or ``unclear`` where it has a fault.
        missing: The number of rows without a value.
        distinct: The number of distinct values.
        shown: The least and the greatest number, or the most frequent texts.
        entry: How it is declared: ``declared``, ``left out``, ``from data``, ``found`` in the names of
            folders, or ``to be declared``.
    """

    name: str
    role: str
    kind: str
    missing: int
    distinct: int
    shown: str
    entry: str


@dataclass(frozen=True)
class Survey:
    """A table, surveyed.

    Attributes:
        file: The file's name.
        rows_in: The number of rows in the file.
        columns: Its columns.
        left_out: The rows that would not be used.
        intake: The account of its rows; None if it can't be used as it is.
        fault: What is wrong with it; None if it can be used.
    """

    file: str
    rows_in: int
    columns: Sequence[ColumnSurvey]
    left_out: Sequence[cleaning.LeftOut]
    intake: Intake | None
    fault: Mistake | None


def survey(data: Data) -> Survey:
    """Survey a table as a run would read it. What is wrong with its columns is in ``fault``.

    Raises:
        Mistake: The file can't be read as a table, or lacks the outcome, site or time.
    """
    used = usable(data)
    columns = columns_of(data, used)
    intake = fault = None
    try:
        intake = assembled(data, used).intake
    except Mistake as mistake:
        fault = mistake
    return Survey(used.table.name, used.rows_in, columns, used.left_out, intake, fault)


def columns_of(data: Data, used: Usable) -> list[ColumnSurvey]:
    """Survey the columns of a table that was read."""
    named = in_columns(data)
    roles = {
        named.target: "outcome",
        named.site: "site",
        named.time: "time",
        named.person: "person",
        named.image: "image",
    }
    other = "feature" if named.image is None else "not used"
    return [_column(used, name, roles.get(name, other)) for name in used.cells]


def _column(used: Usable, name: str, role: str) -> ColumnSurvey:
    cells = used.cells[name]
    try:
        found = cleaning.recognized(cells, used.file_mark)
        kind = "images" if role == "image" else found.kind
        shown = _most_frequent(cells) if kind == "text" else _bounds(found.by_known, kind)
    except Mistake:
        kind = "unclear"
        shown = _most_frequent(cells)

    return ColumnSurvey(
        name=name,
        role=role,
        kind=kind,
        missing=int(cells.rows_missing().sum()),
        distinct=int(cells.known.sum()),
        shown=shown,
        entry=_entry(used, name, role),
    )


def _bounds(numbers: np.ndarray, kind: str) -> str:
    if not len(numbers):
        return ""
    if kind == "dates":
        days = (numbers.min(), numbers.max())
        first, last = np.floor(days).astype("datetime64[D]")
        return f"{first} to {last}"
    return f"{numbers.min():g} to {numbers.max():g}"


def _most_frequent(cells: Cells) -> str:
    counts = np.where(cells.known, cells.values.counts, 0)
    shown = []
    for number in np.argsort(-counts, kind="stable")[:_MOST_LEVELS]:
        if counts[number]:
            shown.append(f"{cells.values.texts[number][:24]} ({counts[number]})")
    more = int(cells.known.sum()) - len(shown)
    if more > 0:
        shown.append(f"and {more} more")
    return ", ".join(shown)


def _entry(used: Usable, name: str, role: str) -> str:
    entry = used.declared.entries.get(name)
    if role in ("site", "time", "person", "image", "not used"):
        return ""
    if entry == LEAVE_OUT:
        return "left out"
    if used.listing is not None and used.declared.fits_rest:
        return "found"
    if declares(entry):
        return "declared"
    if role == "outcome" and not used.outcome_needs_entry:
        return "0 and 1"
    return "from data" if used.declared.fits_rest else "to be declared"
