"""Define a task: the data, public ranges and model of the outcome that institutions learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedsim.data.form import ImageForm, TableForm
from fedsim.data.tables import Column, Number
from fedsim.mistakes import Mistake
from fedsim.scenario.kinds import Kind

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


SITE = "site"  # the attribute of which each site is a group: no other may have this name


@dataclass(frozen=True)
class Rows:
    """The rows of all institutions.

    Attributes:
        inputs: Model inputs, float32 (rows, ...), all finite.
        target: 0 or 1, float32 (rows,); class numbers from 0 on, int64 (rows,); or numbers scaled
            to [-1, 1] by the outcome's public range, float32 (rows,).
        site: The natural site of each row, str (rows,).
        time: The moment at which each row was observed, float64 (rows,): any number that grows
            with time, e.g. days.
        groups: {protected attribute: its value for each row, str (rows,)}.
        person: The person of each row, str or int (rows,), where persons may have several rows. The rows with one
            name at one natural site are one person; equal names at two sites may be two persons.
    """

    inputs: np.ndarray
    target: np.ndarray
    site: np.ndarray
    time: np.ndarray | None = None
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)
    person: np.ndarray | None = None


Make = Callable[[int], tuple[np.ndarray, np.ndarray]]
"""Makes the inputs and the target of a site from the site's number."""


@dataclass(frozen=True)
class Task:
    """The data, public ranges and model of an outcome.

    Attributes:
        title: A title of one line.
        outcome: The meaning of a target of 1, of the classes, or of the number.
        source: Authors, year and origin of the data.
        columns: The features with their public ranges.
        model: Makes the model for the shape of a row, e.g. ``model(30)`` or ``model(3, 32, 32)``.
            The model maps (rows, ...) to outputs: logits (rows, 1) of a binary outcome or (rows,
            classes), or (rows, 1) of a number.
        load: Reads the data.
        make: Makes the rows of a site by its number, when they are needed, in place of ``load``.
        kind: The kind of outcome: ``binary``, one of several ``classes``, or a ``number``.
        range: The public range of a number, with its unit; a number needs it, other kinds have
            none.
        by_time: Whether rows are split by time: the latest rows of a site are always its test
            rows, and those before them its validation rows. Rows of a person who has rows in a
            later part are left out.
        horizon: The time a row's target looks ahead, in units of ``Rows.time``: rows whose time is
            within it before the next part begins are left out.
        licence: The licence of the data.
        needs_path: Whether ``load`` takes the scenario's ``data.path``, or None.
        read: Reads the rows of one institution from a file of its own, for sites that keep their rows to themselves.
        tables: Returns such files of the data that come with the task, {site: table}, for rehearsals.
        form: The form of the rows in a file, for exported models; None if it can't be described, or if rows have no
            file. Then an exported model takes the inputs as the model gets them.
        classes: The names of the classes, where they have names other than their numbers.
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
    read: Callable[[Path], Rows] | None = None
    tables: Callable[[], Mapping[str, pd.DataFrame]] | None = None
    form: TableForm | ImageForm | None = None
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.kind == "number") != (self.range is not None):
            expected = "the outcome's public range with kind 'number' and only there"
            raise Mistake(f"task {self.title!r}: expected {expected}")
        if self.range is not None and self.range.log:
            expected = "an outcome on its own scale, and log for features only"
            raise Mistake(f"task {self.title!r}: expected {expected}")
        if (self.load is None) == (self.make is None):
            raise Mistake(f"task {self.title!r}: expected load or make, and not both")

    @property
    def row_shape(self) -> tuple[int, ...] | None:
        """The shape of a row's inputs, where the columns declare it."""
        return (sum(column.width for column in self.columns),) if self.columns else None

    def rows(self, path: Path | None = None) -> Rows:
        """Read the data.

        Raises:
            Mistake: There are no rows to read, or they can't be read.
        """
        if self.load is None:
            expected = "a task with rows of its own"
            raise Mistake(f"task {self.title!r}: expected {expected}, its sites are made up")
        if self.needs_path:
            return self.load(path)
        return self.load()
