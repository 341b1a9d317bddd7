"""Pictures of what sites hold, as PNG: how many rows, and which labels."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fedsim.data.contents import Contents

_NAMED, _WRITTEN = 60, 24  # sites up to which each has its name, and each field its number
_STYLE: Any = {
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@matplotlib.rc_context(_STYLE)
def draw(path: Path, title: str, contents: Contents) -> None:
    """Draw each site's rows as a bar, and the shares of its labels as a row of a heat map.

    Raises:
        OSError: The file can't be written.
    """
    names, shares = [*contents.sites], contents.counts / contents.counts.sum(axis=1, keepdims=True)  # (sites, labels)
    sites, labels = shares.shape
    height = 1.7 + min(0.28 * sites, 4 + 0.06 * sites, 14.0)
    figure = Figure(figsize=(9, height), dpi=130, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=10)
    bars, heat = figure.subplots(1, 2, sharey=True, width_ratios=(1, max(1.2, min(2.5, labels / 4))))
    bars.barh(np.arange(sites), contents.counts.sum(axis=1), color="#0072b2", height=0.8)
    bars.set_title("rows")
    bars.tick_params(axis="y", length=0)
    bars.set_ylim(sites - 0.5, -0.5)
    if sites <= _NAMED:
        bars.set_yticks(range(sites), [name if len(name) <= 28 else f"{name[:27]}…" for name in names])
    else:
        bars.set_ylabel(f"{sites} sites, {names[0]} to {names[-1]}")
        bars.set_yticks([])
    image = heat.imshow(shares, aspect="auto", cmap="cividis", vmin=0, vmax=max(0.5, float(shares.max())))
    heat.set_title("share of the site's rows")
    heat.set_xticks(
        range(labels), contents.labels, rotation=30 if labels > 4 else 0, ha="right" if labels > 4 else "center"
    )
    heat.tick_params(length=0)
    heat.spines[:].set_visible(False)
    if sites <= _WRITTEN and labels <= 12:
        for site, label in np.ndindex(shares.shape):
            colour = "white" if shares[site, label] < 0.6 * image.norm.vmax else "black"
            heat.text(label, site, f"{shares[site, label]:.0%}", ha="center", va="center", color=colour, fontsize=7.5)
    figure.colorbar(image, ax=heat, format=lambda share, _: f"{share:.0%}", shrink=min(1.0, 3 / height), aspect=12)
    FigureCanvasAgg(figure).print_png(path)
