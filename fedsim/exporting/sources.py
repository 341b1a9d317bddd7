"""Find the raw rows of a run's task: how they become the inputs of its model, and all of them to check that."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from fedsim.data import loading
from fedsim.data.form import Derive, ImageForm, TableForm
from fedsim.data.own_table import cleaning
from fedsim.data.own_table.cleaning import Cells
from fedsim.data.own_table.frames import table_of
from fedsim.data.own_table.notation import days_of
from fedsim.data.own_table.prepared import Faults, Usable, converted, usable
from fedsim.data.own_table.ranges import options_of, origin_of
from fedsim.data.tables import Column, Number
from fedsim.exporting.inputs import Inputs, RawColumn
from fedsim.exporting.raw_rows import rows_of_table
from fedsim.planning.trial import Trial

_DAYS_SINCE = "days since "


@dataclass(frozen=True)
class Source:
    """The rows of a task, raw and encoded.

    Attributes:
        inputs: The inputs of an exported model.
        columns: The columns that are encoded; empty for images and encoded inputs.
        derive: Computes them from the raw ones; None where they are those.
        arrays: {input: its values, (rows, ...)}.
        encoded: The same rows as training has them, float32 (rows, ...), not standardized.
    """

    inputs: Inputs
    columns: tuple[Column, ...]
    derive: Derive | None
    arrays: Mapping[str, np.ndarray]
    encoded: np.ndarray


def source_of(trial: Trial) -> Source:
    """Return the rows of a trial's task.

    Raises:
        Mistake: They are not there any more.
    """
    task = trial.task
    scenario = trial.scenario
    if task.load is None:
        made = trial.federation.sites[0].test.inputs.cpu().numpy()
        return _encoded(made)

    encoded = loading.rows_of(scenario).inputs
    if isinstance(task.form, TableForm):
        form = task.form
        raw_columns = tuple(RawColumn(column) for column in form.columns)
        inputs = Inputs("table", raw_columns, form.windows)
        rows = rows_of_table(inputs, table_of(form.read()), known_only=True)
        return Source(inputs, task.columns, form.derive, rows.arrays, encoded)
    if isinstance(task.form, ImageForm):
        return _images(encoded[:, 0], encoded)
    if scenario.task is not None:
        return _encoded(encoded)
    if scenario.data.is_of_images:
        return _images(encoded, encoded)
    return _own_table(trial, encoded)


def _encoded(rows: np.ndarray) -> Source:
    return Source(Inputs("encoded", shape=rows.shape[1:]), (), None, {"inputs": rows}, rows)


def _images(brightness: np.ndarray, encoded: np.ndarray) -> Source:
    """Return images, with their pixels from the inputs that were made of them, which loses nothing."""
    pixels = np.rint((brightness + 1) * 127.5).astype(np.uint8)
    return Source(Inputs("images", shape=pixels.shape[1:]), (), None, {"image": pixels}, encoded)


def _own_table(trial: Trial, encoded: np.ndarray) -> Source:
    data = trial.scenario.data
    used = usable(data)
    faults = Faults()
    features = converted(data, used, faults).features
    faults.raise_all(used.missing_ranges())

    raw_columns = tuple(_raw_column(used, column) for column in features.columns)
    inputs = Inputs("table", raw_columns, file_mark=used.file_mark)
    arrays = {name: _as_input(values) for name, values in features.values.items()}
    return Source(inputs, features.columns, None, arrays, encoded)


def _raw_column(used: Usable, column: Column) -> RawColumn:
    entry = used.declared.entries.get(column.name)
    cells = used.cells[column.name]
    options = options_of(column.name, entry, used.declared.place)
    if not isinstance(column, Number) or cleaning.recognized(cells, used.file_mark).kind != "dates":
        return RawColumn(column, options)

    # New rows may be so few that they don't show how dates are written.
    options = replace(options, written=options.written or _date_notation(cells))
    fitted_from = days_of(column.unit.removeprefix(_DAYS_SINCE)) if column.unit.startswith(_DAYS_SINCE) else None
    is_declared = isinstance(entry, dict) and "from" in entry
    origin = origin_of(entry) if is_declared or fitted_from is None else fitted_from
    return RawColumn(column, options, origin, is_date=True)


def _date_notation(cells: Cells) -> str:
    return next(iter(cells.dates))


def _as_input(values: pd.Series) -> np.ndarray:
    """Return a column as the model takes it: float64, NaN where missing; or text, empty where missing."""
    if pd.api.types.is_numeric_dtype(values):
        return values.to_numpy(np.float64)
    return np.array(["" if value is None else str(value) for value in values], dtype=object)
