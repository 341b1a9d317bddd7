"""Pictures of a tournament: the strategies against each thing that was varied, or side by side where nothing was."""

import io
from collections.abc import Sequence
from typing import Any, cast

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design", 2008, https://jfly.uni-koeln.de/color/, without the faint yellow.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_MARKERS = "os^Dv<>Phd*X"
_MOST_PANELS = 6
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e8ed",
    "text.parse_math": False,
}


def pictures(ranked: pd.DataFrame, axes: Sequence[str], metric: str) -> dict[str, bytes]:
    """Return {what it is drawn against: PNG}, one for each axis with several values, or the ``strategies`` alone.

    Args:
        ranked: As ``ranking.rank`` returns it.
        axes: Its axes.
        metric: The name of the metric.
    """
    several = [name for name in axes if name != "strategy" and ranked[name].nunique() > 1]
    found = {name: _against(ranked, name, [other for other in several if other != name], metric) for name in several}
    return found or {"strategies": _side_by_side(ranked, metric)}


@matplotlib.rc_context(_STYLE)
def _against(ranked: pd.DataFrame, axis: str, others: list[str], metric: str) -> bytes:
    """Draw the mean of every strategy with its interval against an axis, a panel for each of the other axes' values."""
    panels = list(ranked.groupby(others, sort=False)) if others else [((), ranked)]
    panels = panels[:_MOST_PANELS]
    values, strategies = list(dict.fromkeys(ranked[axis])), list(dict.fromkeys(ranked["strategy"]))
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(max(6.4, 3.6 * columns), 0.9 + 2.9 * rows), layout="constrained")
    grid = cast(Any, figure.subplots(rows, columns, sharey=True, squeeze=False)).flatten()
    for panel, (place, table) in zip(grid, panels, strict=False):
        for number, strategy in enumerate(strategies):
            own = table[table["strategy"] == strategy].set_index(axis).reindex(values)
            _line(panel, own, (number, len(strategies)), strategy, joined=_is_scale(values))
        panel.set_xticks(range(len(values)), values)
        panel.set_xlabel(axis)
        panel.set_title(", ".join(f"{name} {value}" for name, value in zip(others, place, strict=True)))
    for panel in grid[len(panels) :]:
        panel.set_visible(False)
    grid[0].set_ylabel(f"test {metric}, mean and 95 % interval of each")
    handles, labels = grid[0].get_legend_handles_labels()
    columns = max(1, int(11 * figure.get_figwidth() / (6 + max(map(len, labels)))))
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)), frameon=False)
    return _png(figure)


def _is_scale(values: Sequence[str]) -> bool:
    """Whether an axis' values are numbers, between which a line says something; ``none`` may be one of them."""
    try:
        return len([float(value) for value in values if value != "none"]) > 1
    except ValueError:
        return False


def _line(panel: Axes, own: pd.DataFrame, which: tuple[int, int], label: str, joined: bool) -> None:
    """Draw one strategy, the ``which`` of how many: side by side, so that intervals don't hide each other."""
    number, count = which
    places = np.arange(len(own)) + ((0.3 if joined else 0.6) * (number / max(1, count - 1) - 0.5) if count > 1 else 0.0)
    mean, low, high = (own[name].to_numpy(dtype=float) for name in ("mean", "low", "high"))
    reach = np.nan_to_num(np.stack([mean - low, high - mean]))
    panel.errorbar(
        places,
        mean,
        yerr=reach,
        label=label,
        color=_COLOURS[number % len(_COLOURS)],
        marker=_MARKERS[number % len(_MARKERS)],
        linestyle=("-" if number < len(_COLOURS) else "--") if joined else "none",
        linewidth=1.2,
        elinewidth=0.9,
        markersize=5,
    )


@matplotlib.rc_context(_STYLE)
def _side_by_side(ranked: pd.DataFrame, metric: str) -> bytes:
    """Draw every strategy's mean and interval in a line of its own, best on top, coloured by group."""
    figure = Figure(figsize=(7.2, 0.9 + 0.34 * len(ranked)), layout="constrained")
    panel = figure.subplots()
    for place, row in enumerate(ranked.to_dict("records")):
        colour = _COLOURS[(int(row["group"]) - 1) % len(_COLOURS)]
        if not np.isnan(row["low"]):
            panel.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.6)
        panel.plot([row["mean"]], [place], marker="o", color=colour, linestyle="none")
    panel.set_yticks(
        range(len(ranked)),
        [f"{name}  ({group})" for name, group in zip(ranked["strategy"], ranked["group"], strict=True)],
    )
    panel.set_ylim(len(ranked) - 0.5, -0.5)
    panel.set_xlabel(f"test {metric}, mean and 95 % interval of each; in brackets the group, by paired differences")
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()
