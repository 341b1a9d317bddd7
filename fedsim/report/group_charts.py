"""Draw the groups of a run: a rate of each group, and its difference to everyone else."""

from collections.abc import Sequence
from typing import Any, cast

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedsim.outcomes.metric import Rate
from fedsim.report.chart_style import AXIS, FAINT, STYLE
from fedsim.report.charts import ARMS, PRIVACY, marker, panels, short, titled

_APART = 0.18  # of the two kinds of a group, in lines


@matplotlib.rc_context(STYLE)
def groups(harm: pd.DataFrame, rate: Rate, labels: Sequence[tuple[str, str, str]]) -> str:
    """Draw a rate of every group of one arm with its interval, and beside it the difference to everyone else.

    Args:
        harm: The rows of one arm, as ``fedsim.results.group_comparison`` returns them.
        rate: What to draw.
        labels: (attribute, group, what to write for it), in the order to draw them.
    """
    rows = {(row["attribute"], row["group"], row["private"]): row for row in _about(harm, rate)}
    kinds = [private for private in PRIVACY if any(key[2] == private for key in rows)]
    height = 0.9 + 0.36 * len(labels)
    title = f"{rate.label[0].upper()}{rate.label[1:]}"
    figures = {
        f"{rate.label} of every group": titled(title, height),
        f"{rate.label} of every group: difference to everyone else": titled("Difference to everyone else", height),
    }
    (_, left), (_, right) = figures.values()
    for place, (attribute, group, _) in enumerate(labels):
        for private in kinds:
            row = rows.get((attribute, group, private))
            if row is None:
                continue  # it has test rows under a seed only whose training failed
            line = place + (_APART if private else -_APART) * (len(kinds) > 1)
            _dot(left, row, ("mean", "low", "high"), line)
            _dot(right, row, ("difference", "difference_low", "difference_high"), line)
    right.axvline(0, color=FAINT, linewidth=1)

    for figure, panel in figures.values():
        panel.set_yticks(range(len(labels)), [short(label) for _, _, label in labels])
        panel.set_ylim(len(labels) - 0.5, -0.5)
        panel.grid(axis="y", visible=False)
        panel.tick_params(axis="y", length=0)

        # A line between two attributes.
        for place in range(1, len(labels)):
            if labels[place][0] != labels[place - 1][0]:
                panel.axhline(place - 0.5, color=AXIS, linewidth=0.8)
        if len(kinds) > 1:
            _legend(figure, str(harm["arm"].iloc[0]))
    return panels("groups", {about: figure for about, (figure, _) in figures.items()})


def _about(harm: pd.DataFrame, rate: Rate) -> list[dict[str, Any]]:
    return cast(list[dict[str, Any]], harm[harm["metric"] == rate.name].to_dict("records"))


def _dot(panel: Axes, row: dict[str, Any], columns: tuple[str, str, str], height: float) -> None:
    mean, low, high = (row[column] for column in columns)
    if pd.notna(low):
        panel.plot([low, high], [height, height], color=ARMS[row["arm"]].colour, linewidth=1.6)
    if pd.notna(mean):
        panel.plot([mean], [height], linestyle="none", **marker(row["arm"], row["private"]))


def _legend(figure: Figure, arm: str) -> None:
    handles = [Line2D([], [], label=label, linestyle="none", **marker(arm, private))
               for private, label in PRIVACY.items()]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower left", ncols=2, frameon=False, handlelength=1)
