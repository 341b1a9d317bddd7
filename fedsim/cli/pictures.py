"""Pictures of the sites' rows, as PNG: how many each has, and which labels."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from fedsim.data.contents import Contents
from fedsim.figures import share
from fedsim.report.chart_style import BLUE, STYLE, WIDTH, png

_MOST_NAMED = 60  # sites that each have their name beside them
_MOST_WRITTEN = 24  # sites whose fields each have their number in them
_LONGEST_NAME = 28
_HIGHEST = 12.0  # inches, of the bars


@matplotlib.rc_context(STYLE)
def draw(path: Path, title: str, contents: Contents) -> None:
    """Draw each site's rows as a bar, and the shares of its labels as a row of a heat map.

    Raises:
        OSError: The file can't be written.
    """
    names = list(contents.sites)
    rows = contents.counts.sum(axis=1)  # (sites,)
    shares = contents.counts / rows[:, None]  # (sites, labels)
    sites, labels = shares.shape
    height = 1.7 + min(0.28 * sites, 4 + 0.06 * sites, _HIGHEST)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=10)
    heat_width = max(1.2, min(2.5, labels / 4))
    bars, heat = figure.subplots(1, 2, sharey=True, width_ratios=(1, heat_width))

    bars.barh(np.arange(sites), rows, color=BLUE, height=0.8)
    bars.grid(False, axis="y")
    bars.set_title("rows")
    bars.tick_params(axis="y", length=0)
    bars.set_ylim(sites - 0.5, -0.5)
    if sites <= _MOST_NAMED:
        bars.set_yticks(range(sites), [_cut(name) for name in names])
    else:
        bars.set_ylabel(f"{sites} sites, {names[0]} to {names[-1]}")
        bars.set_yticks([])

    image = heat.imshow(shares, aspect="auto", cmap="cividis", vmin=0, vmax=max(0.5, float(shares.max())))
    heat.grid(False)
    heat.set_title("share of the site's rows")
    crowded = labels > 4
    heat.set_xticks(range(labels), contents.labels, rotation=30 if crowded else 0, ha="right" if crowded else "center")
    heat.tick_params(length=0)
    heat.spines[:].set_visible(False)
    if sites <= _MOST_WRITTEN and labels <= 12:
        for site, label in np.ndindex(shares.shape):
            value = shares[site, label]
            colour = "white" if value < 0.6 * image.norm.vmax else "black"
            heat.text(label, site, share(value), ha="center", va="center", color=colour, fontsize=7.5)
    figure.colorbar(image, ax=heat, format=lambda value, _: share(value), shrink=min(1.0, 3 / height), aspect=12)
    path.write_bytes(png(figure))


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
