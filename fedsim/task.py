"""A task: what an institution wants to learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedsim.losses import Kind
from fedsim.tables import Column

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Rows:
    """The rows of all institutions.

    Attributes:
        inputs: Model inputs, float32 (rows, ...), all finite.
        target: 0 or 1, float32 (rows,), or class numbers from 0 on, int64 (rows,).
        site: The natural site of each row, str (rows,).
    """

    inputs: np.ndarray
    target: np.ndarray
    site: np.ndarray


Make = Callable[[int], tuple[np.ndarray, np.ndarray]]
"""From the number of a site to its inputs and target."""


@dataclass(frozen=True)
class Task:
    """Data, public ranges and model of one outcome; the loss is the log loss, the metric the AUC.

    Attributes:
        title: One line.
        outcome: What a target of 1 means.
        source: Authors, year, origin and licence of the data.
        columns: The features with their public ranges.
        model: Makes the model for the shape of a row, e.g. ``model(30)`` or ``model(3, 32, 32)``; it maps (rows, ...)
            to logits: (rows, 1) of a binary outcome, else (rows, classes); then the AUC is the mean of each class's.
        load: Reads the data.
        make: Makes the rows of the site of a number, when they are needed, in place of ``load``.
        kind: Whether the outcome is ``binary`` or one of several ``classes``.
    """

    title: str
    outcome: str
    source: str
    columns: tuple[Column, ...]
    model: Callable[..., nn.Module]
    load: Callable[[], Rows] | None = None
    make: Make | None = None
    kind: Kind = "binary"
