"""Draw a tournament: the strategies against each axis that was varied, or side by side where nothing was."""

from collections.abc import Sequence
from typing import Any, cast

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsim.outcomes import metric_named
from fedsim.report.chart_style import COLOURS, MARKERS, STYLE, WIDTH, png

_MOST_PANELS = 6
_PANELS_A_ROW = 3
_LETTERS_AN_INCH = 11  # of a legend's text


def pictures(ranked: pd.DataFrame, axes: Sequence[str], metric: str) -> dict[str, bytes]:
    """Draw a PNG for each axis with several values, or one named ``strategies`` where there is none.

    Args:
        ranked: As ``ranking.rank`` returns it.
        axes: Its axes.
        metric: The name of the metric.

    Returns:
        {axis: PNG}, in the order of the axes.
    """
    varied = [name for name in axes if name != "strategy" and ranked[name].nunique() > 1]
    if not varied:
        return {"strategies": _side_by_side(ranked, metric)}

    drawn = {}
    for name in varied:
        others = [other for other in varied if other != name]
        drawn[name] = _against(ranked, name, others, metric)
    return drawn


@matplotlib.rc_context(STYLE)
def _against(ranked: pd.DataFrame, axis: str, others: list[str], metric: str) -> bytes:
    """Draw the mean of every strategy with its interval against an axis.

    There is a panel for each combination of the other axes' values, up to ``_MOST_PANELS``.
    """
    panels = list(ranked.groupby(others, sort=False)) if others else [((), ranked)]
    panels = panels[:_MOST_PANELS]
    values = list(dict.fromkeys(ranked[axis]))
    strategies = list(dict.fromkeys(ranked["strategy"]))

    columns = min(_PANELS_A_ROW, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH, 0.9 + 2.9 * rows), layout="constrained")
    grid = cast(Any, figure.subplots(rows, columns, sharey=True, squeeze=False)).flatten()

    for panel, (place, table) in zip(grid, panels, strict=False):
        for number, strategy in enumerate(strategies):
            figures = table[table["strategy"] == strategy].set_index(axis).reindex(values)
            _line(panel, figures, (number, len(strategies)), strategy, joined=_is_scale(values))
        panel.set_xticks(range(len(values)), values)
        panel.set_xlim(-0.5, len(values) - 0.5)
        panel.set_xlabel(axis)
        panel.set_title(", ".join(f"{name} {value}" for name, value in zip(others, place, strict=True)))

    # Places of the grid that are left over.
    for panel in grid[len(panels) :]:
        panel.set_visible(False)

    grid[0].set_ylabel(f"test {metric_named(metric).label}, mean and 95 % interval of each")
    handles, labels = grid[0].get_legend_handles_labels()
    longest = 6 + max(map(len, labels))
    fit = max(1, int(_LETTERS_AN_INCH * figure.get_figwidth() / longest))
    figure.legend(handles, labels, loc="outside lower center", ncols=min(fit, len(labels)), frameon=False)
    return png(figure)


def _is_scale(values: Sequence[str]) -> bool:
    """Whether an axis' values are numbers, between which a line says something; ``none`` may be one of them."""
    try:
        numbers = [float(value) for value in values if value != "none"]
    except ValueError:
        return False
    return len(numbers) > 1


def _line(panel: Axes, figures: pd.DataFrame, which: tuple[int, int], label: str, joined: bool) -> None:
    """Draw a strategy, number ``which[0]`` of ``which[1]``; its marks stand beside those of the others."""
    number, count = which

    # Strategies are spread around each value of the axis, so that their intervals don't hide each other.
    width = 0.3 if joined else 0.4
    shift = width * (number / (count - 1) - 0.5) if count > 1 else 0.0
    places = np.arange(len(figures)) + shift

    mean, low, high = (figures[name].to_numpy(dtype=float) for name in ("mean", "low", "high"))
    reach = np.nan_to_num(np.stack([mean - low, high - mean]))
    line = "-" if number < len(COLOURS) else "--"
    panel.errorbar(
        places,
        mean,
        yerr=reach,
        label=label,
        color=COLOURS[number % len(COLOURS)],
        marker=MARKERS[number % len(MARKERS)],
        linestyle=line if joined else "none",
        linewidth=1.2,
        elinewidth=0.9,
        markersize=5,
    )


@matplotlib.rc_context(STYLE)
def _side_by_side(ranked: pd.DataFrame, metric: str) -> bytes:
    """Draw every strategy's mean and interval in a line of its own, the best on top, coloured by group."""
    figure = Figure(figsize=(WIDTH, 0.9 + 0.34 * len(ranked)), layout="constrained")
    panel = figure.subplots()
    for place, row in enumerate(ranked.to_dict("records")):
        number = int(row["group"]) - 1
        colour = COLOURS[number % len(COLOURS)]
        if not np.isnan(row["low"]):
            panel.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.8)
        panel.plot([row["mean"]], [place], marker=MARKERS[number % len(MARKERS)], color=colour, linestyle="none")

    labels = [f"{name}  (group {group})" for name, group in zip(ranked["strategy"], ranked["group"], strict=True)]
    panel.set_yticks(range(len(ranked)), labels)
    panel.set_ylim(len(ranked) - 0.5, -0.5)
    panel.set_xlabel(f"test {metric_named(metric).label}, mean and 95 % interval of each strategy")
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)
    return png(figure)
