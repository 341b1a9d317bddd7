"""A task: what an institution wants to learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedsim.tables import Column

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Rows:
    """The rows of all institutions.

    Attributes:
        inputs: Model inputs, float32 (rows, ...), all finite.
        target: 0 or 1, float32 (rows,).
        site: The natural site of each row, str (rows,).
    """

    inputs: np.ndarray
    target: np.ndarray
    site: np.ndarray


@dataclass(frozen=True)
class Task:
    """Data, public ranges and model of one binary outcome; the loss is the log loss, the metric the AUC.

    Attributes:
        title: One line.
        outcome: What a target of 1 means.
        source: Authors, year, origin and licence of the data.
        columns: The features with their public ranges.
        load: Reads the data.
        model: Makes the model for a number of inputs; it maps (rows, inputs) to logits (rows, 1).
    """

    title: str
    outcome: str
    source: str
    columns: tuple[Column, ...]
    load: Callable[[], Rows]
    model: Callable[[int], nn.Module]
