"""Draw which features drive the models: over all sites by two methods, and at each site."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from fedsim.report.chart_style import FAINT, STYLE, WIDTH, Chart
from fedsim.report.charts import ARMS, PRIVACY, Inline, panels, short
from fedsim.results.evaluation import INSIDE
from fedsim.results.explained.table import GRADIENTS, PERMUTATION

MOST_FEATURES = 10
MOST_SITES = 9
_THICK = 0.36  # of a bar, in lines


@matplotlib.rc_context(STYLE)
def features(table: pd.DataFrame, arm: str) -> Inline:
    """Draw the features that drive an arm's models most, without and with privacy.

    Args:
        table: As ``fedsim explain`` writes it.
        arm: The arm.
    """
    own = table[table["arm"] == arm]
    kinds = [private for private in PRIVACY if (own["private"] == private).any()]
    names = top_features(own)
    sites = [site for site in dict.fromkeys(own["site"]) if site != INSIDE][:MOST_SITES]
    columns = 2 if len(sites) in (1, 2, 4) else 3  # of small panels
    lines = math.ceil(len(sites) / columns)
    height = 0.24 * len(names) + 0.6

    figure = Chart(WIDTH, 1.1 * height + lines * height + 0.5)
    whole, small = cast(Any, figure.subfigures(2, 1, height_ratios=(1.1, max(lines, 0.01))))
    beside = cast(Any, whole.subplots(1, 2, sharey=True, squeeze=False))[0]
    for panel, method in zip(beside, (PERMUTATION, GRADIENTS), strict=True):
        of_all = own[(own["method"] == method) & (own["site"] == INSIDE)]
        _bars(panel, of_all, names, kinds, arm)
        unit = str(of_all["unit"].iloc[0]) if len(of_all) else ""
        lead = "Loss of" if method == PERMUTATION else "Mean contribution, in"
        panel.set_title(f"{lead} {unit}, all sites")

    # A small panel for each site, all to one scale.
    if sites:
        grid = cast(Any, small.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)).ravel()
        for place, panel in enumerate(grid):
            if place < len(sites):
                at_site = own[(own["method"] == PERMUTATION) & (own["site"] == sites[place])]
                _bars(panel, at_site, names, kinds, arm)
                panel.set_title(short(sites[place]))
                panel.tick_params(axis="x", labelbottom=True)  # below it there may be no other
            else:
                panel.set_visible(False)
    _legend(whole, kinds, arm)
    privacy = " and ".join(PRIVACY[private] for private in kinds)
    about = (
        f"Importance of the features {', '.join(names)} for the {arm} arm, {privacy}: over all sites by permutation "
        "and by integrated gradients, and by permutation at each site"
    )
    return panels("explanations", {about: figure})


def top_features(own: pd.DataFrame) -> list[str]:
    """Return the features with the largest importance by permutation over all sites, with privacy or without."""
    of_all = own[(own["method"] == PERMUTATION) & (own["site"] == INSIDE)]
    largest = of_all.groupby("feature", sort=False)["importance"].max()
    return [str(name) for name in largest.sort_values(ascending=False, kind="stable").index[:MOST_FEATURES]]


def _bars(panel: Axes, rows: pd.DataFrame, names: Sequence[str], kinds: Sequence[bool], arm: str) -> None:
    """Draw a bar for each feature and kind, with the spread over seeds as a line."""
    by_place: Mapping[tuple[str, bool], Any] = {
        (row["feature"], row["private"]): row for row in cast(Any, rows.to_dict("records"))
    }
    colour = ARMS[arm].colour
    panel.axvline(0, color=FAINT, linewidth=1)
    for place, name in enumerate(names):
        for private in kinds:
            row = by_place.get((name, private))
            if row is None or pd.isna(row["importance"]):
                continue
            middle = place + (_THICK / 2 if private else -_THICK / 2) * (len(kinds) > 1)
            face = "#ffffff" if private else colour
            panel.barh(middle, row["importance"], _THICK, color=face, edgecolor=colour, linewidth=1)
            if pd.notna(row["spread"]):
                ends = [row["importance"] - row["spread"], row["importance"] + row["spread"]]
                panel.plot(ends, [middle, middle], color=FAINT, linewidth=1)
    panel.set_yticks(range(len(names)), [short(name) for name in names])
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)


def _legend(place: Any, kinds: Sequence[bool], arm: str) -> None:  # noqa: ANN401  a figure or a part of one
    colour = ARMS[arm].colour
    handles = [
        Patch(facecolor="#ffffff" if private else colour, edgecolor=colour, label=f"{arm}, {PRIVACY[private]}")
        for private in kinds
    ]
    place.legend(handles=handles, loc="outside upper right", ncols=len(handles), frameon=False)
