"""Define a task: the data, public ranges and model of the outcome that institutions learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedsim.data.form import ImageForm, TableForm
from fedsim.data.inputs import Input, pack
from fedsim.data.tables import Column, Number
from fedsim.mistakes import Mistake
from fedsim.outcomes import declare, outcome_of
from fedsim.outcomes.outcome import Outcome
from fedsim.scenario.kinds import Kind

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


SITE = "site"  # the attribute of which each site is a group: no other may have this name


@dataclass(frozen=True)
class Rows:
    """The rows of all institutions.

    Attributes:
        inputs: Model inputs, float32 (rows, ...), all finite; or int64 (rows, ...) for a model that begins with an
            embedding.
        target: What its kind of outcome takes (``fedsim.outcomes``): 0 or 1, float32 (rows,); class numbers from 0 on,
            int64 (rows,); numbers scaled to [-1, 1] by the outcome's public range, float32 (rows,); or (rows, ...) of
            other kinds.
        site: The natural site of each row, str (rows,).
        time: The moment at which each row was observed, float64 (rows,): any number that grows
            with time, e.g. days.
        groups: {protected attribute: its value for each row, str (rows,)}.
    """

    inputs: np.ndarray
    target: np.ndarray
    site: np.ndarray
    time: np.ndarray | None = None
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Given:
    """The rows of all institutions as a task may load them, in place of ``Rows``.

    Attributes:
        inputs: Model inputs, (rows, ...); or {name: values (rows, ...)} of a task that declares its inputs by name.
        target: The targets, (rows, ...); None for a kind of outcome that needs none.
        site: As in ``Rows``.
        time: As in ``Rows``.
        groups: As in ``Rows``.
    """

    inputs: np.ndarray | Mapping[str, np.ndarray]
    target: np.ndarray | None
    site: np.ndarray
    time: np.ndarray | None = None
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)


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
            classes), or (rows, 1) of a number; other kinds say what they take. With inputs by name it is made without
            arguments, and takes them by name.
        load: Reads the data: ``Rows``, or ``Given`` with inputs by name or without targets.
        make: Makes the rows of a site by its number, when they are needed, in place of ``load``.
        kind: The kind of outcome: ``binary``, one of several ``classes``, a ``number``, ``multi-label``, ``numbers``,
            ``next-token``, ``reconstruction`` or ``contrastive``.
        own: A kind of the task's own in place of these (``fedsim.outcomes.own.OwnKind``); ``kind`` is its name then.
        range: The public range of a number, with its unit; a number needs it, other kinds have
            none.
        by_time: Whether rows are split by time: the latest rows of a site are always its test
            rows, and those before them its validation rows.
        horizon: The time a row's target looks ahead, in units of ``Rows.time``: rows whose time is
            within it before the next part begins are left out.
        licence: The licence of the data.
        needs_path: Whether ``load`` takes the scenario's ``data.path``, or None.
        read: Reads the rows of one institution from a file of its own, for sites that keep their rows to themselves.
        tables: Returns such files of the data that come with the task, {site: table}, for rehearsals.
        form: The form of the rows in a file, for exported models; None if it can't be described, or if rows have no
            file. Then an exported model takes the inputs as the model gets them.
        classes: The names of the classes, where they have names other than their numbers.
        inputs: The inputs of a row by name, where the model takes several.
    """

    title: str
    outcome: str
    source: str
    columns: tuple[Column, ...]
    model: Callable[..., nn.Module]
    load: Callable[..., Rows | Given] | None = None
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
    inputs: tuple[Input, ...] = ()
    own: Outcome | None = None

    def __post_init__(self) -> None:
        if self.own is not None:
            declare(self.own)
            object.__setattr__(self, "kind", self.own.name)
        if outcome_of(self.kind).has_range != (self.range is not None):
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
        given = self.load(path) if self.needs_path else self.load()
        return self.settled(given) if isinstance(given, Given) else given

    def settled(self, given: Given) -> Rows:
        """Return rows with their inputs in one array and with targets.

        Raises:
            Mistake: The inputs are not those that the task declares, or targets are missing.
        """
        place = f"task {self.title!r}"
        inputs = given.inputs
        if isinstance(inputs, Mapping):
            inputs = pack(place, self.inputs, inputs)
        elif self.inputs:
            raise Mistake(f"{place}: expected inputs by name, since it declares them, got an array")

        outcome = outcome_of(self.kind)
        if outcome.has_target != (given.target is not None):
            expected = "targets" if outcome.has_target else "no targets"
            raise Mistake(f"{place}: expected {expected} with kind {self.kind!r}")
        target = given.target
        if target is None:
            flat = inputs.reshape(len(inputs), -1).astype(np.float32)
            target = flat if outcome.of_inputs else np.zeros(len(inputs), np.float32)
        return Rows(inputs, target, given.site, given.time, given.groups)
