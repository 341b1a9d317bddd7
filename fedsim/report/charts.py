"""Draw the charts of a run as inline SVG, with the same bytes for the same numbers.

Each arm has a colour, a marker and a line of its own. A filled marker is an arm without privacy, a hollow one an arm
with privacy.
"""

import html
import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fedsim.report.chart_style import BLUE, FAINT, GREEN, INK, LINES, ORANGE, STYLE, WIDTH
from fedsim.results.metrics import Metric


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
    names = [f"{row['arm']}, {PRIVACY[row['private']]}" for row in rows]
    if has_base:
        names.append("base rate")
    lines = len(names)

    figure = Figure(figsize=(WIDTH, 0.75 + 0.34 * lines), layout="constrained")
    panels = cast(Any, figure.subplots(1, 2 if compared else 1, sharey=True, squeeze=False))[0]

    # On the left, each arm's own mean, and the base rate below them in a line of its own.
    if has_base:
        panels[0].axvline(base, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        panels[0].plot([base], [len(rows)], linestyle="none", marker="|", markersize=11, markeredgewidth=2, color=FAINT)
    _dots(panels[0], rows, ("mean", "low", "high"), within=(metric.low, metric.high))
    panels[0].set_title(f"{label} {called}")
    panels[0].set_yticks(range(lines), names)
    panels[0].set_ylim(lines - 0.5, -0.5)

    # On the right, the paired differences: the thin interval first, the thick one over it.
    if compared:
        panels[1].axvline(0, color=FAINT, linewidth=1)
        _dots(panels[1], rows, ("difference", "difference_low", "difference_high"), within=(-span, span))
        here = ("difference", "difference_here_low", "difference_here_high")
        _dots(panels[1], rows, here, within=(-span, span), width=4)
        panels[1].set_title(f"Difference in {metric.label} to centralized, paired by seed")
        for place, row in enumerate(rows):
            if row["arm"] == "centralized":
                panels[1].annotate(
                    "reference", (0, place), (6, 0), textcoords="offset points", va="center", color=FAINT
                )

    for panel in panels:
        panel.grid(axis="y", visible=False)
        panel.tick_params(axis="y", length=0)

    name = f"arms-{called.partition(' ')[0]}"  # a page may have a chart of each place
    about = f"{label} {called} of every arm with its interval, and its difference to the centralized arm"
    return svg(figure, name, about)


@matplotlib.rc_context(STYLE)
def curves(rounds: pd.DataFrame, metrics: Sequence[Metric]) -> str:
    """Draw the validation metrics after each round: the mean over seeds in a band from the least to the greatest.

    Args:
        rounds: A row for each arm, private, seed and round, with a column for each metric.
        metrics: Which of them to draw.
    """
    kinds = [private for private in PRIVACY if (rounds["private"] == private).any()]
    figure = Figure(figsize=(WIDTH, 2.3 * len(metrics)), layout="constrained")
    grid = cast(Any, figure.subplots(len(metrics), len(kinds), sharex=True, sharey="row", squeeze=False))

    # A row of panels for each metric, a column without and one with privacy.
    for panels, metric in zip(grid, metrics, strict=True):
        panels[0].set_ylabel(f"{metric.label} ({metric.better} is better)")
        for panel, private in zip(panels, kinds, strict=True):
            _curve_panel(panel, rounds[rounds["private"] == private], metric.name)

    for column, private in enumerate(kinds):
        grid[0][column].set_title(PRIVACY[private])
        grid[-1][column].set_xlabel("round")
        grid[-1][column].xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure, [arm for arm in ARMS if (rounds["arm"] == arm).any()], lines=True)
    labels = " and ".join(metric.label for metric in metrics)
    return svg(figure, "curves", f"Validation {labels} after each round, for every arm")


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
    figure = Figure(figsize=(WIDTH, 0.6 + len(kinds) * (0.7 + 0.36 * len(labels))), layout="constrained")
    panels = cast(Any, figure.subplots(len(kinds), 1, sharex=True, squeeze=False))[:, 0]

    for panel, private in zip(panels, kinds, strict=True):
        means = {(row["site"], row["arm"]): row["mean"] for row in rows if row["private"] == private}
        _site_panel(panel, means, list(labels), private)
        panel.set_yticks(range(len(labels)), [short(label) for label in labels.values()])
        for place, site in enumerate(labels):
            _beside(panel, place, gains.get((private, site), ""), color=INK)
        _beside(panel, -0.75, f"change in {metric.label} by joining (95 % interval {asked})", color=FAINT)

    panels[-1].set_xlabel(f"{_upper(metric.label)} at the site, mean over seeds")
    _legend(figure, [arm for arm in ARMS if any(row["arm"] == arm for row in rows)], lines=False)
    return svg(figure, "sites", f"{_upper(metric.label)} at each site: local, federated and centralized")


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
    panel.set_title(PRIVACY[private])
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


def _beside(panel: Axes, place: float, text: str, color: str) -> None:
    """Write to the right of a panel, in the line of a site."""
    panel.text(1.02, place, text, transform=panel.get_yaxis_transform(), va="center", color=color)


def _legend(figure: Figure, names: list[str], lines: bool) -> None:
    handles = [
        Line2D([], [], label=arm, color=look.colour, linestyle=look.line if lines else "none", marker=look.marker)
        for arm, look in ARMS.items()
        if arm in names
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=3, frameon=False, handlelength=3.2 if lines else 1)


def short(label: str) -> str:
    """Cut the middle out of a long label: names often differ at their ends."""
    if len(label) <= _LONGEST:
        return label
    return f"{label[:18]}…{label[-25:]}"


def svg(figure: Figure, name: str, about: str) -> str:
    """Return a figure as SVG to put into a page: no prolog, no metadata, no id that another chart has."""
    buffer = io.StringIO()
    with warnings.catch_warnings():  # a name in a script the font lacks: the reader's browser has it
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'( id="|xlink:href="#|url\(#)', rf"\g<1>{name}-", text)
    return text.replace("<svg ", f'<svg class="chart" role="img" aria-label="{html.escape(about)}" ', 1)
