"""Read the rows that an exported model is to predict: each column checked as training checks it, all faults at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fedsim.data.form import Windows
from fedsim.data.npz import read_npz
from fedsim.data.own_table import cleaning, frames
from fedsim.data.own_table.cleaning import Cells
from fedsim.data.own_table.images.files import Named, read_pictures
from fedsim.data.own_table.prepared import Faults
from fedsim.data.own_table.reading import Table, read_table
from fedsim.data.tables import Levels
from fedsim.exporting.inputs import Inputs, RawColumn
from fedsim.mistakes import Mistake

_IMAGES = (".png", ".jpg", ".jpeg")
_MEDMNIST = ("train_images", "val_images", "test_images")


@dataclass(frozen=True)
class RawRows:
    """Rows to predict.

    Attributes:
        arrays: {input of the model: its values, (rows, ...)}.
        about: What names each row: its number in the file, its series and moment, or its image.
        notes: Notes on values that were cut to a range or read otherwise than they stand there.
    """

    arrays: Mapping[str, np.ndarray]
    about: pd.DataFrame
    notes: tuple[str, ...] = ()


def read_rows(inputs: Inputs, rows: str | Path | pd.DataFrame) -> RawRows:
    """Read the rows of a file or a frame, or images by their path.

    Raises:
        Mistake: They are not such as the model needs: all faults.
    """
    if inputs.kind == "table":
        table = read_table(Path(rows)) if isinstance(rows, str | Path) else frames.table_of(rows)
        return rows_of_table(inputs, table)
    if not isinstance(rows, str | Path):
        raise Mistake("rows: expected the path of images, got a frame")
    if not Path(rows).exists():
        raise Mistake(f"{rows}: expected images, there is no such file or folder")
    return rows_of_images(inputs, Path(rows))


def rows_of_table(inputs: Inputs, table: Table, known_only: bool = False) -> RawRows:
    """Convert the rows of a table.

    Args:
        inputs: The inputs of the model.
        table: The table; columns that the model does not take are left aside.
        known_only: Whether to leave out the windows at the end of a series, whose outcome is not known yet.

    Raises:
        Mistake: Columns are lacking or hold something else: all faults.
    """
    windows = inputs.windows
    needed = [column.name for column in inputs.columns]
    if windows:
        needed += [windows.by, windows.order]
    absent = [name for name in needed if name not in table.columns]
    faults = Faults()
    if absent:
        with faults.collected():
            raise Mistake(f"{table.name}: expected the columns {', '.join(needed)}, it has no {', '.join(absent)}")

    there = [column for column in inputs.columns if column.name in table.columns]
    cells = {column.name: _cells(table, column) for column in there}
    file_mark = inputs.file_mark or cleaning.file_mark_of(list(cells.values()))
    arrays: dict[str, np.ndarray] = {}
    notes: list[str] = []
    for column in there:
        with faults.collected():
            values, told = _converted(cells[column.name], column, file_mark)
            arrays[column.name] = values
            notes += told
    about = pd.DataFrame({"row": table.rows})
    if windows is None or absent:
        faults.raise_all()
        return RawRows(arrays, about, tuple(notes))

    by = np.zeros(0)
    order = np.zeros(0)
    with faults.collected():
        by, order = _series(table, windows)
    faults.raise_all()
    return _windows(table, windows, arrays, by, order, notes, known_only)


def _cells(table: Table, raw: RawColumn) -> Cells:
    levels = raw.column.levels if isinstance(raw.column, Levels) else ()
    return cleaning.cells_of(table, raw.name, raw.options, levels)


def _converted(cells: Cells, raw: RawColumn, file_mark: str) -> tuple[np.ndarray, list[str]]:
    """Convert a column to what the model takes: numbers, NaN where missing, or texts, empty where missing."""
    if not isinstance(raw.column, Levels) and len(cells.known_texts):
        kind = cleaning.recognized(cells, file_mark).kind
        if (kind == "dates") != raw.is_date:
            raise cells.wrong(cells.known, "dates" if raw.is_date else "numbers")
    series, notes = cleaning.typed(cells, raw.column, file_mark, raw.origin)
    if pd.api.types.is_numeric_dtype(series):
        return series.to_numpy(np.float64), notes
    return np.array(["" if value is None else str(value) for value in series], dtype=object), notes


def _series(table: Table, windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """Return the series of each row, str (rows,), and its moment, float64 (rows,).

    Raises:
        Mistake: Some row has none of them.
    """
    by = cleaning.cells_of(table, windows.by)
    order = cleaning.cells_of(table, windows.order)
    for cells, expected in ((by, "the name of a series"), (order, "a moment")):
        if cells.rows_missing().any():
            raise cells.nothing(expected)
    return cleaning.names(by), cleaning.times(order)


def _windows(
    table: Table,
    windows: Windows,
    arrays: Mapping[str, np.ndarray],
    by: np.ndarray,
    order: np.ndarray,
    notes: list[str],
    known_only: bool,
) -> RawRows:
    """Cut the rows into windows, (windows, length), series by series and in order of time.

    Raises:
        Mistake: No series is long enough.
    """
    sorted_rows = np.lexsort((order, by))
    parts = []  # the row numbers of windows, (windows, length)
    short = []
    for name in np.unique(by):
        own = sorted_rows[by[sorted_rows] == name]
        if len(own) < windows.length:
            short.append(str(name))
            continue
        of_series = np.lib.stride_tricks.sliding_window_view(own, windows.length)
        parts.append(of_series[: -windows.ahead] if known_only else of_series)
    if not parts:
        expected = f"at least {windows.length} rows of one {windows.by}"
        raise Mistake(f"{table.name}: expected {expected}, got fewer of each")
    if short:
        notes = [*notes, f"too short to predict, with fewer than {windows.length} rows: {', '.join(short)}"]

    places = np.concatenate(parts)
    cut = {name: values[places] for name, values in arrays.items()}
    last = places[:, -1]
    moments = np.array(table.columns[windows.order].texts, dtype=object)[table.columns[windows.order].codes]
    about = pd.DataFrame({"row": table.rows[last], windows.by: by[last], windows.order: moments[last]})
    return RawRows(cut, about, tuple(notes))


def rows_of_images(inputs: Inputs, path: Path) -> RawRows:
    """Read images: a PNG or JPEG file, a folder of them, or an ``.npz`` with ``images`` or in MedMNIST's format.

    Raises:
        Mistake: There are none, or they are not as the model needs them.
    """
    if path.suffix == ".npz":
        pixels = _from_npz(path)
        if pixels.shape[1:] != inputs.shape or pixels.dtype != np.uint8:
            expected = f"images uint8 (rows, {', '.join(map(str, inputs.shape))})"
            raise Mistake(f"{path}: expected {expected}, got {pixels.dtype} {pixels.shape}")
        return RawRows({"image": pixels}, pd.DataFrame({"row": np.arange(len(pixels))}))

    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in _IMAGES)
    if not files:
        raise Mistake(f"{path}: expected PNG or JPEG files, there are none")
    names = [file.name if file == path else file.relative_to(path).as_posix() for file in files]
    has_channels = len(inputs.shape) == 3
    channels = inputs.shape[0] if has_channels else 1
    height, width = inputs.shape[-2:]
    named = [Named(name, file) for name, file in zip(names, files, strict=True)]
    pictures = read_pictures(named, (height, width), channels)
    pixels = pictures.pixels if has_channels else pictures.pixels[:, 0]
    return RawRows({"image": pixels}, pd.DataFrame({"image": names}), tuple(pictures.notes()))


def _from_npz(path: Path) -> np.ndarray:
    for names in (("images",), _MEDMNIST):
        try:
            arrays = read_npz(path, names)
        except KeyError:
            continue
        except (OSError, ValueError) as error:
            if isinstance(error, Mistake):
                raise
            raise Mistake(f"{path}: expected an .npz of images, got: {error}") from None
        return np.concatenate([arrays[name] for name in names])
    raise Mistake(f"{path}: expected the array images, or {', '.join(_MEDMNIST)}, it has neither")
