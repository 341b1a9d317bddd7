"""The inputs of an exported model, as its ``model.json`` describes them."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from fedsim.data.form import Windows
from fedsim.data.own_table.cleaning import Options
from fedsim.data.tables import Column, Levels, Number


@dataclass(frozen=True)
class RawColumn:
    """A column of a file that a prediction needs.

    Attributes:
        column: Its name, and its range or levels.
        options: How its values are written.
        origin: The day that is subtracted from dates, in days since 1970-01-01.
        is_date: Whether it holds dates; the model takes days since ``origin``.
    """

    column: Column
    options: Options = field(default_factory=Options)
    origin: float = 0.0
    is_date: bool = False

    @property
    def name(self) -> str:
        """The name."""
        return self.column.name


@dataclass(frozen=True)
class Inputs:
    """All inputs of a model.

    Attributes:
        kind: ``table``: an input for each column. ``images``: one input, ``image``, with brightness 0 to 255.
            ``encoded``: one input, ``inputs``, as the trained model gets it.
        columns: The columns of a table.
        windows: The rows of a table that a prediction needs; None where it is one.
        shape: The shape of an image or of a row of encoded inputs; empty for a table.
        file_mark: The notation of numbers that the file trained on shows; empty for a plain one.
    """

    kind: Literal["table", "images", "encoded"]
    columns: tuple[RawColumn, ...] = ()
    windows: Windows | None = None
    shape: tuple[int, ...] = ()
    file_mark: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return them as values for JSON."""
        return {
            "kind": self.kind,
            "columns": [_column_as_json(each) for each in self.columns],
            "windows": asdict(self.windows) if self.windows else None,
            "shape": list(self.shape),
            "file_mark": self.file_mark,
        }

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the inputs that ``as_json`` wrote.

        Raises:
            KeyError, TypeError, ValueError: They are no such inputs.
        """
        if values["kind"] not in ("table", "images", "encoded"):
            raise ValueError(f"no inputs are called {values['kind']!r}")
        return cls(
            kind=values["kind"],
            columns=tuple(_column_of(each) for each in values["columns"]),
            windows=Windows(**values["windows"]) if values["windows"] else None,
            shape=tuple(int(size) for size in values["shape"]),
            file_mark=str(values["file_mark"]),
        )


def _column_as_json(raw: RawColumn) -> dict[str, Any]:
    column = raw.column
    values: dict[str, Any] = {"name": column.name, "missing": column.missing}
    if isinstance(column, Levels):
        values |= {"levels": list(column.levels), "meaning": column.meaning}
    else:
        low, high = (None if math.isinf(end) else end for end in (column.low, column.high))
        values |= {"low": low, "high": high, "unit": column.unit, "log": column.log}
    options = raw.options
    values["missing_values"] = None if options.missing is None else list(options.missing)
    values["written"] = options.written
    values["read_as"] = dict(options.read_as)
    values["days_since"] = raw.origin if raw.is_date else None
    return values


def _column_of(values: Mapping[str, Any]) -> RawColumn:
    name = str(values["name"])
    missing = bool(values["missing"])
    if "levels" in values:
        column: Column = Levels(name, tuple(values["levels"]), str(values["meaning"]), missing)
    else:
        low = -math.inf if values["low"] is None else float(values["low"])
        high = math.inf if values["high"] is None else float(values["high"])
        column = Number(name, low, high, str(values["unit"]), missing, log=bool(values["log"]))
    words = values["missing_values"]
    options = Options(None if words is None else tuple(words), str(values["written"]), dict(values["read_as"]))
    days = values["days_since"]
    return RawColumn(column, options, 0.0 if days is None else float(days), days is not None)
