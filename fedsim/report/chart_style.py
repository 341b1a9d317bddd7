"""The look of every chart: the colours, fonts and sizes that the report, the tournament and the audits share.

Colours are from the palette of Okabe and Ito, "Color Universal Design", 2008, https://jfly.uni-koeln.de/color/, without
the faint yellow. Lines and markers differ too, so that a chart can be read in grey.
"""

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

BLUE = "#0072b2"
ORANGE = "#d55e00"
GREEN = "#009e73"
COLOURS = (BLUE, ORANGE, GREEN, "#cc79a7", "#56b4e9", "#e69f00", "#000000")
MARKERS = "os^Dv<>Phd*X"
LINES: Sequence[Any] = ("-", (0, (5, 2)), (0, (1, 1.4)), "-.", (0, (3, 1, 1, 1, 1, 1)))

INK = "#24303c"
FAINT = "#5c6b7a"
AXIS = "#b8c2cc"
GRID = "#e3e8ed"

WIDTH = 9.2  # inches; a page scales the chart to its own width
PANEL = 4.6  # inches; two panels stand side by side, or below each other on a phone, where their text is still read
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fedsim",
    "text.parse_math": False,  # a site may have a $ in its name
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": FAINT,
    "axes.edgecolor": AXIS,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": AXIS,
    "xtick.labelcolor": FAINT,
    "ytick.color": AXIS,
    "ytick.labelcolor": INK,
    "lines.markersize": 6.0,
}
_DOTS_PER_INCH = 150


class Chart(Figure):
    """A figure that arranges its panels, and is drawn once where matplotlib draws twice.

    To save a figure, matplotlib first draws it into nothing, so that its parts get their places, and then again. The
    places come from the layout alone, so that the first drawing is left out.
    """

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), layout="constrained")

    def draw(self, renderer: RendererBase) -> None:
        """Draw, or find the places of all parts where that is still to be done."""
        layout = self.get_layout_engine()
        if isinstance(layout, ConstrainedLayoutEngine):
            layout.execute(self)
        else:
            super().draw(renderer)


def png(figure: Figure) -> bytes:
    """Return a figure as PNG, with the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()
