"""Take a pandas frame as the table of a run, by the same reading as a Parquet file of it.

A frame is in no file. While a run of it goes on it is held in memory under the digest of its
contents, which the scenario names; a run directory has the digest and no row.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from fedsim.data.own_table.reading import Table, check_size, clean, encoded, repaired
from fedsim.data.own_table.values import Values, changed, of_chunks
from fedsim.figures import listed
from fedsim.mistakes import Mistake
from fedsim.scenario.schema import FRAME

_MOST_SHOWN = 5  # names of columns in a message
_PLAIN = (str, bool, int, float, Decimal, date, datetime, time, np.generic)
_UNREADABLE = (ValueError, TypeError, NotImplementedError, OverflowError)  # as pyarrow raises them

_held: dict[str, tuple[Table, int]] = {}  # {digest: the table, and how many runs hold it}


def is_frame(path: str | Path | None) -> bool:
    """Return whether a scenario's ``data.path`` stands for a frame in memory."""
    return str(path) == FRAME


@contextmanager
def held(table: Table) -> Iterator[str]:
    """Hold the table of a frame in memory for a run; yield its digest."""
    digest = digest_of(table)
    kept, runs = _held.get(digest, (table, 0))
    _held[digest] = (kept, runs + 1)
    try:
        yield digest
    finally:
        kept, runs = _held.pop(digest)
        if runs > 1:
            _held[digest] = (kept, runs - 1)


def all_held() -> dict[str, Table]:
    """Return all tables that are held, by their digests."""
    return {digest: table for digest, (table, _) in _held.items()}


@contextmanager
def all_of(tables: Mapping[str, Table]) -> Iterator[None]:
    """Hold tables that another process holds; they have their digests from there."""
    _held.update({digest: (table, 1) for digest, table in tables.items()})
    try:
        yield
    finally:
        for digest in tables:
            del _held[digest]


def held_table(digest: str | None) -> Table:
    """Return the table that is held under a digest.

    Raises:
        Mistake: None is: the run was begun in another Python process, or is over.
    """
    if digest not in _held:
        raise Mistake(
            "data.path: expected the pandas frame that this run was begun with, which is in no file; call "
            "fedsim.run(data=frame, ...) with it, also with the run directory as out to go on with an interrupted "
            "run, or write it to a file with frame.to_parquet and run that"
        )
    table, _ = _held[digest]
    return table


def column_names(frame: Any) -> list[str]:  # noqa: ANN401
    """Return the names of a frame's columns that are text."""
    if not isinstance(frame, pd.DataFrame):
        return []
    return [clean(name) for name, _ in _columns(frame) if isinstance(name, str)]


def table_of(frame: Any) -> Table:  # noqa: ANN401
    """Convert a frame to a table, as if it had been written to a Parquet file; it is not changed.

    Rows are counted from 0, as ``frame.iloc`` does.

    Raises:
        Mistake: It is no frame, has no rows, or columns that are no table's: all faults.
    """
    if not isinstance(frame, pd.DataFrame):
        kind = type(frame)
        hint = "; pass data.to_pandas()" if hasattr(frame, "to_pandas") else ""
        if isinstance(frame, pd.Series):
            hint = "; pass data.to_frame()"
        got = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
        raise Mistake(f"data: expected a pandas DataFrame or the path of a file, got {got}{hint}")

    faults = _faults_of_names(frame)
    if not len(frame):
        faults.append(f"data: expected rows, the frame has none and {len(frame.columns)} columns")
    columns: dict[str, Values] = {}
    for name, series in _columns(frame):
        try:
            columns[clean(str(name))] = of_chunks([encoded(_to_arrow(series))])
        except _UNREADABLE as error:
            faults.append(f"data, column {name}: expected numbers, text or dates, got {_got(series, error)}")
    if faults:
        raise Mistake("\n".join(faults))

    check_size(FRAME, len(frame), len(columns))
    return repaired(Table(FRAME, columns, np.arange(len(frame)), repairs=()))


def digest_of(table: Table) -> str:
    """Compute the SHA-256, in hex, of the values of a table as they were read.

    Two frames have the same digest if no step after reading can tell them apart: text is the same
    as ``object``, ``string`` and ``category``, and whole numbers as ``int64`` and ``float64``.
    """
    hashed = hashlib.sha256()
    for name, values in table.columns.items():
        # Distinct values in the order of their first rows, whatever order they are kept in.
        values = changed(values, str) if values.is_text else values  # equal texts become one
        order = np.argsort(values.first_rows, kind="stable")
        places = np.empty(len(order) + 1, np.int32)
        places[order] = np.arange(len(order))
        places[-1] = -1
        kind, distinct = _bytes_of(values, order)
        head = json.dumps([name, kind, len(values), len(distinct)])
        hashed.update(head.encode())
        hashed.update(distinct)
        hashed.update(places[values.codes].astype("<i4").tobytes())
    return hashed.hexdigest()


