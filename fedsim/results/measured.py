"""Hold what ``metrics.json`` says of a run's models, beside the scores in its tables."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import pandas as pd

from fedsim.mistakes import Mistake

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
            table = _table(values.get(name, []), f"{place}: {name}")
            missing = [column for column in columns if len(table) and column not in table]
            if missing:
                raise Mistake(f"{place}: {name}: expected {', '.join(missing)} in each row")
            tables[name] = table
        return cls(threshold=values.get("threshold"), **tables)


def _table(rows: object, place: str) -> pd.DataFrame:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Mistake(f"{place}: expected a list of rows")
    return pd.DataFrame(rows)
