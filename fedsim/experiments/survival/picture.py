"""Draw a survival curve with its band."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fedsim.report.chart_style import BLUE, PANEL, STYLE, png


@matplotlib.rc_context(STYLE)
def draw(curve: pd.DataFrame, title: str, unit: str, epsilon: float) -> bytes:
    """Return the curve as PNG: points at the ends of intervals, joined by lines.

    Args:
        curve: As ``curve_of`` returns it.
        title: The title.
        unit: The unit of time.
        epsilon: What the release costs a row.
    """
    figure = Figure(figsize=(1.4 * PANEL, 3.6), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=10)
    panel = figure.subplots()
    ends = np.concatenate([[0], curve["end"]])
    low, high, survival = (np.concatenate([[1], curve[column]]) for column in ("low", "high", "survival"))
    panel.fill_between(ends, low, high, color=BLUE, alpha=0.2, linewidth=0)
    panel.plot(ends, survival, "o-", color=BLUE, linewidth=1.8, markersize=4, clip_on=False)
    panel.set_ylim(0, 1.02)
    panel.set_xlim(0, ends[-1])
    panel.set_xticks(ends, [f"{end:g}" for end in ends])
    panel.set_xlabel(f"{unit}; the band holds the truth with 95 %, noise of epsilon {epsilon:g} included")
    panel.set_title("share without an event")
    return png(figure)
