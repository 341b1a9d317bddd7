"""Encode a table of columns as model inputs, without fitting anything on the rows.

Every range and every list of levels is public: it is declared with the task and not measured on
anybody's data. So encoding costs no privacy, needs no extra round, and gives the same inputs at a
site that lacks a measurement altogether.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fedsim.mistakes import Mistake


@dataclass(frozen=True)
class Input:
    """An input of the model, as a reader of its coefficients needs it.

    Attributes:
        name: The column's name, with the level or ``missing`` where the input is a mark of 0 or 1.
        unit: The unit of the column; empty for a mark.
        scale: The amount of the unit in one unit of the input; None for a mark.
    """

    name: str
    unit: str = ""
    scale: float | None = None


@dataclass(frozen=True)
class Number:
    """A number with a public range; values outside are clipped to it.

    A number is encoded as one input in [-1, 1]. If it may be missing, a second input is 1 where it
    is missing, and the first is 0 there.
    """

    name: str
    low: float
    high: float
    unit: str = ""
    missing: bool = False

    def encode(self, values: pd.Series) -> np.ndarray:
        """Encode values as float inputs: (rows, 1), or (rows, 2) if the column may be missing."""
        scaled = self.scaled(values)
        inputs = [scaled]
        if self.missing:
            inputs = [scaled.fillna(0.0), values.isna()]
        return np.stack([np.asarray(column, dtype=np.float32) for column in inputs], axis=1)

    def inputs(self) -> list[Input]:
        """Return the inputs that ``encode`` gives, in its order."""
        inputs = [Input(self.name, self.unit, self.scale)]
        if self.missing:
            inputs.append(Input(f"{self.name} missing"))
        return inputs

    def scaled(self, values: pd.Series) -> pd.Series:
        """Clip values to the range and scale them to [-1, 1], as inputs or as the target."""
        clipped = values.astype(float).clip(self.low, self.high)
        return (clipped - self.low) / self.scale - 1

    @property
    def scale(self) -> float:
        """The half width of the range: a scaled number of 1 is this much of the unit."""
        return (self.high - self.low) / 2

    def in_units(self, scaled: float) -> float:
        """Convert a scaled number to its unit."""
        return self.low + (scaled + 1) * self.scale


@dataclass(frozen=True)
class Levels:
    """A category with public levels.

    A category is encoded as one input for each level, 1 where the value is that level. All inputs
    are 0 where the value is missing.
    """

    name: str
    levels: tuple[float, ...] | tuple[str, ...]
    meaning: str = ""
    missing: bool = False

    def encode(self, values: pd.Series) -> np.ndarray:
        """Encode values as float inputs (rows, levels)."""
        is_level = [np.asarray(values == level, dtype=np.float32) for level in self.levels]
        return np.stack(is_level, axis=1)

    def inputs(self) -> list[Input]:
        """Return the inputs that ``encode`` gives, in its order."""
        return [Input(f"{self.name} = {_level_text(level)}") for level in self.levels]


Column = Number | Levels


def encode(frame: pd.DataFrame, columns: tuple[Column, ...]) -> np.ndarray:
    """Encode a table as model inputs, float32 (rows, inputs), all finite.

    Raises:
        Mistake: A column is not there, holds text where numbers are expected, lacks a value that
            it may not lack, or has a category that is not among its public levels.
    """
    absent = [column.name for column in columns if column.name not in frame]
    if absent:
        there = ", ".join(map(str, frame.columns))
        raise Mistake(f"expected the columns {', '.join(absent)}, got only {there}")

    for column in columns:
        _check(frame[column.name], column)
    encoded = [column.encode(frame[column.name]) for column in columns]
    return np.concatenate(encoded, axis=1)


def inputs_of(columns: Sequence[Column]) -> list[Input]:
    """Return the inputs that ``encode`` makes of some columns, in its order."""
    inputs = []
    for column in columns:
        inputs += column.inputs()
    return inputs


def input_names(columns: Sequence[Column]) -> list[str]:
    """Return the names of the inputs that ``encode`` makes of some columns, in its order."""
    return [each.name for each in inputs_of(columns)]


def _level_text(level: float | str) -> str:
    """Write a level with all its digits: a whole number without a point."""
    if isinstance(level, str):
        return level
    return str(int(level)) if float(level).is_integer() else repr(float(level))


def _check(values: pd.Series, column: Column) -> None:
    """Check that a column holds only values that were declared.

    Raises:
        Mistake: A value is none of them; the message names its row.
    """
    if not _has_text(column) and not pd.api.types.is_numeric_dtype(values):
        raise Mistake(f"column {column.name}: expected numbers, got {values.dtype}")

    wrong = values.isna().to_numpy() & (not column.missing)  # (rows,)
    if isinstance(column, Levels):
        expected = f"one of {column.levels}"
        wrong |= ~(values.isin(column.levels) | values.isna()).to_numpy()
    else:
        expected = f"{column.low} to {column.high}"
        wrong |= np.isinf(values.to_numpy(dtype=float, na_value=np.nan))

    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        got = values.iloc[row]
        raise Mistake(f"column {column.name}, row {row}: expected {expected}, got {got}")


def _has_text(column: Column) -> bool:
    if isinstance(column, Number):
        return False
    return any(isinstance(level, str) for level in column.levels)
