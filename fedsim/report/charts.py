"""Draw the charts of a run as inline SVG, with the same bytes for the same numbers.

Each arm has a colour, a marker and a line of its own. A filled marker is an arm without privacy, a hollow one an arm
with privacy.
"""

import html
import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fedsim.outcomes.metric import Metric
from fedsim.report.chart_style import AXIS, BLUE, FAINT, GREEN, GRID, INK, LINES, ORANGE, PANEL, STYLE, Chart, png


@dataclass(frozen=True)
class Look:
    """How an arm is drawn: matplotlib's marker and line style, and the marker as SVG in a box of 12 x 12."""

    colour: str
    marker: str
    line: Any
    shape: str


ARMS = {
    "federated": Look(BLUE, "o", LINES[0], '<circle cx="6" cy="6" r="4.6"/>'),
    "centralized": Look(ORANGE, "s", LINES[1], '<rect x="1.8" y="1.8" width="8.4" height="8.4"/>'),
    "local": Look(GREEN, "^", LINES[2], '<path d="M6 1 11 10.4H1z"/>'),
}
PRIVACY = {False: "without privacy", True: "with privacy"}
_LONGEST = 44  # characters of a name that is written whole


@matplotlib.rc_context(STYLE)
def arms(comparison: pd.DataFrame, metric: Metric, site: str, called: str, base: float = math.nan) -> str:
    """Draw a metric of every arm with its interval, and beside it the paired difference to the centralized arm.

    A difference has two intervals: a thick line for these records, and a thin one for institutions like these.

    Args:
        comparison: As ``fedsim.results.comparison.compare`` returns it.
        metric: What to draw.
        site: The row for all sites to draw: inside sites, or pooled.
        called: How to call what is drawn.
        base: The base rate of the metric; NaN if it is not known.
    """
    rows = _rows(comparison[comparison["site"] == site], metric)
    label = _upper(metric.label)
    span = metric.high - metric.low
    compared = any(pd.notna(row["difference"]) for row in rows)

    has_base = not math.isnan(base)
    names = [f"{row['arm']}\n{PRIVACY[row['private']]}" for row in rows]
    if has_base:
        names.append("base rate")
    lines = len(names)
    height = 0.75 + 0.4 * lines

    # First each arm's own mean, and the base rate below them in a line of its own.
    left, panel = titled(f"{label} {called}", height)
    if has_base:
        panel.axvline(base, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        panel.plot([base], [len(rows)], linestyle="none", marker="|", markersize=11, markeredgewidth=2, color=FAINT)
    _dots(panel, rows, ("mean", "low", "high"), within=(metric.low, metric.high))
    _lines_of(panel, names)
    figures = [left]

    # Then the paired differences: the thin interval first, the thick one over it.
    if compared:
        right, panel = titled(f"Difference in {metric.label} to centralized, paired by seed", height)
        panel.axvline(0, color=FAINT, linewidth=1)
        _dots(panel, rows, ("difference", "difference_low", "difference_high"), within=(-span, span))
        here = ("difference", "difference_here_low", "difference_here_high")
        _dots(panel, rows, here, within=(-span, span), width=4)
        for place, row in enumerate(rows):
            if row["arm"] == "centralized":
                panel.annotate("reference", (0, place), (6, 0), textcoords="offset points", va="center", color=FAINT)
        _lines_of(panel, names)
        figures.append(right)

    name = f"arms-{called.partition(' ')[0]}"  # a page may have a chart of each place
    about = f"{label} {called} of every arm with its interval"
    drawn = {about: figures[0]}
    if compared:
        drawn[f"{label} {called}: difference to the centralized arm"] = figures[1]
    return panels(name, drawn)


def titled(title: str, height: float) -> tuple[Figure, Axes]:
    """Return a figure of one panel with a title that is aligned with the figure, whose labels may be long."""
    figure = Chart(PANEL, height)
    figure.suptitle(title, x=0.01, ha="left", fontsize=9, fontweight="bold")
    return figure, figure.subplots()


def _lines_of(panel: Axes, names: Sequence[str]) -> None:
    """Name the lines of a panel, the first on top."""
    panel.set_yticks(range(len(names)), list(names))
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)


