"""Convert the values of a file to typed columns.

Every row is used or reported, and every wrong value is named by its place.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from fedsim import figures
from fedsim.data.own_table import notation
from fedsim.data.own_table.reading import Table
from fedsim.data.own_table.values import Values, changed, compute, fold
from fedsim.data.tables import Column, Levels, Number
from fedsim.mistakes import Mistake
from fedsim.scenario import catalog

MISSING_WORDS = (
    *("", "?", "-", "--", ".", "na", "n/a", "nan", "null", "none", "nil", "nat", "#n/a", "<na>"),
    *("#null!", "#value!", "#div/0!", "#ref!", "#num!", "#name?"),
)
"""Texts that stand for a missing value, in lower case: of features, outcome, site, time and groups.

A text that is listed as a level is never missing.
"""

TOTAL_WORDS = ("total", "totals", "grand total", "subtotal", "sum", "gesamt", "summe", "insgesamt")

Kind = Literal["numbers", "dates", "text"]

_LARGEST = 1e30  # float32 must hold sums of such numbers
_MOST_GROUPS = 20
_MOST_TOTALS = 3  # rows of totals at the end of a table
_MOST_SHOWN = 5  # distinct wrong values of a column in a message
_LONGEST_SHOWN = 40  # characters of a wrong value in a message
FEW_TEXTS = 20  # distinct texts that are categories in any table, also if they look like numbers


@dataclass(frozen=True)
class LeftOut:
    """Rows that are not used: the reason, their number, and the first of them in the file."""

    reason: str
    rows: int
    first: int


@dataclass(frozen=True)
class Options:
    """The settings of a column's entry that say how its values are to be read.

    Attributes:
        missing: Values that stand for a missing value, beside ``MISSING_WORDS``; None for none.
            An empty list says that no text of the column stands for a missing value.
        written: The notation of numbers or dates; empty to recognize it.
        read_as: {text: the text that is read in its place}.
    """

    missing: tuple[float | str, ...] | None = None
    written: str = ""
    read_as: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cells:
    """The values of a column, with those that are missing.

    Attributes:
        table: The table.
        name: The column.
        values: The values, after replacements.
        missing: Whether each distinct value stands for a missing value, bool (distinct values,).
        written: The notation that the column's entry names; empty to recognize it.
    """

    table: Table
    name: str
    values: Values
    missing: np.ndarray
    written: str = ""

    @property
    def known(self) -> np.ndarray:
        """Whether each distinct value is known, bool (distinct values,)."""
        return ~self.missing

    @cached_property
    def known_texts(self) -> list[str]:
        """The distinct known values as text."""
        return [text for text, known in zip(self.values.texts, self.known, strict=True) if known]

    @cached_property
    def notations(self) -> dict[str, notation.Notation]:
        """The notations in which all known values are numbers; empty if they are not."""
        return notation.possible_notations(self.known_texts)

    @cached_property
    def dates(self) -> dict[str, np.ndarray]:
        """The days of all known values, by the notations in which they are dates."""
        return notation.possible_dates(self.known_texts)

    @property
    def place(self) -> str:
        """The file and the column, for messages."""
        return f"{self.table.name}, column {self.name}"

    def rows_missing(self) -> np.ndarray:
        """Find the rows without a value, bool (rows,)."""
        return self.values.spread(self.missing, fill=True)

    def known_by_row(self, by_known: np.ndarray, fill: object) -> np.ndarray:
        """Give each row what its known distinct value has, and ``fill`` to other rows."""
        by_distinct = np.full(len(self.missing), fill, dtype=by_known.dtype)
        by_distinct[self.known] = by_known
        return self.values.spread(by_distinct, fill=fill)

    def wrong(self, where: np.ndarray, expected: str, hint: str = "") -> Mistake:
        """Describe the wrong values of a column, with their rows and counts.

        Args:
            where: Whether each distinct value is wrong, bool (distinct values,).
            expected: The values that were expected, in words.
            hint: Advice that ends the message.
        """
        numbers = np.flatnonzero(where)
        numbers = numbers[np.argsort(self.values.first_rows[numbers])]
        first = numbers[0]
        first_place = self.table.place(int(self.values.first_rows[first]))
        shown = []
        for number in numbers[:_MOST_SHOWN]:
            count = self.values.counts[number]
            rows = "" if count == 1 else f" ({count} rows)"
            shown.append(_shown(self.values.texts[number]) + rows)

        if len(numbers) > _MOST_SHOWN:
            others = numbers[_MOST_SHOWN:]
            shown.append(f"{len(others)} other values ({self.values.counts[others].sum()} rows)")
        place = f"{first_place}, column {self.name}"
        return Mistake(f"{place}: expected {expected}, got {', '.join(shown)}{hint}")

    def nothing(self, expected: str) -> Mistake:
        """Describe rows that lack a value where none may be missing."""
        lacking = np.flatnonzero(self.rows_missing())
        rows = "" if len(lacking) == 1 else f" ({len(lacking)} rows)"
        place = f"{self.table.place(int(lacking[0]))}, column {self.name}"
        return Mistake(f"{place}: expected {expected}, got nothing{rows}")


def _shown(text: str) -> str:
    if text == "":
        return "nothing"
    if len(text) > _LONGEST_SHOWN:
        text = text[:_LONGEST_SHOWN] + "..."
    return repr(text)


def cells_of(
    table: Table,
    name: str,
    options: Options | None = None,
    levels: Sequence[float | str] = (),
) -> Cells:
    """Find the missing values of a column.

    Args:
        table: The table.
        name: The column.
        options: The settings of its entry.
        levels: Its listed levels, which are never missing.
    """
    options = options or Options()
    values = table.columns[name]
    if options.read_as:
        replacements = options.read_as
        values = changed(values, lambda text: replacements.get(text, text))

    words = missing_words(options, levels)
    missing = np.zeros(len(values.distinct), bool)
    if values.is_text:
        in_lower_case = compute("utf8_lower", values.distinct)
        listed = pc.SetLookupOptions(pa.array(sorted(words)))
        missing = compute("is_in", in_lower_case, options=listed).to_numpy(zero_copy_only=False)
    for number in options.missing or ():
        if not isinstance(number, str):
            missing |= values.plain_numbers == number
    return Cells(table, name, values, missing, options.written)


def missing_words(options: Options, levels: Sequence[float | str] = ()) -> set[str]:
    """Return the texts that stand for a missing value in a column, in lower case.

    Args:
        options: The settings of its entry.
        levels: Its listed levels, which are never missing.
    """
    words = {""}
    if options.missing is None or options.missing:
        words.update(MISSING_WORDS)
    words.update(fold(word) for word in options.missing or () if isinstance(word, str))
    return words - {fold(level) for level in levels if isinstance(level, str)}


def missing_note(cells: Cells) -> str:
    """Note the words that were taken for missing values; empty if none but empty fields were."""
    parts = []
    for number in np.flatnonzero(cells.missing):
        text = cells.values.texts[number]
        if text:
            parts.append(f"{_shown(text)} ({cells.values.counts[number]})")
    if not parts:
        return ""
    return f"{cells.name}: taken for missing: {', '.join(parts[:_MOST_SHOWN])}"


# Numbers and dates


@dataclass(frozen=True)
class Recognized:
    """The kind of a column, and its numbers.

    Attributes:
        kind: Numbers, dates (as days since 1970-01-01), or text.
        by_known: The number of each distinct known value, float64; empty for text.
        note: A note on the notation; empty if it is plain.
    """

    kind: Kind
    by_known: np.ndarray
    note: str = ""


_NO_NUMBERS = np.zeros(0)


def recognized(cells: Cells, file_mark: str = "") -> Recognized:
    """Decide whether a column holds numbers, dates or text, by all of its values.

    Args:
        cells: The column.
        file_mark: The notation of numbers that other columns show; empty if none.

    Raises:
        Mistake: It holds numbers or dates and something else, or its notation is in doubt.
    """
    plain = cells.values.plain_numbers[cells.known]
    is_plain = np.isfinite(plain)
    if cells.written:
        return _as_written(cells)
    if is_plain.all():
        in_doubt = file_mark == notation.COMMA and cells.values.is_text
        if in_doubt and notation.plain_is_in_doubt(cells.known_texts):
            raise _in_doubt(cells, notation.NUMBER_NOTATIONS)
        return Recognized("numbers", plain)

    if cells.notations:
        chosen = notation.decided(cells.notations, cells.table.delimiter, file_mark)
        if chosen is None:
            raise _in_doubt(cells, notation.NUMBER_NOTATIONS)
        return Recognized("numbers", chosen.numbers, chosen.said)

    if cells.dates:
        return _dated(cells)
    _check_no_mixture(cells, is_plain)
    return Recognized("text", _NO_NUMBERS)


def _as_written(cells: Cells) -> Recognized:
    """Read a column in the notation that its entry names."""
    texts = cells.known_texts
    if cells.written in notation.DATE_NOTATIONS:
        if cells.written in cells.dates:
            return Recognized("dates", cells.dates[cells.written], f"dates as in {cells.written}")
        is_wrong = [notation.days_of(text, cells.written) is None for text in texts]
        raise cells.wrong(_of_known(cells, is_wrong), f"a date as in {cells.written}")

    if cells.written in cells.notations:
        chosen = cells.notations[cells.written]
        return Recognized("numbers", chosen.numbers, chosen.said)
    is_wrong = [cells.written not in notation.possible_notations([text]) for text in texts]
    if not any(is_wrong):
        is_wrong = [True] * len(texts)  # each is a number, but their units differ
    raise cells.wrong(_of_known(cells, is_wrong), f"numbers as in {cells.written}, of one unit")


def _of_known(cells: Cells, by_known: Sequence[bool] | np.ndarray) -> np.ndarray:
    by_distinct = np.zeros(len(cells.missing), bool)
    by_distinct[cells.known] = by_known
    return by_distinct


def _in_doubt(cells: Cells, names: Sequence[str]) -> Mistake:
    choices = " or ".join(f'written = "{name}"' for name in names)
    hint = f"; write {choices} in the column's entry"
    texts = cells.values.texts
    is_shown = [known and any(mark in text for mark in ".,/-") for known, text in zip(cells.known, texts, strict=True)]
    return cells.wrong(np.array(is_shown, bool), "a notation that is beyond doubt", hint)


def _dated(cells: Cells) -> Recognized:
    name, days = next(iter(cells.dates.items()))
    if any(not np.array_equal(days, other) for other in cells.dates.values()):
        raise _in_doubt(cells, list(cells.dates))
    return Recognized("dates", days, f"dates as in {name}")


def _check_no_mixture(cells: Cells, is_plain: np.ndarray) -> None:
    """Check that text is not numbers or dates with some errors of typing among them."""
    counts = cells.values.counts[cells.known]
    texts = cells.known_texts

    # Some text among mostly numbers is an error of typing, and not a category.
    is_bare = np.array([notation.is_bare_number(text) for text in texts], bool)
    for is_number in (is_plain, is_bare):
        if 2 * counts[is_number].sum() > counts.sum() and not is_number.all():
            advice = _typing_hint(cells, ~is_number)
            is_wrong = _of_known(cells, ~is_number)
            raise cells.wrong(is_wrong, "a finite number as in most rows", advice)
    if len(texts) <= FEW_TEXTS:
        return

    for looks_like, expected in (
        (notation.looks_like_number, "numbers that are all written in one way, with one unit"),
        (notation.looks_like_date, "dates that are all written in one way"),
    ):
        alike = np.array([looks_like(text) for text in texts], bool)
        if 2 * counts[alike].sum() > counts.sum():
            is_wrong = ~alike
            if alike.all():
                # The notations differ, or a day does not exist.
                is_wrong = ~_most_common_shape(texts, counts)
            if not is_wrong.any():
                is_wrong = np.array([not notation.possible_dates([text]) for text in texts])
            raise cells.wrong(_of_known(cells, is_wrong), expected, _typing_hint(cells, is_wrong))


def _most_common_shape(texts: Sequence[str], counts: np.ndarray) -> np.ndarray:
    """Find the texts of the shape that most rows have: digits apart, the same characters."""
    shapes = np.array(["".join(sorted({c for c in text if not c.isdigit()})) for text in texts])
    rows = {shape: counts[shapes == shape].sum() for shape in set(shapes)}
    return shapes == max(rows, key=lambda shape: rows[shape])


def _typing_hint(cells: Cells, is_wrong: np.ndarray) -> str:
    wrong_texts = [text for text, wrong in zip(cells.known_texts, is_wrong, strict=True) if wrong]
    if any(text.count(",") == 1 and text.replace(",", "").lstrip("-").isdigit() for text in wrong_texts):
        return "; numbers have a point, not a comma, in the other rows"
    listed = ", ".join(f'"{text}"' for text in wrong_texts[:_MOST_SHOWN])
    return f"; if they stand for missing values, write missing = [{listed}] in its entry"


def numbers(cells: Cells, file_mark: str = "") -> tuple[np.ndarray, Recognized]:
    """Convert a column to numbers, float64 (rows,), NaN where missing.

    Raises:
        Mistake: A value is no number, or not finite.
    """
    found = recognized(cells, file_mark)
    if found.kind == "text":
        is_wrong = ~np.isfinite(cells.values.plain_numbers) & cells.known
        raise cells.wrong(is_wrong, "a finite number")
    too_large = np.abs(found.by_known) > _LARGEST
    if too_large.any():
        raise cells.wrong(_of_known(cells, too_large), f"numbers of at most {_LARGEST:g}")
    return cells.known_by_row(found.by_known, np.nan), found


def apart(cells: Cells, values: np.ndarray) -> str:
    """Note a value that stands far apart from all others, as 9999 does among blood pressures."""
    known = np.unique(values[~np.isnan(values)])
    if len(known) < 4:
        return ""
    notes = []
    for extreme, rest in ((known[-1], known[:-1]), (known[0], known[1:])):
        gap = min(abs(extreme - rest[0]), abs(extreme - rest[-1]))
        is_whole = extreme == round(extreme)
        if is_whole and gap > rest[-1] - rest[0]:
            rows = int((values == extreme).sum())
            others = f"{rest[0]:g} to {rest[-1]:g}"
            notes.append(
                f"{cells.name}: {rows} x {extreme:g} stands apart from {others}; if it stands for "
                f"a missing value, write missing = [{extreme:g}] in the column's entry"
            )
    return "; ".join(notes)


# Categories


def merged(cells: Cells) -> tuple[Cells, str]:
    """Merge texts that differ in case or blanks alone into the most frequent of them.

    Returns:
        The column, and a note on the merged texts; empty if there are none.
    """
    most_frequent: dict[str, int] = {}
    counts = cells.values.counts
    for number, (text, known) in enumerate(zip(cells.values.folded, cells.known, strict=True)):
        if known and (text not in most_frequent or counts[number] > counts[most_frequent[text]]):
            most_frequent[text] = number

    texts = cells.values.texts
    replacements = {}
    for number in np.flatnonzero(cells.known):
        chosen = texts[most_frequent[cells.values.folded[number]]]
        if chosen != texts[number]:
            replacements[texts[number]] = chosen
    if not replacements:
        return cells, ""

    pairs = [f"{_shown(old)} as {_shown(new)}" for old, new in replacements.items()]
    shown = ", ".join(pairs[:_MOST_SHOWN])
    if len(pairs) > _MOST_SHOWN:
        shown += f" and {len(pairs) - _MOST_SHOWN} more"
    missing_texts = {text for text, gone in zip(texts, cells.missing, strict=True) if gone}
    values = changed(cells.values, lambda text: replacements.get(text, text))
    missing = np.array([text in missing_texts for text in values.texts], bool)
    return Cells(cells.table, cells.name, values, missing, cells.written), f"{cells.name}: read {shown}"


def levels(cells: Cells, column: Levels) -> tuple[np.ndarray, str]:
    """Convert a column to the numbers of its categories, int64 (rows,), -1 where missing.

    Returns:
        The numbers, and a note on texts that were read as a level that differs in case.

    Raises:
        Mistake: A value is none of the public levels, or missing where none may be.
    """
    by_distinct = np.full(len(cells.missing), -1)
    replaced = []
    if isinstance(column.levels[0], str):
        exact = {str(level): number for number, level in enumerate(column.levels)}
        folded = _unique_folds(column.levels)
        for number in np.flatnonzero(cells.known):
            text = cells.values.texts[number]
            level = exact.get(text)
            if level is None:
                level = folded.get(cells.values.folded[number], -1)
                if level >= 0:
                    replaced.append(f"{_shown(text)} as {_shown(str(column.levels[level]))}")
            by_distinct[number] = level
    else:
        values = cells.values.plain_numbers
        for number, level in enumerate(column.levels):
            by_distinct[cells.known & (values == level)] = number

    strange = cells.known & (by_distinct < 0)
    expected = f"one of {', '.join(figures.level(level) for level in column.levels)}"
    if strange.any():
        raise cells.wrong(strange, expected, _level_hint(cells, strange, column))
    if not column.missing and cells.rows_missing().any():
        raise cells.nothing(expected)

    note = f"{cells.name}: read {', '.join(replaced[:_MOST_SHOWN])}" if replaced else ""
    return cells.values.spread(by_distinct, fill=-1), note


def _unique_folds(listed: Sequence[float | str]) -> dict[str, int]:
    """Return {folded level: its number}, without levels that differ in case alone."""
    folds = [fold(str(level)) for level in listed]
    return {text: number for number, text in enumerate(folds) if folds.count(text) == 1}


def _level_hint(cells: Cells, strange: np.ndarray, column: Levels) -> str:
    """Advise how to read a text that is almost a level."""
    listed = [figures.level(level) for level in column.levels]
    for number in np.flatnonzero(strange):
        text = cells.values.texts[number]
        close = catalog.closest(text, listed)
        if close:
            return f'; write read_as = {{ "{text}" = "{close}" }} in its entry if that is meant'
    return ""


def typed(
    cells: Cells,
    column: Column,
    file_mark: str = "",
    origin: float = 0.0,
) -> tuple[pd.Series, list[str]]:
    """Convert a column to its declared type.

    Args:
        cells: The column.
        column: Its declaration.
        file_mark: The notation of numbers that other columns of the file show.
        origin: The day that is subtracted from dates, in days since 1970-01-01.

    Returns:
        The values, NaN where missing, and notes on how they were read.

    Raises:
        Mistake: A value is not of the declared kind; the message names its row.
    """
    notes = [missing_note(cells)]
    if isinstance(column, Levels):
        level_numbers, note = levels(cells, column)
        listed = np.array([*column.levels, None], dtype=object)  # -1 takes the last
        categories = pd.Series(listed[level_numbers])
        if not isinstance(column.levels[0], str):
            categories = categories.astype(float)
        return categories, _told([*notes, note])

    values, found = numbers(cells, file_mark)
    if found.kind == "dates":
        values = values - origin
    if np.isnan(values).any() and not column.missing:
        raise cells.nothing("a number, missing = false")
    if found.note:
        notes.append(f"{cells.name}: {found.note}")
    notes.append(apart(cells, values))
    notes.append(_note_on_cut(cells, column, values))
    return pd.Series(values), _told(notes)


def _told(notes: Sequence[str]) -> list[str]:
    return [note for note in notes if note]


def _note_on_cut(cells: Cells, column: Number, values: np.ndarray) -> str:
    """Describe the values outside a range, which ``Number.encode`` cuts to it."""
    outside = (values < column.low) | (values > column.high)
    if not outside.any():
        return ""
    bounds = f"{column.low:g} to {column.high:g}"
    first_row = cells.table.rows[np.flatnonzero(outside)[0]]
    return f"{column.name}: {outside.sum()} outside {bounds} cut to it, first in row {first_row}"


# Sites, groups and times


def without(
    table: Table,
    needed: Mapping[str, Cells],
) -> tuple[np.ndarray, tuple[LeftOut, ...]]:
    """Find the rows that lack the value of a column without which they are of no use.

    Args:
        table: The table as it was read.
        needed: {role of a column: the column}.

    Returns:
        Whether each row is kept, bool (rows,), and the rows that are left out.
    """
    left_out = []
    keep = np.ones(len(table.rows), bool)
    totals = _totals(table)
    if totals.any():
        left_out.append(_left_out(table, totals, "a row of totals"))
        keep &= ~totals
    for role, cells in needed.items():
        # A row that lacks several of these columns is counted for the first of them.
        lacking = keep & cells.rows_missing()
        if lacking.any():
            left_out.append(_left_out(table, lacking, f"no {role} ({cells.name})"))
        keep &= ~lacking
    return keep, tuple(left_out)


def _left_out(table: Table, rows: np.ndarray, reason: str) -> LeftOut:
    """Account for rows that are left out; of a table in several files, the first row's file is named."""
    if table.files:
        codes = np.unique(table.file_codes[rows])  # the files are in the order of the rows
        first_file = table.files[codes[0]]
        place = first_file if len(codes) == 1 else f"{len(codes):,} files, of which the first is {first_file}"
        reason = f"{reason} in {place}"
    numbers = table.rows[rows]
    return LeftOut(reason, len(numbers), int(numbers[0]))


