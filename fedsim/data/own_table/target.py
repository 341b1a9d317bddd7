"""The outcome in one's own table: which kind it is, and the numbers that training takes."""

from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Target:
    """The outcome.

    Attributes:
        kind: What it is.
        column: Its levels or its range; None of 0 and 1.
        values: What training takes, as ``fedsim.data.task.Rows`` has it.
        meaning: What a target of 1, the classes or the number mean.
        said: How the kind was found, and what had to be done.
    """

    kind: Kind
    column: Column | None
    values: np.ndarray
    meaning: str
    said: tuple[str, ...]

    @property
    def outputs(self) -> int:
        """How many outputs a model needs."""
        return len(self.column.levels) if self.kind == "classes" and isinstance(self.column, Levels) else 1


def target_of(table: Table, name: str, wanted: Kind | None, declared: Declared | None) -> Target:
    """Return the outcome, from what was declared or, where that is ``None``, from the values themselves.

    Raises:
        Mistake: It can't be what it was declared to be, or has only one value.
    """
    values = table.frame[name]
    if values.nunique() < 2:
        raise Mistake(f"{table.name}, column {name}: expected two values or more, all {len(values)} rows have "
                      f"{as_written(values.iloc[0])}")  # fmt: skip
    column = _column(table, name, wanted, declared)
    kind: Kind = "number" if isinstance(column, Number) else "binary" if _is_two(column) else "classes"
    if wanted not in (None, kind):
        raise Mistake(f"data.kind: expected {kind!r}, as {name} is declared or found to be, got {wanted!r}")
    said = (f"{name} was taken for {_KINDS[kind]}, by its values",) if wanted is None else ()
    return _FORMS[kind](table, name, column, said if not _entry(name, declared) else ())


def needs_entry(table: Table, name: str, wanted: Kind | None) -> bool:
    """Return whether the outcome's levels or range must be declared: all but 0 and 1."""
    return not (wanted in (None, "binary") and _is_zero_one(table, name))


_KINDS = {"binary": "a yes or no", "classes": "one of several classes", "number": "a number"}


def _entry(name: str, declared: Declared | None) -> Any:  # noqa: ANN401  anything TOML can hold
    entry = declared.entries.get(name) if declared else None
    return None if entry == OPEN else entry


def _column(table: Table, name: str, wanted: Kind | None, declared: Declared | None) -> Column | None:
    if declared and (entry := _entry(name, declared)) is not None:
        column = column_of(name, entry, declared.place)
        if column is None:
            raise Mistake(
                f"{declared.place}: {name}: expected a range or levels of the outcome, got {as_written(entry)}"
            )
        return column
    if not needs_entry(table, name, wanted):
        return None
    values = cleaning.numbers(table, name) if cleaning.kind_of(table, name) == "numbers" else table.frame[name]
    if wanted == "number" or (wanted is None and _is_number(values)):
        return fitted(name, cleaning.numbers(table, name))
    return Levels(name, tuple(sorted(values.unique())))


def _is_two(column: Column | None) -> bool:
    return column is None or (isinstance(column, Levels) and len(column.levels) == 2)


def _is_number(values: pd.Series) -> bool:
    if not pd.api.types.is_numeric_dtype(values):
        return False
    return bool((values % 1 != 0).any()) or values.nunique() > _FEW


def _is_zero_one(table: Table, name: str) -> bool:
    return bool(pd.to_numeric(table.frame[name], errors="coerce").isin((0, 1)).all())


def _binary(table: Table, name: str, column: Column | None, said: tuple[str, ...]) -> Target:
    if not isinstance(column, Levels):
        values = cleaning.numbers(table, name)
        return Target("binary", None, values.to_numpy(np.float32), f"{name} is 1", said)
    positive = column.levels[1]
    found = cleaning.levels(table, column) == positive
    return Target("binary", column, found.to_numpy(np.float32), f"{name} is {_text(positive)}", said)


def _classes(table: Table, name: str, column: Column | None, said: tuple[str, ...]) -> Target:
    levels = column.levels if isinstance(column, Levels) else ()
    number = {level: place for place, level in enumerate(levels)}
    values = cleaning.levels(table, Levels(name, levels)).map(number)
    listed = ", ".join(map(_text, levels[:12])) + (f" and {len(levels) - 12} more" if len(levels) > 12 else "")
    return Target("classes", column, values.to_numpy(np.int64), f"{name}: {listed}", said)


def _number(table: Table, name: str, column: Column | None, said: tuple[str, ...]) -> Target:
    if not isinstance(column, Number):
        raise Mistake(f"{table.name}, column {name}: expected a range of the outcome")
    values, cut = cleaning.typed(table, column)
    scaled = column.scaled(values).to_numpy(np.float32)
    return Target("number", column, scaled, name, (*said, *([cut] if cut else [])))


def _text(level: float | str) -> str:
    return level if isinstance(level, str) else f"{level:g}"


_FORMS = {"binary": _binary, "classes": _classes, "number": _number}