@matplotlib.rc_context(STYLE)
def curves(rounds: pd.DataFrame, metrics: Sequence[Metric]) -> str:
    """Draw the validation metrics after each round: the mean over seeds in a band from the least to the greatest.

    Args:
        rounds: A row for each arm, private, seed and round, with a column for each metric.
        metrics: Which of them to draw.
    """
    kinds = [private for private in PRIVACY if (rounds["private"] == private).any()]
    drawn = {}
    for metric in metrics:
        shown = [rounds[rounds["private"] == private] for private in kinds]
        figures = []
        for private, of_kind in zip(kinds, shown, strict=True):
            figure, panel = titled(f"{_upper(metric.label)} {PRIVACY[private]} ({metric.better} is better)", 2.6)
            _curve_panel(panel, of_kind, metric.name)
            panel.set_xlabel("round")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            _legend(figure, [arm for arm in ARMS if (of_kind["arm"] == arm).any()], lines=True)
            figures.append((private, figure, panel))

        # Both kinds have one scale, so that they can be compared.
        limits = [panel.get_ylim() for _, _, panel in figures]
        for private, figure, panel in figures:
            panel.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
            drawn[f"Validation {metric.label} after each round, {PRIVACY[private]}, for every arm"] = figure
    return panels("curves", drawn)


@matplotlib.rc_context(STYLE)
def sites(
    comparison: pd.DataFrame,
    metric: Metric,
    labels: Mapping[str, str],
    gains: Mapping[tuple[bool, str], str],
    asked: str,
) -> str:
    """Draw a metric of every arm at each site, from local to federated, with the gain written beside it.

    Args:
        comparison: As ``fedsim.results.comparison.compare`` returns it.
        metric: What to draw.
        labels: {site: what to write for it}, in the order to draw them.
        gains: {(private, site): what to write beside its dots}.
        asked: The question that the gains' intervals answer.
    """
    rows = _rows(comparison[comparison["site"].isin(list(labels))], metric)
    kinds = [private for private in PRIVACY if any(row["private"] == private for row in rows)]
    drawn = {}
    for private in kinds:
        figure, panel = titled(f"{_upper(metric.label)} {PRIVACY[private]}", 1.2 + 0.46 * len(labels))
        means = {(row["site"], row["arm"]): row["mean"] for row in rows if row["private"] == private}
        _site_panel(panel, means, list(labels), private)

        # Below each name the gain of the site.
        names = []
        for site, label in labels.items():
            gain = gains.get((private, site), "")
            names.append(f"{short(label)}\n{gain}" if gain else short(label))
        panel.set_yticks(range(len(labels)), names)
        panel.set_xlabel(f"{_upper(metric.label)} at the site, mean over seeds; below its name the\n"
                         f"change by joining (95 % interval {asked})")  # fmt: skip
        _legend(figure, [arm for arm in ARMS if any(key[1] == arm for key in means)], lines=False)
        drawn[f"{_upper(metric.label)} at each site {PRIVACY[private]}: local, federated and centralized"] = figure
    return panels("sites", drawn)


def key(arm: str, private: bool) -> str:
    """Return an arm's marker as a small inline SVG: hollow with privacy."""
    look = ARMS[arm]
    fill = "#fff" if private else look.colour
    return (
        f'<svg class="key" viewBox="0 0 12 12" aria-hidden="true">'
        f'<g fill="{fill}" stroke="{look.colour}" stroke-width="1.5">{look.shape}</g></svg>'
    )


def _upper(label: str) -> str:
    return label[0].upper() + label[1:]


def _rows(comparison: pd.DataFrame, metric: Metric) -> list[dict[str, Any]]:
    """Return the rows about a metric, arms in the order in which they are listed everywhere."""
    rows = comparison[comparison["metric"] == metric.name].to_dict("records")
    order = list(ARMS)
    return sorted(cast(list[dict[str, Any]], rows), key=lambda row: (row["private"], order.index(row["arm"])))


def _dots(
    panel: Axes,
    rows: list[dict[str, Any]],
    columns: tuple[str, str, str],
    within: tuple[float, float],
    width: float = 1.8,
) -> None:
    """Draw a dot and an interval in each line; the interval is cut where the metric ends."""
    for place, row in enumerate(rows):
        mean, low, high = (row[column] for column in columns)
        if pd.notna(low):
            ends = [max(low, within[0]), min(high, within[1])]
            panel.plot(ends, [place, place], color=ARMS[row["arm"]].colour, linewidth=width)
        panel.plot([mean], [place], linestyle="none", **marker(row["arm"], row["private"]))