def _totals(table: Table) -> np.ndarray:
    """Find the rows at the end of each file that hold totals: their first text says so."""
    first = next(iter(table.columns.values()))
    is_total = np.zeros(len(table.rows), bool)

    ends = [len(table.rows)]
    if table.files:
        ends = np.searchsorted(table.file_codes, np.arange(len(table.files)), side="right").tolist()
    for begin, end in itertools.pairwise([0, *ends]):
        for row in range(max(begin, end - _MOST_TOTALS), end):
            code = first.codes[row]
            is_total[row] = code >= 0 and fold(str(first.distinct[code].as_py())) in TOTAL_WORDS
    return is_total


def names(cells: Cells) -> np.ndarray:
    """Convert a column to names of sites or groups, str (rows,); empty where it is missing.

    Raises:
        Mistake: It holds numbers that are not whole.
    """
    if not cells.values.is_text:
        plain = cells.values.plain_numbers
        fractional = cells.known & (plain != np.round(plain))
        if fractional.any():
            raise cells.wrong(fractional, "names, or whole numbers as names")
    texts = np.array(cells.values.texts, dtype=object)
    texts[cells.missing] = ""
    return cells.values.spread(texts, fill="").astype(str)


def groups(cells: Cells) -> np.ndarray:
    """Convert a column to names of groups, str (rows,); ``unknown`` where it is missing.

    Raises:
        Mistake: It has so many values that few rows share a group.
    """
    group_names = np.where(cells.rows_missing(), "unknown", names(cells))
    count = len(set(group_names))
    if count > _MOST_GROUPS:
        raise Mistake(
            f"{cells.place}: expected at most {_MOST_GROUPS} values of a group, "
            f"got {count}; put bands into a column of their own"
        )
    return group_names


def times(cells: Cells, file_mark: str = "") -> np.ndarray:
    """Convert a column to moments, float64 (rows,): numbers as they are, dates as days since 1970.

    Raises:
        Mistake: A value is neither.
    """
    found = recognized(cells, file_mark)
    if found.kind == "text":
        is_wrong = [not notation.looks_like_date(text) for text in cells.known_texts]
        if not any(is_wrong):
            is_wrong = [True] * len(is_wrong)
        expected = "a number or a date such as 2026-01-31"
        raise cells.wrong(_of_known(cells, is_wrong), expected)
    return cells.known_by_row(found.by_known, np.nan)


def file_mark_of(columns: Sequence[Cells]) -> str:
    """Find the notation of numbers that the columns of a file show beyond doubt; empty if none."""
    marks = set()
    for cells in columns:
        if not cells.values.is_text or np.isfinite(cells.values.plain_numbers[cells.known]).all():
            continue
        if len(cells.notations) == 1:
            marks.update(cells.notations)
    return marks.pop() if len(marks) == 1 else ""
