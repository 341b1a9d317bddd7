"""The picture of an audit: a record, and what an attacker made of the update that came of it."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsim.data.tables import Column
from fedsim.report.chart_style import STYLE, WIDTH, png

_LARGEST = 80  # inputs that fit into a strip


def names_of(columns: Sequence[Column], inputs: int) -> list[str]:
    """Return a name for each input of a table's record; numbers where the columns don't tell."""
    names = []
    for column in columns:
        if levels := getattr(column, "levels", ()):
            names += [f"{column.name} {level:g}" for level in levels]
        else:
            names += [column.name, f"{column.name} missing"] if column.missing else [column.name]
    return names if len(names) == inputs else [str(number) for number in range(inputs)]


@matplotlib.rc_context(STYLE | {"axes.grid": False})
def side_by_side(pictures: dict[str, np.ndarray], names: list[str]) -> bytes:
    """Return a PNG of records under their titles: strips of a table's inputs, or images (channels, height, width)."""
    first = next(iter(pictures.values()))
    if first.ndim == 1 and len(first) <= _LARGEST:
        figure = Figure(figsize=(WIDTH, 0.75 * len(pictures) + 1.4), layout="constrained")
        axes = figure.subplots(len(pictures), 1, sharex=True)
        for axis, (title, values) in zip(np.atleast_1d(axes), pictures.items(), strict=True):
            _strip(axis, title, values)
        np.atleast_1d(axes)[-1].set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    else:
        figure = Figure(figsize=(WIDTH, WIDTH / len(pictures) + 0.5), layout="constrained")
        for axis, (title, values) in zip(figure.subplots(1, len(pictures)), pictures.items(), strict=True):
            _image(axis, title, values)
    return png(figure)


def _strip(axis: Axes, title: str, values: np.ndarray) -> None:
    axis.imshow(values[None], cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    axis.set_title(title)
    axis.set_yticks([])


def _image(axis: Axes, title: str, values: np.ndarray) -> None:
    seen = values if values.ndim == 3 else values.reshape(1, -1, values.shape[-1])
    low, high = float(seen.min()), float(seen.max())
    scaled = (seen - low) / max(high - low, 1e-9)
    axis.imshow(scaled.transpose(1, 2, 0) if len(scaled) == 3 else scaled.mean(0), cmap="gray")
    axis.set_title(title)
    axis.set_axis_off()
