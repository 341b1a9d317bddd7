"""Hold the rows of each site in the bins of a column: what a look at a table shows."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Scale = Literal["numbers", "dates", "levels"]


@dataclass(frozen=True)
class Histogram:
    """The rows of each site by the values of a column.

    Attributes:
        name: The column.
        role: ``outcome``, ``time`` or ``feature``.
        scale: ``numbers`` or ``dates`` in bins side by side, or ``levels``.
        labels: The text of each bin.
        apart: How many of the last bins are no part of the scale: missing values, other levels.
        counts: The number of rows, int64 (sites, bins).
        edges: The texts at the two ends of the scale; empty for levels.
        said: What is to be known of the column, in sentences.
    """

    name: str
    role: str
    scale: Scale
    labels: tuple[str, ...]
    apart: int
    counts: np.ndarray
    edges: tuple[str, str] = ("", "")
    said: tuple[str, ...] = ()


def scaled_text(value: float, scale: Scale) -> str:
    """Write a number, or the date of a number of days since 1970-01-01."""
    if scale == "dates":
        return str(np.datetime64(int(np.floor(value)), "D"))
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.6g}"
