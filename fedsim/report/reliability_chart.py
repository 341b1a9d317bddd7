"""Draw how often predicted probabilities come true: a reliability diagram, with the rows of each bin."""

from collections.abc import Sequence
from typing import Any, cast

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fedsim.report.chart_style import FAINT, PANEL, STYLE, Chart
from fedsim.report.charts import ARMS, PRIVACY, marker, panels
from fedsim.results.calibration import BINS

_FEW = 10  # rows of a bin, below which its share says little


@matplotlib.rc_context(STYLE)
def reliability(bins: pd.DataFrame, arms: Sequence[str], said: str, seen: str) -> str:
    """Draw the share of each bin's rows that came true, over the mean probability that was predicted for them.

    Args:
        bins: A row for each arm, private, seed and bin, as ``fedsim.results.calibration.reliability`` returns it; the
            rows of all seeds are added up.
        arms: The arms to draw.
        said: How to call the predicted probability.
        seen: How to call the share that came true.
    """
    kinds = [private for private in PRIVACY if (bins["private"] == private).any()]
    drawn = {}
    lower = []
    for private in kinds:
        figure = Chart(PANEL, 4.4)
        grid = cast(Any, figure.subplots(2, 1, sharex=True, height_ratios=[3, 1]))
        summed = bins[bins["private"] == private].groupby(["arm", "bin"])[["rows", "said", "seen"]].sum()
        of_kind = [arm for arm in arms if arm in summed.index.get_level_values("arm")]
        _diagram(grid[0], summed, of_kind, private)
        _rows(grid[1], summed, of_kind, private)
        lower.append(grid[1])
        grid[0].set_title(PRIVACY[private])
        grid[0].set_ylabel(seen)
        grid[1].set_xlabel(said)
        grid[1].set_ylabel("test rows")
        _legend(figure, of_kind)
        drawn[f"How often predicted probabilities come true {PRIVACY[private]}, for every arm"] = figure

    # Both kinds have one scale of rows.
    most = max(panel.get_ylim()[1] for panel in lower)
    for panel in lower:
        panel.set_ylim(0, most)
    return panels("reliability", drawn)


def _legend(figure: Figure, arms: Sequence[str]) -> None:
    handles = [
        Line2D([], [], label=arm, color=ARMS[arm].colour, linestyle=ARMS[arm].line, marker=ARMS[arm].marker)
        for arm in arms
    ]
    handles.append(Line2D([], [], label="as predicted", color=FAINT, linestyle=(0, (4, 3)), linewidth=1))
    figure.legend(handles=handles, loc="outside lower left", ncols=2, frameon=False, handlelength=3.2)


def _diagram(panel: Axes, summed: pd.DataFrame, arms: Sequence[str], private: bool) -> None:
    panel.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    for order, arm in enumerate(arms):
        of_arm = summed.loc[arm]
        of_arm = of_arm[of_arm["rows"] > 0]
        counts = of_arm["rows"].to_numpy(dtype=float)
        places = of_arm["said"].to_numpy(dtype=float) / counts
        shares = of_arm["seen"].to_numpy(dtype=float) / counts
        look = ARMS[arm]
        panel.plot(places, shares, color=look.colour, linestyle=look.line, linewidth=1.4, zorder=3 - order / 10)

        # A bin of few rows is faint.
        for place, share, rows in zip(places, shares, counts, strict=True):
            strength = 1.0 if rows >= _FEW else 0.35
            style: dict[str, Any] = marker(arm, private) | {"markersize": 4.8, "alpha": strength}
            panel.plot([place], [share], linestyle="none", zorder=4 - order / 10, **style)
    panel.set_xlim(0, 1)
    panel.set_ylim(-0.03, 1.03)


def _rows(panel: Axes, summed: pd.DataFrame, arms: Sequence[str], private: bool) -> None:
    """Draw the number of rows in each bin, a bar for each arm."""
    width = 0.8 / BINS / len(arms)
    for order, arm in enumerate(arms):
        of_arm = summed.loc[arm]
        lefts = (np.asarray(of_arm.index) + 0.1) / BINS + order * width
        colour = ARMS[arm].colour
        face = "#ffffff" if private else colour
        panel.bar(lefts, of_arm["rows"], width, align="edge", facecolor=face, edgecolor=colour, linewidth=0.8)
    panel.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    panel.grid(axis="x", visible=False)