def _bytes_of(values: Values, order: np.ndarray) -> tuple[str, bytes]:
    """Return the kind of a column and its distinct values in some order, as bytes."""
    if values.is_text:
        texts = [values.texts[number] for number in order]
        return "text", json.dumps(texts).encode()
    numbers = values.distinct.to_numpy(zero_copy_only=False)[order]
    is_fraction = np.issubdtype(numbers.dtype, np.floating)
    if is_fraction and not ((numbers % 1 == 0) & (np.abs(numbers) < 2**53)).all():
        return "numbers", numbers.astype("<f8").tobytes()
    if numbers.dtype == np.uint64 and len(numbers) and numbers.max() >= 2**63:
        return "large numbers", numbers.astype("<u8").tobytes()
    return "whole numbers", numbers.astype("<i8").tobytes()


def _columns(frame: pd.DataFrame) -> list[tuple[Any, pd.Series]]:
    """Return the columns of a frame by name, then those of its index, as Parquet keeps them.

    An index that only counts the rows is none, and the levels of another that have no name are
    called as pandas calls them in a Parquet file.
    """
    columns: list[tuple[Any, pd.Series]] = []
    for number, column in enumerate(frame.columns):
        columns.append((column, frame.iloc[:, number]))
    if isinstance(frame.index, pd.RangeIndex):
        return columns
    for number, name in enumerate(frame.index.names):
        series = frame.index.get_level_values(number).to_series()
        columns.append((f"__index_level_{number}__" if name is None else name, series))
    return columns


def _faults_of_names(frame: pd.DataFrame) -> list[str]:
    if isinstance(frame.columns, pd.MultiIndex):
        levels = frame.columns.nlevels
        hint = 'frame.columns = ["_".join(map(str, names)) for names in frame.columns] joins them'
        return [f"data: expected one name for each column, got a MultiIndex of {levels} levels; {hint}"]

    faults = []
    names = [name for name, _ in _columns(frame)]
    others = [name for name in names if not isinstance(name, str)]
    if others:
        got = listed([f"{name!r} ({type(name).__name__})" for name in others], _MOST_SHOWN)
        hint = "frame.columns = frame.columns.map(str) makes them text"
        faults.append(f"data: expected text as the name of each column, got {got}; {hint}")

    texts = [clean(name) for name in names if isinstance(name, str)]
    repeated = [name for name, count in Counter(texts).items() if count > 1]
    if repeated:
        faults.append(f"data: expected each column once, got {listed(repeated, _MOST_SHOWN)} several times")
    if not len(frame.columns):
        faults.append("data: expected columns, the frame has none")
    return faults


def _to_arrow(series: pd.Series) -> pa.Array:
    """Convert a column to an Arrow array.

    Raises:
        ValueError, TypeError, NotImplementedError, OverflowError: It holds something else than
            numbers, text or dates.
    """
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        codes = series.cat.codes.to_numpy()
        categories = _to_arrow(pd.Series(dtype.categories))
        return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32(), mask=codes < 0), categories)
    if isinstance(dtype, pd.SparseDtype):
        return _to_arrow(series.sparse.to_dense())
    if isinstance(dtype, pd.IntervalDtype | pd.PeriodDtype):
        series = series.astype(object).map(str, na_action="ignore")
    try:
        array = pa.Array.from_pandas(series)
    except _UNREADABLE:
        if not pd.api.types.is_object_dtype(dtype):
            raise
        return _mixed(series)

    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    if pa.types.is_nested(array.type):
        raise TypeError
    return array


def _mixed(series: pd.Series) -> pa.Array:
    """Convert values of several types to their texts, as a CSV file has them."""
    texts: list[str | None] = []
    for value in series:
        if not _is_plain(value):
            raise TypeError
        texts.append(None if pd.isna(value) else str(value))
    return pa.array(texts, pa.string())


def _is_plain(value: Any) -> bool:  # noqa: ANN401
    return value is None or value is pd.NA or value is pd.NaT or isinstance(value, _PLAIN)


def _got(series: pd.Series, error: Exception) -> str:
    """Describe a column that can't be read: its type, and the first value that is to blame."""
    if isinstance(error, UnicodeError):
        return "text with characters that UTF-8 has not"
    if pd.api.types.is_object_dtype(series.dtype):
        for row, value in enumerate(series):
            if not _is_plain(value):
                return f"{type(value).__name__} in row {row}"
    return str(series.dtype)
