"""Hold what ``metrics.json`` says of a run's models, beside the scores in its tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import pandas as pd

from fedsim.figures import as_written
from fedsim.mistakes import Mistake

_TEXT = {"arm", "site", "input", "unit"}  # columns that hold text; all others hold numbers
_COLUMNS = {
    "base_rates": ("seed", "site", "answer"),
    "calibration": ("arm", "private", "seed", "bin", "rows", "said", "seen"),
    "confusion": ("arm", "private", "seed", "true", "named", "rows"),
    "coefficients": ("private", "output", "input", "unit", "per_input", "per_unit"),
}


@dataclass(frozen=True)
class Measured:
    """What was measured of a run's models. A table is empty where there is nothing to say.

    Attributes:
        threshold: From which probability on a row is called positive; None unless the outcome is
            binary.
        base_rates: A row for each seed and each row of scores that stands for all sites; see
            ``results.base_rates``.
        calibration: A row for each training and bin; see ``results.calibration``.
        confusion: A row for each training and pair of classes; see ``results.confusion``.
        coefficients: A row for each output and input of the model that is handed on; see
            ``results.coefficients``.
    """

    threshold: float | None = None
    base_rates: pd.DataFrame = field(default_factory=pd.DataFrame)
    calibration: pd.DataFrame = field(default_factory=pd.DataFrame)
    confusion: pd.DataFrame = field(default_factory=pd.DataFrame)
    coefficients: pd.DataFrame = field(default_factory=pd.DataFrame)

    @classmethod
    def of(cls, values: Mapping[str, Any], place: str) -> "Measured":
        """Read the values of ``metrics.json``.

        Args:
            values: Its values; keys that are not there have nothing to say.
            place: The file's path, for messages.

        Raises:
            Mistake: They are not as this version, or an older one, writes them.
        """
        known = {each.name for each in fields(cls)}
        if not isinstance(values, Mapping) or not set(values) <= known:
            raise Mistake(f"{place}: expected {', '.join(sorted(known))}, got something else")

        tables = {}
        for name, columns in _COLUMNS.items():
            tables[name] = _table(values.get(name, []), columns, f"{place}: {name}")
        threshold = values.get("threshold")
        if threshold is not None and not isinstance(threshold, int | float):
            raise Mistake(f"{place}: threshold: expected a number, got {as_written(threshold)}")
        return cls(threshold=threshold, **tables)


def _table(rows: object, columns: Sequence[str], place: str) -> pd.DataFrame:
    """Make a table of rows from a file.

    Raises:
        Mistake: A row lacks a column, or holds text where a number is expected.
    """
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Mistake(f"{place}: expected a list of rows")
    for number, row in enumerate(rows):
        missing = [column for column in columns if column not in row]
        if missing:
            raise Mistake(f"{place}: expected {', '.join(missing)} in each row, row {number} lacks it")
        for column, value in row.items():
            expected = str if column in _TEXT else int | float | None
            if not isinstance(value, expected):
                wanted = "text" if column in _TEXT else "a number"
                raise Mistake(f"{place}: {column} of row {number}: expected {wanted}, got {as_written(value)}")
    return pd.DataFrame(rows)
