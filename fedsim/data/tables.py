"""Encode a table of columns as model inputs, without fitting anything on the rows.

Every range and every list of levels is public: it is declared with the task and not measured on
anybody's data. So encoding costs no privacy, needs no extra round, and gives the same inputs at a
site that lacks a measurement altogether.
"""

import math
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

    Attributes:
        name: The column's name.
        low: The least value.
        high: The greatest value.
        unit: The unit.
        missing: Whether the number may be missing.
        mean: A typical value that is publicly known, by which training centres the number.
        spread: The usual distance from it that is publicly known: a standard deviation. On a
            logarithmic scale a factor above 1.
        log: Whether the scale is logarithmic; ``low`` is above 0 then.
    """

    name: str
    low: float
    high: float
    unit: str = ""
    missing: bool = False
    mean: float | None = None
    spread: float | None = None
    log: bool = False

    def __post_init__(self) -> None:
        place = f"column {self.name}"
        if self.log and self.low <= 0:
            expected = "a least value above 0 on a logarithmic scale"
            raise Mistake(f"{place}: expected {expected}, got {self.low:g}")
        if (self.mean is None) != (self.spread is None):
            given = "mean" if self.spread is None else "spread"
            raise Mistake(f"{place}: expected mean and spread or neither, got {given} alone")
        if self.mean is None or self.spread is None:
            return

        if not self.low <= self.mean <= self.high:
            expected = f"a mean from {self.low:g} to {self.high:g}"
            raise Mistake(f"{place}: expected {expected}, got {self.mean:g}")
        least = 1.0 if self.log else 0.0
        if not least < self.spread < math.inf:
            factor = ", a factor on a logarithmic scale," if self.log else ""
            expected = f"a spread{factor} above {least:g}"
            raise Mistake(f"{place}: expected {expected}, got {self.spread:g}")

    @property
    def width(self) -> int:
        """The number of inputs."""
        return 2 if self.missing else 1

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
        if self.log:
            logarithms = np.log(clipped.to_numpy() / self.low)
            return pd.Series(logarithms / self._half_log - 1, index=values.index)
        return (clipped - self.low) / self.scale - 1

    @property
    def scale(self) -> float:
        """The half width of the range: a scaled number of 1 is this much of the unit."""
        return (self.high - self.low) / 2

    def in_units(self, scaled: float) -> float:
        """Convert a scaled number to its unit."""
        if self.log:
            return self.low * math.exp((scaled + 1) * self._half_log)
        return self.low + (scaled + 1) * self.scale

    @property
    def _half_log(self) -> float:
        """Half the width of the range on a logarithmic scale."""
        return math.log(self.high / self.low) / 2

    @property
    def encoded_scale(self) -> tuple[float, float]:
        """The public mean and spread of scaled numbers; 0 and 1 where none are declared."""
        if self.mean is None or self.spread is None:
            return 0.0, 1.0
        mean = float(self.scaled(pd.Series([self.mean])).iloc[0])
        if self.log:
            return mean, math.log(self.spread) / self._half_log
        return mean, self.spread / self.scale


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

    @property
    def width(self) -> int:
        """The number of inputs."""
        return len(self.levels)

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
