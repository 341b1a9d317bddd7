"""Convert the values of a file to typed columns.

Every row is used or reported, and every wrong value is named by its place.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from fedsim.data.own_table.reading import Table
from fedsim.data.tables import Column, Levels, Number
from fedsim.mistakes import Mistake

# In lower case. A listed category is never taken for missing.
_MISSING = {"", "na", "n/a", "nan", "null", "?"}
_MISSING_NUMBER = _MISSING | {"none", "-", ".", "#n/a", "<na>"}

_MOST_GROUPS = 20


@dataclass(frozen=True)
class LeftOut:
    """Rows that are not used: the reason, their number, and the first of them in the file."""

    reason: str
    rows: int
    first: int


def without(table: Table, needed: dict[str, str | None]) -> tuple[Table, tuple[LeftOut, ...]]:
    """Leave out the rows that lack the value of a column without which they are of no use.

    Args:
        table: The table as it was read.
        needed: {role of a column: its name, or None if there is no such column}.
    """
    left_out = []
    keep = np.ones(len(table.rows), bool)
    for role, name in needed.items():
        if name is None:
            continue

        # A row that lacks several of these columns is counted for the first of them.
        lacking = keep & is_missing(table.frame[name]).to_numpy()
        if lacking.any():
            row_numbers = table.rows[lacking]
            left_out.append(LeftOut(f"no {role} ({name})", len(row_numbers), int(row_numbers[0])))
        keep &= ~lacking

    kept = Table(
        name=table.name,
        frame=table.frame[keep].reset_index(drop=True),
        rows=table.rows[keep],
        repairs=table.repairs,
    )
    return kept, tuple(left_out)


def is_missing(values: pd.Series) -> pd.Series:
    """Find missing values, bool (rows,)."""
    if pd.api.types.is_numeric_dtype(values):
        return values.isna()
    return values.isna() | values.str.lower().isin(_MISSING)


def kind_of(table: Table, name: str) -> str:
    """Decide whether a column holds ``numbers`` or ``text``.

    Raises:
        Mistake: It holds both, mostly numbers.
    """
    values = table.frame[name]
    known = ~_is_no_number(values)
    strange = (known & _numbers(values).isna()).to_numpy()  # known, but no number; bool (rows,)
    if not strange.any():
        return "numbers"

    # Some text among mostly numbers is an error of typing, and not a category.
    if 2 * strange.sum() < known.sum():
        raise wrong(table, name, strange, "a number as in most rows")
    return "text"


def typed(table: Table, column: Column) -> tuple[pd.Series, str]:
    """Convert a column to its declared type.

    Returns:
        The values, NaN where missing, and a note on values outside the range, or an empty note.

    Raises:
        Mistake: A value is not of the declared kind; the message names its row.
    """
    if isinstance(column, Levels):
        return levels(table, column), ""

    values = numbers(table, column.name)
    if values.isna().any() and not column.missing:
        raise wrong(table, column.name, values.isna().to_numpy(), "a number, missing = false")

    outside = ((values < column.low) | (values > column.high)).to_numpy()
    if not outside.any():
        return values, ""
    return values, _note_on_cut(table, column, outside)


def _note_on_cut(table: Table, column: Number, outside: np.ndarray) -> str:
    """Describe the values outside a range, which ``Number.encode`` cuts to it."""
    bounds = f"{column.low:g} to {column.high:g}"
    first_row = table.rows[outside][0]
    return f"{column.name}: {outside.sum()} outside {bounds} cut to it, first in row {first_row}"


def numbers(table: Table, name: str) -> pd.Series:
    """Convert a column to numbers, float64 (rows,), NaN where missing.

    Raises:
        Mistake: A value is no number, or not finite.
    """
    values = table.frame[name]
    converted = _numbers(values)
    no_number = (~_is_no_number(values) & converted.isna()).to_numpy()
    infinite = np.isinf(converted.to_numpy())
    strange = no_number | infinite
    if strange.any():
        raise wrong(table, name, strange, "a finite number")
    return converted


def levels(table: Table, column: Levels) -> pd.Series:
    """Convert a column to its categories, NaN where missing.

    Raises:
        Mistake: A value is none of the public levels, or missing where none may be.
    """
    values = table.frame[column.name]
    if isinstance(column.levels[0], str):
        categories = _as_texts(values)
        missing = is_missing(values)
    else:
        categories = _numbers(values)
        missing = _is_no_number(values)

    # A listed category is never taken for missing, even if it is called "na".
    categories = categories.where(categories.isin(column.levels))
    strange = (categories.isna() & ~(missing & column.missing)).to_numpy()
    if strange.any():
        raise wrong(table, column.name, strange, f"one of {', '.join(map(str, column.levels))}")
    return categories


def groups(table: Table, name: str) -> np.ndarray:
    """Convert a column to names of groups, str (rows,); ``unknown`` where it is missing.

    Raises:
        Mistake: It has so many values that few rows share a group.
    """
    values = table.frame[name]
    group_names = _as_texts(values).where(~is_missing(values), "unknown")
    count = group_names.nunique()
    if count > _MOST_GROUPS:
        raise Mistake(
            f"{table.name}, column {name}: expected at most {_MOST_GROUPS} values of a group, "
            f"got {count}; put bands into a column of their own"
        )
    return group_names.to_numpy(dtype=str)


def times(table: Table, name: str) -> np.ndarray:
    """Convert a column to moments, float64 (rows,): numbers as they are, dates as days since 1970.

    Raises:
        Mistake: A value is neither.
    """
    if kind_of(table, name) == "numbers":
        return numbers(table, name).to_numpy()

    dates = pd.to_datetime(table.frame[name], errors="coerce", format="ISO8601", utc=True)
    if dates.isna().any():
        raise wrong(table, name, dates.isna().to_numpy(), "a number or a date such as 2026-01-31")
    since_1970 = dates - pd.Timestamp(0, tz="UTC")
    return (since_1970 / pd.Timedelta(days=1)).to_numpy(dtype=float)


def wrong(table: Table, name: str, where: np.ndarray, expected: str) -> Mistake:
    """Describe the first of some wrong values.

    Args:
        table: The table.
        name: The column.
        where: The rows with a wrong value, bool (rows,).
        expected: The values that were expected, in words.
    """
    first = int(np.flatnonzero(where)[0])
    value = table.frame[name].iloc[first]
    is_nothing = value is None or value != value or value == ""  # NaN differs from itself
    got = "nothing" if is_nothing else repr(value)

    hint = ""
    if isinstance(value, str) and _is_decimal_comma(value):
        hint = "; numbers have a point, not a comma"
    more = ""
    if where.sum() > 1:
        more = f" (and {where.sum() - 1} more rows)"

    place = f"{table.name}, row {table.rows[first]}, column {name}"
    return Mistake(f"{place}: expected {expected}, got {got[:80]}{hint}{more}")


def _numbers(values: pd.Series) -> pd.Series:
    """Convert values to numbers, NaN where a value is none."""
    return pd.to_numeric(values, errors="coerce").astype("float64")


def _is_no_number(values: pd.Series) -> pd.Series:
    """Find missing values among numbers, bool (rows,)."""
    if pd.api.types.is_numeric_dtype(values):
        return values.isna()
    return values.isna() | values.str.lower().isin(_MISSING_NUMBER)


def _as_texts(values: pd.Series) -> pd.Series:
    """Convert numbers to text; text stays as it is."""
    if pd.api.types.is_numeric_dtype(values):
        return values.map(_as_text, na_action="ignore")
    return values


def _as_text(value: float) -> str:
    return f"{value:g}"


def _is_decimal_comma(value: str) -> bool:
    return value.count(",") == 1 and value.replace(",", "").lstrip("-").isdigit()
