"""Describe how the rows of an institution's file become the inputs of a model.

An exported model takes this along, so that it predicts from columns as they stand in such a file. Columns that are
computed from others are computed by NumPy's functions (``np.log10(raw["income"] + 1)``), which an export follows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from fedsim.data.tables import Column

if TYPE_CHECKING:
    import pandas as pd


class RawColumns(Protocol):
    """The columns of a file by their names: a frame, or a mapping."""

    def __getitem__(self, name: str, /) -> Any: ...  # noqa: ANN401  all that NumPy computes with


Derive = Callable[[RawColumns], Mapping[str, Any]]
"""Computes {column of the task: its values} from {column of the file: its values}.

The values are anything that NumPy computes with. Of them it may take sums, differences, products, quotients,
logarithms, sizes, the lesser or greater of two, slices, and products with matrices.
"""


@dataclass(frozen=True)
class Windows:
    """A model that predicts from the latest rows of a series.

    Attributes:
        by: The column that names the series of a row.
        order: The column with the moment of a row: a number or a date.
        length: The number of rows that a prediction needs.
        ahead: The number of rows at the end of a series whose outcome is not known yet, so that training leaves their
            windows out.
    """

    by: str
    order: str
    length: int
    ahead: int


@dataclass(frozen=True)
class TableForm:
    """A task whose rows are those of a table.

    Attributes:
        read: Reads the table as published, with the rows that the task loads, in their order.
        columns: The columns of the table that a prediction needs. One that others are computed from has an unbounded
            range.
        derive: Computes the task's columns; None where the table has them.
        windows: The rows of a prediction; None where it is one.
    """

    read: Callable[[], pd.DataFrame]
    columns: tuple[Column, ...]
    derive: Derive | None = None
    windows: Windows | None = None


@dataclass(frozen=True)
class ImageForm:
    """A task whose rows are grey images, with brightness 0 to 255 as inputs in [-1, 1]."""
