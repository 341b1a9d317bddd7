"""Draw what was found: each arm's figure against epsilon, the privacy-utility frontier."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fedsim.report.chart_style import STYLE, WIDTH, png
from fedsim.report.charts import ARMS, svg
from fedsim.results.metrics import BY_NAME

NONE = "none"


@dataclass(frozen=True)
class Drawn:
    """One picture, as PNG and as SVG that may stand in a page."""

    png: bytes
    svg: str


@matplotlib.rc_context(STYLE)
def frontier(points: pd.DataFrame, metric: str) -> Drawn:
    """Draw a line for each arm: the mean with its interval at each epsilon, and without privacy at the right.

    Args:
        points: As ``choice.points`` returns it.
        metric: The name of the metric.

    """
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    panel = figure.subplots()
    epsilons = _in_order(points["epsilon"])
    arms = list(dict.fromkeys(points["arm"]))
    for number, arm in enumerate(arms):
        look = ARMS[arm]
        own = points[points["arm"] == arm].set_index("epsilon").reindex(epsilons)
        places = np.arange(len(epsilons)) + 0.12 * (number - (len(arms) - 1) / 2)
        mean, low, high = (own[name].to_numpy(dtype=float) for name in ("mean", "low", "high"))
        reach = np.nan_to_num(np.stack([mean - low, high - mean]))
        panel.errorbar(
            places,
            mean,
            yerr=reach,
            label=arm,
            color=look.colour,
            marker=look.marker,
            linestyle=look.line if len(epsilons) > 1 else "none",
            linewidth=1.6,
            elinewidth=1.0,
        )
    panel.set_xticks(range(len(epsilons)), ["no privacy" if one == NONE else one for one in epsilons])
    panel.set_xlim(-0.5, len(epsilons) - 0.5)
    panel.set_xlabel("epsilon (a smaller one protects more)" if epsilons != [NONE] else "")
    panel.set_ylabel(f"test {BY_NAME[metric].label}, mean and 95 % interval")
    panel.legend(loc="best", frameon=False)
    about = f"Test {BY_NAME[metric].label} of the arms {', '.join(arms)} against epsilon, with 95 % intervals"
    return Drawn(png(figure), svg(figure, "frontier", about))


def _in_order(epsilons: pd.Series) -> Sequence[str]:
    """Return each epsilon once, ascending, and what is not private last."""
    distinct = list(dict.fromkeys(map(str, epsilons)))
    numbers = sorted((one for one in distinct if one != NONE), key=float)
    return [*numbers, *(one for one in distinct if one == NONE)]
