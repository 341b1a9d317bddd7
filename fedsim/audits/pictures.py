"""The picture of an audit: a record, and what an attacker made of the update that came of it."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsim import figures
from fedsim.audits.finding import RebuiltRecord
from fedsim.data.tables import Column
from fedsim.report.chart_style import STYLE, WIDTH, png

_LARGEST = 80  # inputs that fit into a strip


def names_of(columns: Sequence[Column], inputs: int) -> list[str]:
    """Name each input of a table's record; by its number where the columns don't tell."""
    names = []
    for column in columns:
        levels = getattr(column, "levels", ())
        if levels:
            names += [f"{column.name} {figures.level(level)}" for level in levels]
        elif column.missing:
            names += [column.name, f"{column.name} missing"]
        else:
            names.append(column.name)
    if len(names) != inputs:
        return [str(number) for number in range(inputs)]
    return names


def draw_records(rebuilt: Mapping[str, RebuiltRecord]) -> bytes:
    """Draw a record and its reconstructions under their titles: a PNG.

    Args:
        rebuilt: {circumstances, such as ``with privacy``: the record and its reconstruction}.
    """
    first = next(iter(rebuilt.values()))
    pictures = {"a record, as the model sees it": first.record}
    for title, pair in rebuilt.items():
        pictures[f"rebuilt from its update alone, {title}"] = pair.rebuilt
    return side_by_side(pictures, first.names)


@matplotlib.rc_context(STYLE | {"axes.grid": False})
def side_by_side(pictures: Mapping[str, np.ndarray], names: Sequence[str]) -> bytes:
    """Draw records under their titles: strips of a table's inputs, or images (channels, height, width)."""
    first = next(iter(pictures.values()))
    fits_a_strip = first.ndim == 1 and len(first) <= _LARGEST
    figure = _strips(pictures, names) if fits_a_strip else _images(pictures)
    return png(figure)


def _strips(pictures: Mapping[str, np.ndarray], names: Sequence[str]) -> Figure:
    figure = Figure(figsize=(WIDTH, 0.75 * len(pictures) + 1.4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(len(pictures), 1, sharex=True))
    for axis, (title, values) in zip(axes, pictures.items(), strict=True):
        axis.imshow(values[None], cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
        axis.set_title(title)
        axis.set_yticks([])
    axes[-1].set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    return figure


def _images(pictures: Mapping[str, np.ndarray]) -> Figure:
    figure = Figure(figsize=(WIDTH, WIDTH / len(pictures) + 0.5), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(pictures)))
    for axis, (title, values) in zip(axes, pictures.items(), strict=True):
        _image(axis, title, values)
    return figure


def _image(axis: Axes, title: str, values: np.ndarray) -> None:
    pixels = values if values.ndim == 3 else values.reshape(1, -1, values.shape[-1])  # (channels, height, width)
    low = float(pixels.min())
    high = float(pixels.max())
    scaled = (pixels - low) / max(high - low, 1e-9)
    is_coloured = len(scaled) == 3
    axis.imshow(scaled.transpose(1, 2, 0) if is_coloured else scaled.mean(0), cmap="gray")
    axis.set_title(title)
    axis.set_axis_off()
