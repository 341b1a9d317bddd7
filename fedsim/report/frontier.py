"""Draw the frontier of privacy and utility: a metric against epsilon, a line for each arm."""

import math
from typing import Any, cast

import matplotlib
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from fedsim import figures
from fedsim.report.chart_style import FAINT, STYLE
from fedsim.report.charts import ARMS, Inline, marker, panels, titled

_BESIDE = 1.16  # the factor on epsilon by which arms stand beside each other
_FAR = 2.2  # the factor from the largest epsilon to the place of what is not private
_NOT_PRIVATE = "not\nprivate"


@matplotlib.rc_context(STYLE)
def draw(frame: pd.DataFrame, metric: str) -> Inline:
    """Draw a metric of every arm at every epsilon, with its interval; what is not private stands on the right.

    Args:
        frame: A row for each arm and epsilon: arm, epsilon (None for not private), mean, low and high (NaN where there
            is no interval).
        metric: The label of the metric, such as ``AUC inside sites``.

    Raises:
        ValueError: There is no row.
    """
    if frame.empty:
        raise ValueError("expected a row for each arm and epsilon, got none")
    epsilons = sorted({float(value) for value in frame["epsilon"] if not _is_none(value)})
    far = epsilons[-1] * _FAR if epsilons else 1.0
    figure, panel = titled(f"{metric} against epsilon", 3.2)

    arms = [arm for arm in ARMS if (frame["arm"] == arm).any()]
    for number, arm in enumerate(arms):
        look = ARMS[arm]
        shift = _BESIDE ** (number - (len(arms) - 1) / 2)
        rows = cast(list[dict[str, Any]], frame[frame["arm"] == arm].to_dict("records"))
        rows.sort(key=lambda row: math.inf if _is_none(row["epsilon"]) else float(row["epsilon"]))
        line = []
        for row in rows:
            private = not _is_none(row["epsilon"])
            place = (float(row["epsilon"]) if private else far) * shift
            if private:
                line.append((place, row["mean"]))
            if pd.notna(row["low"]) and pd.notna(row["high"]):
                panel.plot([place, place], [row["low"], row["high"]], color=look.colour, linewidth=1.4)
            panel.plot([place], [row["mean"]], linestyle="none", zorder=3, **marker(arm, private))
        places = [place for place, _ in line]
        panel.plot(places, [mean for _, mean in line], color=look.colour, linestyle=look.line, zorder=2)

    panel.set_xscale("log")
    ticks = [*epsilons, *([far] if frame["epsilon"].map(_is_none).any() else [])]
    names = [figures.setting(round(epsilon, 2)) for epsilon in epsilons]
    panel.xaxis.set_major_locator(FixedLocator(ticks))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xticklabels([*names, *([_NOT_PRIVATE] if len(ticks) > len(names) else [])])
    panel.set_xlabel("epsilon (more private to the left)", color=FAINT)
    handles = []
    for arm in arms:
        look = ARMS[arm]
        handles.append(Line2D([], [], label=arm, color=look.colour, linestyle=look.line, marker=look.marker))
    figure.legend(handles=handles, loc="outside lower left", ncols=3, frameon=False, handlelength=3.2)
    return panels("frontier", {f"{metric} of every arm against epsilon, with its interval": figure})


def _is_none(value: object) -> bool:
    """Whether a row is of a training without privacy: pandas turns None among numbers into NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))
