"""Check tables that were read back from files: each column holds what its name says, and no row is there twice.

A file may have been changed by somebody who also made its SHA-256 anew, so that a digest alone promises nothing about
what is inside.
"""

from collections.abc import Sequence
from typing import get_args

import numpy as np
import pandas as pd
from pandas.api import types

from fedsim.figures import as_written
from fedsim.mistakes import Mistake
from fedsim.scenario.schema import Arm

LARGEST_COUNT = 2**53
"""The largest whole number in a file: beyond it, a float no longer counts one by one."""

LARGEST_FIGURE = 1e100
"""Beyond it, no figure of a training lies, and no chart has an axis."""

_ARMS = get_args(Arm)
_KINDS = {
    "arm": "arm",
    "private": "truth",
    "kept": "truth",
    **dict.fromkeys(("site", "attribute", "group", "input", "unit"), "text"),
    **dict.fromkeys(("direction", "message", "record", "fields"), "text"),
    **dict.fromkeys(("reference", "learned_from", "settings", "note", "feature", "method"), "text"),
    **dict.fromkeys(("seed", "round", "rows", "positives", "bin", "true", "named", "output", "seeds"), "count"),
    **dict.fromkeys(("messages", "rounds", "bytes", "most"), "count"),
}
"""{column: what it holds}; all others hold numbers, which may be missing."""

_EXPECTED = {
    "arm": f"one of {', '.join(_ARMS)}",
    "truth": "true or false",
    "text": "text",
    "count": "a whole number >= 0",
    "number": "a number",
}


def training_in_words(arm: str, private: bool, seed: int) -> str:
    """Return ``federated, private, seed 0``."""
    return f"{arm}, {'private' if private else 'not private'}, seed {seed}"


def check_columns(table: pd.DataFrame, needed: Sequence[str], key: Sequence[str], place: str) -> None:
    """Check a table.

    Args:
        table: The table.
        needed: Columns that it has to have.
        key: The columns that tell its rows apart.
        place: The file, and the table in it, for messages.

    Raises:
        Mistake: All columns that are missing or hold something else; or a row that is there twice.
    """
    missing = [column for column in needed if column not in table.columns]
    if missing:
        raise Mistake(f"{place}: expected the columns {', '.join(missing)}, got {', '.join(map(str, table.columns))}")

    faults = []
    for column in table.columns:
        kind = _KINDS.get(column, "number")
        if not _holds(table[column], kind):
            row = _first_wrong(table[column], kind)
            got = as_written(table[column].iloc[row])
            faults.append(f"{place}: {column} of row {row}: expected {_EXPECTED[kind]}, got {got:.80}")
    if faults:
        raise Mistake("\n".join(faults))

    again = table.duplicated(list(key)).to_numpy()
    if again.any():
        raise Mistake(f"{place}: expected one row for each {', '.join(key)}, row {again.argmax()} repeats another")


def _holds(column: pd.Series, kind: str) -> bool:
    """Whether a column holds values of a kind only."""
    if kind == "number" and column.dtype == np.float64:  # the commonest, in a tenth of the time
        return not bool((np.abs(column.to_numpy()) > LARGEST_FIGURE).any())
    if kind == "number":
        if column.isna().all():
            return True
        is_number = types.is_numeric_dtype(column) and not types.is_bool_dtype(column)
        return is_number and not bool((column.abs() > LARGEST_FIGURE).any())
    if column.isna().any():
        return False
    if kind == "truth":
        return types.is_bool_dtype(column)
    if kind == "count":
        return types.is_integer_dtype(column) and bool(column.between(0, LARGEST_COUNT).all())
    if not types.is_string_dtype(column):  # of objects, whether each is text
        return False
    return kind == "text" or bool(column.isin(_ARMS).all())


def _first_wrong(column: pd.Series, kind: str) -> int:
    """Return the number of the first row whose value is not of a kind; 0 where all are wrong together."""
    for row, value in enumerate(column):
        if not _holds(pd.Series([value], dtype=_type_of(value)), kind):
            return row
    return 0


def _type_of(value: object) -> type:
    """Return the type of a column that holds a single value and leaves it as it is."""
    if isinstance(value, bool | np.bool_):
        return bool
    if isinstance(value, int | np.integer) and abs(int(value)) <= LARGEST_COUNT:
        return int
    if isinstance(value, float | np.floating):
        return float
    return object
