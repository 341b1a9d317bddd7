"""From what stands in a file to typed columns: every row is used or reported, every wrong value named by its place."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from fedsim.data.own_table.reading import Table
from fedsim.data.tables import Column, Levels, Number
from fedsim.mistakes import Mistake

_MISSING = {"", "na", "n/a", "nan", "null", "?"}  # in lower case; a listed category is never taken for missing
_MOST_GROUPS = 20
_MISSING_NUMBER = _MISSING | {"none", "-", ".", "#n/a", "<na>"}


@dataclass(frozen=True)
class LeftOut:
    """Rows that are not used: why, how many, and the first of them in the file."""

    reason: str
    rows: int
    first: int


def without(table: Table, needed: dict[str, str | None]) -> tuple[Table, tuple[LeftOut, ...]]:
    """Leave out the rows that lack the value of a column without which they are of no use.

    Args:
        table: What was read.
        needed: {what the column is: its name, or None if there is none}.
    """
    left_out, keep = [], np.ones(len(table.rows), bool)
    for role, name in needed.items():
        if name is None:
            continue
        lacking = keep & is_missing(table.frame[name]).to_numpy()
        if lacking.any():
            left_out.append(LeftOut(f"no {role} ({name})", int(lacking.sum()), int(table.rows[lacking][0])))
        keep &= ~lacking
    kept = Table(table.name, table.frame[keep].reset_index(drop=True), table.rows[keep], table.repairs)
    return kept, tuple(left_out)


def is_missing(values: pd.Series) -> pd.Series:
    """Return which values are missing, bool (rows,)."""
    if pd.api.types.is_numeric_dtype(values):
        return values.isna()
    return values.isna() | values.str.lower().isin(_MISSING)


def kind_of(table: Table, name: str) -> str:
    """Return whether a column holds ``numbers`` or ``text``.

    Raises:
        Mistake: It holds both, mostly numbers.
    """
    values = table.frame[name]
    found, known = _numbers(values), ~_is_no_number(values)
    strange = (known & found.isna()).to_numpy()
    if not strange.any():
        return "numbers"
    if 2 * strange.sum() < known.sum():
        raise wrong(table, name, strange, "a number as in most rows")
    return "text"


def typed(table: Table, column: Column) -> tuple[pd.Series, str]:
    """Return a column's values, NaN where missing, and what had to be done to them, or nothing.

    Raises:
        Mistake: A value is not what was declared; the message names its row.
    """
    if isinstance(column, Levels):
        return levels(table, column), ""
    values = numbers(table, column.name)
    if values.isna().any() and not column.missing:
        raise wrong(table, column.name, values.isna().to_numpy(), "a number, missing = false")
    outside = ((values < column.low) | (values > column.high)).to_numpy()
    return values, _cut(table, column, outside) if outside.any() else ""


def _cut(table: Table, column: Number, outside: np.ndarray) -> str:
    bounds = f"{column.low:g} to {column.high:g}"
    return f"{column.name}: {outside.sum()} outside {bounds} cut to it, first in row {table.rows[outside][0]}"


def numbers(table: Table, name: str) -> pd.Series:
    """Return a column as numbers, float64 (rows,), NaN where missing.

    Raises:
        Mistake: A value is no number, or not finite.
    """
    values = table.frame[name]
    found = _numbers(values)
    strange = (~_is_no_number(values) & found.isna()).to_numpy() | np.isinf(found.to_numpy())
    if strange.any():
        raise wrong(table, name, strange, "a finite number")
    return found


def levels(table: Table, column: Levels) -> pd.Series:
    """Return a column's categories, NaN where missing.

    Raises:
        Mistake: A value is none of the public levels, or missing where that was declared not to be.
    """
    values = table.frame[column.name]
    if isinstance(column.levels[0], str):
        text = values.map(_as_text, na_action="ignore") if pd.api.types.is_numeric_dtype(values) else values
        found = text.where(text.isin(column.levels))
        missing = is_missing(values)
    else:
        found, missing = _numbers(values), _is_no_number(values)
        found = found.where(found.isin(column.levels))
    strange = (found.isna() & ~(missing & column.missing)).to_numpy()
    if strange.any():
        raise wrong(table, column.name, strange, f"one of {', '.join(map(str, column.levels))}")
    return found


def groups(table: Table, name: str) -> np.ndarray:
    """Return a column as names of groups, str (rows,); ``unknown`` where it is missing.

    Raises:
        Mistake: It has so many values that few rows share one.
    """
    values = table.frame[name]
    named = values.map(_as_text, na_action="ignore") if pd.api.types.is_numeric_dtype(values) else values
    found = named.where(~is_missing(values), "unknown")
    if found.nunique() > _MOST_GROUPS:
        raise Mistake(f"{table.name}, column {name}: expected at most {_MOST_GROUPS} values of a group, got "
                      f"{found.nunique()}; put bands into a column of their own")  # fmt: skip
    return found.to_numpy(dtype=str)


def times(table: Table, name: str) -> np.ndarray:
    """Return a column as moments, float64 (rows,): numbers as they are, dates as days since 1970.

    Raises:
        Mistake: A value is neither.
    """
    if kind_of(table, name) == "numbers":
        return numbers(table, name).to_numpy()
    found = pd.to_datetime(table.frame[name], errors="coerce", format="ISO8601", utc=True)
    if found.isna().any():
        raise wrong(table, name, found.isna().to_numpy(), "a number or a date such as 2026-01-31")
    return ((found - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)).to_numpy(dtype=float)


def wrong(table: Table, name: str, where: np.ndarray, expected: str) -> Mistake:
    """Return the Mistake about the first of some values."""
    first = int(np.flatnonzero(where)[0])
    value = table.frame[name].iloc[first]
    got = "nothing" if value is None or value != value or value == "" else repr(value)
    more = f" (and {where.sum() - 1} more rows)" if where.sum() > 1 else ""
    hint = "; numbers have a point, not a comma" if isinstance(value, str) and _is_decimal_comma(value) else ""
    return Mistake(
        f"{table.name}, row {table.rows[first]}, column {name}: expected {expected}, got {got[:80]}{hint}{more}"
    )


def _numbers(values: pd.Series) -> pd.Series:
    return pd.to_numeric(values, errors="coerce").astype("float64")


def _is_no_number(values: pd.Series) -> pd.Series:
    if pd.api.types.is_numeric_dtype(values):
        return values.isna()
    return values.isna() | values.str.lower().isin(_MISSING_NUMBER)


def _as_text(value: float) -> str:
    return f"{value:g}"


def _is_decimal_comma(value: str) -> bool:
    return value.count(",") == 1 and value.replace(",", "").lstrip("-").isdigit()