def _curve_panel(panel: Axes, rounds: pd.DataFrame, metric: str) -> None:
    for order, (arm, look) in enumerate(ARMS.items()):
        rounds_of_arm = rounds[rounds["arm"] == arm]
        if rounds_of_arm.empty:
            continue
        by_seed = rounds_of_arm.pivot(index="round", columns="seed", values=metric).astype(float)  # (rounds, seeds)
        places = by_seed.index.to_numpy()

        # The band from the least to the greatest seed.
        least = by_seed.min(axis=1)
        greatest = by_seed.max(axis=1)
        panel.fill_between(places, least, greatest, color=look.colour, alpha=0.1, linewidth=0)

        # Six markers on each line; the arms' markers take turns, so that they don't hide each other.
        every = max(1, len(places) // 6)
        first = min(order * every // 3, len(places) - 1)
        panel.plot(
            places,
            by_seed.mean(axis=1),
            color=look.colour,
            linestyle=look.line,
            linewidth=1.8,
            marker=look.marker,
            markersize=4.5,
            markevery=(first, every),
            zorder=4 - order,
        )


def _site_panel(panel: Axes, means: Mapping[tuple[str, str], float], names: list[str], private: bool) -> None:
    for place, site in enumerate(names):
        ends = [means.get((site, arm)) for arm in ("local", "federated")]
        if not any(pd.isna(end) for end in ends):
            panel.plot(cast(Any, ends), [place, place], color="#9aa7b4", linewidth=1.6, zorder=1)
        for order, arm in enumerate(("centralized", "local", "federated")):
            mean = means.get((site, arm))
            if pd.notna(mean):  # centralized sits a little higher: it often is where federated is
                height = place - 0.24 * (arm == "centralized")
                panel.plot(cast(Any, [mean]), [height], linestyle="none", zorder=2 + order, **marker(arm, private))
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)


def marker(arm: str, private: bool) -> dict[str, Any]:
    """Return how matplotlib draws an arm's dot: hollow with privacy."""
    look = ARMS[arm]
    return {
        "marker": look.marker,
        "markerfacecolor": "#ffffff" if private else look.colour,
        "markeredgecolor": look.colour,
        "markeredgewidth": 1.5,
    }


def _legend(figure: Figure, names: list[str], lines: bool) -> None:
    handles = [
        Line2D([], [], label=arm, color=look.colour, linestyle=look.line if lines else "none", marker=look.marker)
        for arm, look in ARMS.items()
        if arm in names
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=3, frameon=False, handlelength=3.2 if lines else 1)


def short(label: str) -> str:
    """Cut the middle out of a long label: names often differ at their ends."""
    if len(label) <= _LONGEST:
        return label
    return f"{label[:18]}…{label[-25:]}"


class Inline(str):
    """The HTML of a chart, to put into a page.

    Attributes:
        name: The start of the names of its files.
        figures: {what it shows: the panel}, for files of their own.
    """

    name: str
    figures: Mapping[str, Figure]

    def __new__(cls, html_text: str, name: str, figures: Mapping[str, Figure]) -> "Inline":
        """Make the text, and remember the figures."""
        made = super().__new__(cls, html_text)
        made.name = name
        made.figures = figures
        return made

    @matplotlib.rc_context(STYLE)
    def files(self) -> dict[str, bytes]:
        """Return {name of a file: content}: an SVG and a PNG of each panel."""
        contents = {}
        for number, figure in enumerate(self.figures.values(), start=1):
            name = self.name if len(self.figures) == 1 else f"{self.name}-{number}"
            contents[f"{name}.svg"] = _svg(figure).encode()
            with _any_script():
                contents[f"{name}.png"] = png(figure)
        return contents


def panels(name: str, figures: Mapping[str, Figure]) -> Inline:
    """Return the panels of a chart as HTML: side by side where there is room, below each other on a phone.

    Args:
        name: What the ids of the chart begin with; no other chart of a page has it.
        figures: {what a panel shows, in words for who can't see it: the panel}.
    """
    drawn = [_inline(figure, f"{name}-{number}", about) for number, (about, figure) in enumerate(figures.items(), 1)]
    return Inline(f'<div class="chart-panels">{"".join(drawn)}</div>', name, figures)


_BY_THEME = {INK: "ink", FAINT: "soft", AXIS: "axis", GRID: "grid", "#ffffff": "paper",
             BLUE: "blue", ORANGE: "orange", GREEN: "green"}  # fmt: skip
"""{colour of a chart: the variable of the page's style that stands for it, in light and dark}."""


def _inline(figure: Figure, name: str, about: str) -> str:
    """Return a figure as SVG to put into a page: no id that another chart has, and colours of the page's theme."""
    text = _svg(figure)
    text = re.sub(r'( id="|xlink:href="#|url\(#)', rf"\g<1>{name}-", text)
    for colour, variable in _BY_THEME.items():
        text = re.sub(rf"\b(fill|stroke): {colour}\b", rf"\g<1>: var(--{variable}, {colour})", text)
    return text.replace("<svg ", f'<svg class="chart" role="img" aria-label="{html.escape(about)}" ', 1)


def _svg(figure: Figure) -> str:
    """Return a figure as SVG without a prolog and without metadata."""
    buffer = io.StringIO()
    with _any_script():
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


@contextmanager
def _any_script() -> Iterator[None]:
    """Draw names in any script: where the font lacks one, the reader's browser has it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
