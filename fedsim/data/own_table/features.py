"""Make the columns to learn from: declared, or fitted to the rows where that was asked for."""

import difflib
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import numpy as np
import pandas as pd

from fedsim.data.own_table import cleaning
from fedsim.data.own_table.cleaning import Cells
from fedsim.data.own_table.ranges import (
    LEAVE_OUT,
    Declared,
    column_of,
    declares,
    fitted,
    origin_of,
)
from fedsim.data.tables import Column, Levels, Number
from fedsim.mistakes import Mistake

_ROWS_OF_A_LEVEL = 5  # on average, at least, if categories are taken from the rows
_MOST_LEVELS = 1000
_FEW_ROWS = 20  # in so few rows, whole numbers in a row may be anything
_NAME_OF_A_KEY = re.compile(r"(^|[_ .-])(id|mrn|uuid|guid|key|record|row|index)([_ .-]?(no|nr))?$")
_RARE = 10  # times rarer than the category that it resembles
_ALIKE = 0.75  # similarity of a text that may be misspelt


class _Table(Protocol):
    """A table whose columns are to be converted."""

    @property
    def cells(self) -> Mapping[str, Cells]: ...
    @property
    def features(self) -> list[str]: ...
    @property
    def declared(self) -> Declared: ...
    @property
    def file_mark(self) -> str: ...


class _Faults(Protocol):
    """Mistakes that are collected, so that all of them can be told."""

    def collected(self) -> AbstractContextManager[None]: ...


@dataclass
class Features:
    """The columns to learn from.

    Attributes:
        values: {column: its values, NaN where missing}.
        columns: Their ranges and levels.
        notes: Notes on how they were read, and on columns that were left aside.
        some_fitted: Whether the range or levels of a column were taken from the rows.
    """

    values: dict[str, pd.Series]
    columns: tuple[Column, ...]
    notes: list[str]
    some_fitted: bool


def features_of(used: _Table, faults: _Faults) -> Features:
    """Convert the feature columns. Faults of a column are collected, and the next is converted."""
    values: dict[str, pd.Series] = {}
    columns: list[Column] = []
    notes: list[str] = []
    left_out: list[str] = []
    some_fitted = False
    some_converted = False
    for name in used.features:
        entry = used.declared.entries.get(name)
        if entry == LEAVE_OUT:
            left_out.append(name)
            continue
        if not declares(entry) and not used.declared.fits_rest:
            continue  # it is told among the columns that lack a range

        with faults.collected():
            if declares(entry):
                column, series, told = _declared(used, name)
            else:
                column, series, told = _fitted(used, name)
                some_fitted = some_fitted or column is not None
            notes.extend(told)
            if column is not None and series is not None:
                columns.append(column)
                values[name] = series
            some_converted = True

    # Columns that lack a range or have a fault are told as such, and not as lacking altogether.
    all_declared = used.declared.fits_rest or all(declares(used.declared.entries.get(name)) for name in used.features)
    all_left_out = len(left_out) == len(used.features)
    if not columns and all_declared and (some_converted or all_left_out):
        with faults.collected():
            others = ", ".join(used.features) or "the outcome"
            file = next(iter(used.cells.values())).table.name
            raise Mistake(f"{file}: expected a column to learn from beside {others}")
    if left_out:
        notes.append(f"columns left out: {', '.join(left_out)}")
    if some_fitted:
        notes.append("ranges and categories were taken from these rows")
    return Features(values, tuple(columns), notes, some_fitted)


def _declared(used: _Table, name: str) -> tuple[Column | None, pd.Series | None, list[str]]:
    entry = used.declared.entries[name]
    column = column_of(name, entry, used.declared.place)
    if column is None:
        return None, None, []
    origin = origin_of(entry)
    cells = used.cells[name]
    is_dated = isinstance(entry, dict) and "from" in entry
    if isinstance(column, Number):
        kind = cleaning.recognized(cells, used.file_mark).kind
        if is_dated and kind != "dates":
            raise cells.wrong(cells.known, "dates, as its entry declares")
        if not is_dated and kind == "dates":
            expected = 'numbers, as its entry declares; dates have { from = "...", to = "..." }'
            raise cells.wrong(cells.known, expected)
    series, notes = cleaning.typed(cells, column, used.file_mark, origin)
    return column, series, notes


