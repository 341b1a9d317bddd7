"""A task: what an institution wants to learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedsim.data.tables import Column, Number
from fedsim.mistakes import Mistake
from fedsim.scenario.kinds import Kind

if TYPE_CHECKING:
    from torch import nn


SITE = "site"  # the attribute of which each site is a group: no other may have this name


@dataclass(frozen=True)
class Rows:
    """The rows of all institutions.

    Attributes:
        inputs: Model inputs, float32 (rows, ...), all finite.
        target: 0 or 1, float32 (rows,); class numbers from 0 on, int64 (rows,); or numbers scaled to [-1, 1] by the
            outcome's public range, float32 (rows,).
        site: The natural site of each row, str (rows,).
        time: When each row was observed, float64 (rows,): any number that grows with time, e.g. days.
        groups: {protected attribute: its value for each row, str (rows,)}.
    """

    inputs: np.ndarray
    target: np.ndarray
    site: np.ndarray
    time: np.ndarray | None = None
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)


Make = Callable[[int], tuple[np.ndarray, np.ndarray]]
"""From the number of a site to its inputs and target."""


@dataclass(frozen=True)
class Task:
    """Data, public ranges and model of one outcome.

    Attributes:
        title: One line.
        outcome: What a target of 1 means, what the classes are, or what the number is.
        source: Authors, year and origin of the data.
        columns: The features with their public ranges.
        model: Makes the model for the shape of a row, e.g. ``model(30)`` or ``model(3, 32, 32)``; it maps (rows, ...)
            to outputs: logits (rows, 1) of a binary outcome or (rows, classes), or (rows, 1) of a number.
        load: Reads the data.
        make: Makes the rows of the site of a number, when they are needed, in place of ``load``.
        kind: Whether the outcome is ``binary``, one of several ``classes``, or a ``number``.
        range: The public range of a number, with its unit; needed for a number and only there.
        by_time: Whether a site's latest rows are its test rows, and those before them its validation rows, always.
        horizon: How far a row's target looks ahead, in units of ``Rows.time``: rows whose time is within it before the
            next part begins are left out.
        licence: Of the data.
        needs_path: Whether ``load`` takes the scenario's ``data.path``, or None.
    """

    title: str
    outcome: str
    source: str
    columns: tuple[Column, ...]
    model: Callable[..., nn.Module]
    load: Callable[..., Rows] | None = None
    make: Make | None = None
    kind: Kind = "binary"
    range: Number | None = None
    by_time: bool = False
    horizon: float = 0.0
    licence: str = ""
    needs_path: bool = False

    def __post_init__(self) -> None:
        if (self.kind == "number") != (self.range is not None):
            raise Mistake(f"task {self.title!r}: expected the outcome's public range with kind 'number' and only there")
        if (self.load is None) == (self.make is None):
            raise Mistake(f"task {self.title!r}: expected load or make, and not both")

    def rows(self, path: Path | None = None) -> Rows:
        """Read the data.

        Raises:
            Mistake: There is none to read, or it is not what it should be.
        """
        if self.load is None:
            raise Mistake(f"task {self.title!r}: expected a task with rows of its own, its sites are made up")
        return self.load(path) if self.needs_path else self.load()
