"""Hold what ``metrics.json`` says of a run's models, beside the scores in its tables."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import product
from typing import Any, cast

import pandas as pd

from fedsim.figures import as_written
from fedsim.mistakes import Mistake
from fedsim.results.columns import check_columns, training_in_words

_COLUMNS = {
    "base_rates": ("seed", "site", "answer"),
    "calibration": ("arm", "private", "seed", "bin", "rows", "said", "seen"),
    "confusion": ("arm", "private", "seed", "true", "named", "rows"),
    "coefficients": ("private", "output", "input", "unit", "per_input", "per_unit"),
    "references": ("reference", "learned_from", "seed", "site", "settings", "note"),
}
_KEYS = {
    "base_rates": ("seed", "site"),
    "calibration": ("arm", "private", "seed", "bin"),
    "confusion": ("arm", "private", "seed", "true", "named"),
    "coefficients": ("private", "output", "input"),
    "references": ("reference", "learned_from", "seed", "site"),
}
"""{table: the columns that tell its rows apart}."""


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
        references: A row for each model of scikit-learn beside the arms, what it learned from, seed and row of
            scores; see ``experiments.references``.
    """

    threshold: float | None = None
    base_rates: pd.DataFrame = field(default_factory=pd.DataFrame)
    calibration: pd.DataFrame = field(default_factory=pd.DataFrame)
    confusion: pd.DataFrame = field(default_factory=pd.DataFrame)
    coefficients: pd.DataFrame = field(default_factory=pd.DataFrame)
    references: pd.DataFrame = field(default_factory=pd.DataFrame)

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
        for name in _COLUMNS:
            tables[name] = _table(values.get(name, []), name, f"{place}: {name}")
        _check_square(tables["confusion"], f"{place}: confusion")
        threshold = values.get("threshold")
        if threshold is not None and (isinstance(threshold, bool) or not isinstance(threshold, int | float)):
            raise Mistake(f"{place}: threshold: expected a number, got {as_written(threshold)}")
        return cls(threshold=threshold, **tables)


def _table(rows: object, name: str, place: str) -> pd.DataFrame:
    """Make a table of rows from a file.

    Raises:
        Mistake: A row lacks a column, or a column holds something else than its name says.
    """
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Mistake(f"{place}: expected a list of rows")
    columns = _COLUMNS[name]
    for number, row in enumerate(rows):
        missing = [column for column in columns if column not in row]
        if missing:
            raise Mistake(f"{place}: expected {', '.join(missing)} in each row, row {number} lacks it")
    table = pd.DataFrame(rows)
    if rows:
        check_columns(table, columns, _KEYS[name], place)
    return table


def _check_square(confusion: pd.DataFrame, place: str) -> None:
    """Check that there is a row for each pair of classes.

    Raises:
        Mistake: One is missing, or is of another class.
    """
    if confusion.empty:
        return
    for training, rows in confusion.groupby(["arm", "private", "seed"]):
        classes = range(math.isqrt(len(rows)))
        pairs = set(zip(rows["true"], rows["named"], strict=True))
        if pairs != set(product(classes, repeat=2)):
            words = training_in_words(*cast(tuple[str, bool, int], training))
            raise Mistake(f"{place}: expected a row for each pair of classes from 0 on, {words} has others")