def _fitted(used: _Table, name: str) -> tuple[Column | None, pd.Series | None, list[str]]:
    """Fit a column to its values; no column, and a note, if it is of no use."""
    cells = used.cells[name]
    found = cleaning.recognized(cells, used.file_mark)
    if found.kind == "text":
        return _fitted_levels(cells)
    values, _ = cleaning.numbers(cells, used.file_mark)

    if found.kind == "dates":
        return _fitted_dates(cells, values, used.file_mark)
    if _numbers_rows(cells, values):
        return None, None, [f"{name} was left aside: it numbers the rows"]
    column = fitted(name, pd.Series(values))
    if column is None:
        return None, None, [f"{name} was left aside: all rows have one value"]
    series, notes = cleaning.typed(cells, column, used.file_mark)
    return column, series, notes


def _fitted_dates(
    cells: Cells, values: np.ndarray, file_mark: str
) -> tuple[Column | None, pd.Series | None, list[str]]:
    known = values[~np.isnan(values)]
    first = float(np.floor(known.min()))
    day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=first)).date().isoformat()
    span = float(known.max()) - first
    if span == 0:
        return None, None, [f"{cells.name} was left aside: all rows have one date"]
    missing = bool(np.isnan(values).any())
    column = Number(cells.name, 0.0, span, f"days since {day}", missing)
    series, notes = cleaning.typed(cells, column, file_mark, first)
    return column, series, [*notes, f"{cells.name}: read as days since {day}"]


def _fitted_levels(cells: Cells) -> tuple[Column | None, pd.Series | None, list[str]]:
    merged_cells, note = cleaning.merged(cells)
    notes = [note] if note else []
    texts = sorted(merged_cells.known_texts)
    if len(texts) < 2:
        return None, None, [*notes, f"{cells.name} was left aside: all rows have one value"]

    rows = len(cells.values)
    if len(texts) > min(_MOST_LEVELS, max(cleaning.FEW_TEXTS, rows // _ROWS_OF_A_LEVEL)):
        reason = f"it has {len(texts)} different texts in {rows} rows"
        return None, None, [*notes, f"{cells.name} was left aside: {reason}"]

    missing = bool(merged_cells.rows_missing().any())
    column = Levels(cells.name, tuple(texts), missing=missing)
    series, more_notes = cleaning.typed(merged_cells, column)
    return column, series, [*notes, *more_notes, *_misspelt(merged_cells)]


def _misspelt(cells: Cells) -> list[str]:
    """Note rare categories that resemble a frequent one."""
    pairs = list(zip(cells.known_texts, cells.values.counts[cells.known].tolist(), strict=True))
    notes = []
    for text, count in pairs:
        frequent = [other for other, rows in pairs if rows >= _RARE * count]
        close = difflib.get_close_matches(text, frequent, n=1, cutoff=_ALIKE)
        if close and not any(character.isdigit() for character in text):
            advice = f'read_as = {{ "{text}" = "{close[0]}" }} in its entry reads it so'
            rows_in_words = "1 row" if count == 1 else f"{count} rows"
            notes.append(f"{cells.name}: {text!r} ({rows_in_words}) may be {close[0]!r}; {advice}")
    return notes


def _numbers_rows(cells: Cells, values: np.ndarray) -> bool:
    """Return whether whole numbers number the rows, or are keys by their name and values."""
    rows = len(values)
    is_each_once = rows >= _FEW_ROWS and len(np.unique(values)) == rows
    if not is_each_once or np.isnan(values).any() or (values % 1 != 0).any():
        return False
    # Some rows may have been left out: then their numbers are lacking.
    counts_from_start = values.min() in (0, 1) and values.max() < 2 * rows
    return counts_from_start or bool(_NAME_OF_A_KEY.search(cells.name.casefold()))
