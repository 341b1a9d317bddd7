"""Find the kind of the outcome in the user's own table, and convert it to a target for training."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd

from fedsim.data.own_table import cleaning
from fedsim.data.own_table.ranges import OPEN, Declared, column_of, fitted
from fedsim.data.own_table.reading import Table
from fedsim.data.tables import Column, Levels, Number
from fedsim.figures import as_written
from fedsim.mistakes import Mistake
from fedsim.scenario.kinds import Kind

_FEW = 10  # distinct whole numbers that are taken for classes
_LISTED = 12  # classes that are named in the outcome's meaning


@dataclass(frozen=True)
class Target:
    """The outcome of a table.

    Attributes:
        kind: The kind of the outcome.
        column: Its levels or its range; None for 0 and 1.
        values: The targets for training, as in ``fedsim.data.task.Rows``.
        meaning: The meaning of a target of 1, of the classes or of the number.
        said: Notes on how the kind was found, and on values that were changed.
    """

    kind: Kind
    column: Column | None
    values: np.ndarray
    meaning: str
    said: tuple[str, ...]

    @property
    def outputs(self) -> int:
        """The number of outputs of a model."""
        if self.kind == "classes" and isinstance(self.column, Levels):
            return len(self.column.levels)
        return 1


def target_of(table: Table, name: str, wanted: Kind | None, declared: Declared | None) -> Target:
    """Convert the outcome, by its declaration or by its values where it has none.

    Args:
        table: The table.
        name: The column of the outcome.
        wanted: The kind that the scenario asks for; None to find it.
        declared: The declared columns; None to take ranges and levels from the values.

    Raises:
        Mistake: The outcome can't be of the declared kind, or has only one value.
    """
    values = table.frame[name]
    if values.nunique() < 2:  # then there is nothing to learn
        place = f"{table.name}, column {name}"
        got = f"all {len(values)} rows have {as_written(values.iloc[0])}"
        raise Mistake(f"{place}: expected two values or more, {got}")

    column = _column(table, name, wanted, declared)
    kind = _kind_of(column)
    if wanted not in (None, kind):
        expected = f"{kind!r}, as {name} is declared or found to be"
        raise Mistake(f"data.kind: expected {expected}, got {wanted!r}")

    notes = ()
    if wanted is None and not _entry(name, declared):
        notes = (f"{name} was taken for {_KINDS[kind]}, by its values",)
    return _CONVERSIONS[kind](table, name, column, notes)


def needs_entry(table: Table, name: str, wanted: Kind | None) -> bool:
    """Return whether the outcome's levels or range must be declared: all but 0 and 1."""
    may_be_binary = wanted in (None, "binary")
    return not (may_be_binary and _is_zero_one(table, name))


_KINDS = {"binary": "a yes or no", "classes": "one of several classes", "number": "a number"}


def _kind_of(column: Column | None) -> Kind:
    """Return the kind of an outcome with these levels or this range; None stands for 0 and 1."""
    if isinstance(column, Number):
        return "number"
    if column is None or len(column.levels) == 2:
        return "binary"
    return "classes"


def _entry(name: str, declared: Declared | None) -> Any:  # noqa: ANN401  anything TOML can hold
    """Return the entry of a column; None where there is none or it is still to be filled in."""
    if declared is None:
        return None
    entry = declared.entries.get(name)
    return None if entry == OPEN else entry


def _column(
    table: Table,
    name: str,
    wanted: Kind | None,
    declared: Declared | None,
) -> Column | None:
    """Find the levels or the range of the outcome; None for 0 and 1.

    Raises:
        Mistake: It was declared to be left out, or a value is not of the declared kind.
    """
    entry = _entry(name, declared)
    if declared is not None and entry is not None:
        column = column_of(name, entry, declared.place)
        if column is None:
            expected = "a range or levels of the outcome"
            raise Mistake(f"{declared.place}: {name}: expected {expected}, got {as_written(entry)}")
        return column

    # Without an entry the values themselves decide.
    if not needs_entry(table, name, wanted):
        return None
    values = table.frame[name]
    if cleaning.kind_of(table, name) == "numbers":
        values = cleaning.numbers(table, name)
    if wanted == "number" or (wanted is None and _is_number(values)):
        return fitted(name, cleaning.numbers(table, name))
    return Levels(name, tuple(sorted(values.unique())))


def _is_number(values: pd.Series) -> bool:
    """Return whether values are taken for a number and not for classes."""
    if not pd.api.types.is_numeric_dtype(values):
        return False
    has_fractions = bool((values % 1 != 0).any())
    return has_fractions or values.nunique() > _FEW


def _is_zero_one(table: Table, name: str) -> bool:
    values = pd.to_numeric(table.frame[name], errors="coerce")
    return bool(values.isin((0, 1)).all())


class _Convert(Protocol):
    """A function that converts the outcome to the target of a kind."""

    def __call__(
        self,
        table: Table,
        name: str,
        column: Column | None,
        notes: tuple[str, ...],
    ) -> Target: ...


def _binary(table: Table, name: str, column: Column | None, notes: tuple[str, ...]) -> Target:
    if not isinstance(column, Levels):
        zero_one = cleaning.numbers(table, name).to_numpy(np.float32)
        return Target("binary", None, zero_one, f"{name} is 1", notes)

    positive = column.levels[1]
    is_positive = (cleaning.levels(table, column) == positive).to_numpy(np.float32)
    return Target("binary", column, is_positive, f"{name} is {_text(positive)}", notes)


def _classes(table: Table, name: str, column: Column | None, notes: tuple[str, ...]) -> Target:
    levels = column.levels if isinstance(column, Levels) else ()
    class_numbers = {level: number for number, level in enumerate(levels)}
    values = cleaning.levels(table, Levels(name, levels)).map(class_numbers)

    listed = ", ".join(map(_text, levels[:_LISTED]))
    if len(levels) > _LISTED:
        listed += f" and {len(levels) - _LISTED} more"
    return Target("classes", column, values.to_numpy(np.int64), f"{name}: {listed}", notes)


def _number(table: Table, name: str, column: Column | None, notes: tuple[str, ...]) -> Target:
    if not isinstance(column, Number):
        raise Mistake(f"{table.name}, column {name}: expected a range of the outcome")

    values, note_on_cut = cleaning.typed(table, column)
    if note_on_cut:
        notes = (*notes, note_on_cut)
    scaled = column.scaled(values).to_numpy(np.float32)
    return Target("number", column, scaled, name, notes)


def _text(level: float | str) -> str:
    return level if isinstance(level, str) else f"{level:g}"


_CONVERSIONS: dict[Kind, _Convert] = {"binary": _binary, "classes": _classes, "number": _number}
