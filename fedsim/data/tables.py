"""From a table of columns to model inputs, without fitting anything on the rows.

Every range and every list of levels is public: declared with the task, not measured on anybody's data. So encoding
costs no privacy, needs no extra round, and gives the same columns at a site that lacks a measurement altogether.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from fedsim.mistakes import Mistake


@dataclass(frozen=True)
class Number:
    """A number with a public range; values outside are clipped to it.

    Encoded as one input in [-1, 1]; if it may be missing, as a second one that is 1 where it is (the first is then 0).
    """

    name: str
    low: float
    high: float
    unit: str = ""
    missing: bool = False

    def encode(self, values: pd.Series) -> np.ndarray:
        """Return float inputs (rows, 1) or, if the column may be missing, (rows, 2)."""
        scaled = self.scaled(values)
        inputs = [scaled.fillna(0.0), values.isna()] if self.missing else [scaled]
        return np.stack([np.asarray(column, dtype=np.float32) for column in inputs], axis=1)

    def scaled(self, values: pd.Series) -> pd.Series:
        """Return numbers clipped to the range and scaled to [-1, 1]; the target of a number task is made so, too."""
        return (values.astype(float).clip(self.low, self.high) - self.low) / self.scale - 1

    @property
    def scale(self) -> float:
        """How much of the unit one unit of a scaled number is."""
        return (self.high - self.low) / 2

    def in_units(self, scaled: float) -> float:
        """Return a scaled number in its unit."""
        return self.low + (scaled + 1) * self.scale


@dataclass(frozen=True)
class Levels:
    """A category with public levels: an input for each, 1 where the value is that level; all 0 where it is missing."""

    name: str
    levels: tuple[float, ...] | tuple[str, ...]
    meaning: str = ""
    missing: bool = False

    def encode(self, values: pd.Series) -> np.ndarray:
        """Return float inputs (rows, levels)."""
        return np.stack([np.asarray(values == level, dtype=np.float32) for level in self.levels], axis=1)


Column = Number | Levels


def encode(frame: pd.DataFrame, columns: tuple[Column, ...]) -> np.ndarray:
    """Return the model inputs of a table, float32 (rows, inputs), all finite.

    Raises:
        Mistake: A column is not there, holds text where numbers are expected, lacks a value it may not lack, or has a
            category that is not one of its public levels.
    """
    absent = [column.name for column in columns if column.name not in frame]
    if absent:
        raise Mistake(f"expected the columns {', '.join(absent)}, got only {', '.join(map(str, frame.columns))}")
    for column in columns:
        _check(frame[column.name], column)
    return np.concatenate([column.encode(frame[column.name]) for column in columns], axis=1)


def _check(values: pd.Series, column: Column) -> None:
    text = isinstance(column, Levels) and any(isinstance(level, str) for level in column.levels)
    if not text and not pd.api.types.is_numeric_dtype(values):
        raise Mistake(f"column {column.name}: expected numbers, got {values.dtype}")
    wrong = values.isna().to_numpy() & (not column.missing)
    if isinstance(column, Levels):
        wrong |= ~(values.isin(column.levels) | values.isna()).to_numpy()
    else:
        wrong |= np.isinf(values.to_numpy(dtype=float, na_value=np.nan))
    if wrong.any():
        expected = f"one of {column.levels}" if isinstance(column, Levels) else f"{column.low} to {column.high}"
        row = int(np.flatnonzero(wrong)[0])
        raise Mistake(f"column {column.name}, row {row}: expected {expected}, got {values.iloc[row]}")
