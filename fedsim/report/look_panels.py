"""Draw a column's histogram for each site: small panels of plain SVG and HTML, which wrap on a narrow screen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from fedsim import figures
from fedsim.data.own_table.looking.histograms import Histogram

MOST_SITES = 12  # that have a panel each
MOST_NAMES = 12  # columns that are named in a sentence
_MOST_LEVELS = 24  # bars of a panel
_WIDTH = 200
_HEIGHT = 64
_GAP = 6  # before the bars that are no part of the scale


@dataclass(frozen=True)
class SiteGroup:
    """The sites of a panel: one site, several others, or all.

    Attributes:
        name: How to call them.
        members: Their numbers.
        rows: The number of their rows, in words.
    """

    name: str
    members: tuple[int, ...]
    rows: str


@dataclass(frozen=True)
class Bar:
    """A bar of a level: its label, its length and interval in percent of the panel, and its figure in words."""

    label: str
    length: float
    low: float
    high: float
    text: str
    is_apart: bool


@dataclass(frozen=True)
class Panel:
    """The histogram of a column at some sites.

    Attributes:
        group: The sites.
        picture: The bars of a scale as SVG; empty for levels.
        top: The figure of the panel's upper end.
        bars: The bars of levels.
    """

    group: SiteGroup
    picture: Markup
    top: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Noise:
    """The noise of a histogram's counts: from a number of counts that are added up to a 95 % margin."""

    margin: Callable[[int], int]


def site_groups(
    names: Sequence[str], rows: Sequence[float], texts: Callable[[tuple[int, ...]], str]
) -> list[SiteGroup]:
    """Return the sites that have a panel each, and all others together.

    Args:
        names: All sites.
        rows: The number of rows of each, by which the largest are chosen.
        texts: From the numbers of some sites to the number of their rows in words.
    """
    every = tuple(range(len(names)))
    if len(every) == 1:
        return [SiteGroup(names[0], every, texts(every))]
    largest = sorted(every, key=lambda number: -rows[number])[:MOST_SITES]
    shown = sorted(largest)
    groups = [SiteGroup("all sites", every, texts(every))]
    groups.extend(SiteGroup(names[number], (number,), texts((number,))) for number in shown)
    rest = tuple(number for number in every if number not in largest)
    if rest:
        word = "site" if len(rest) == 1 else "sites"
        groups.append(SiteGroup(f"other {len(rest):,} {word}", rest, texts(rest)))
    return groups


def panels(histogram: Histogram, groups: Sequence[SiteGroup], noise: Noise | None = None) -> list[Panel]:
    """Return a panel for each group of sites.

    Without noise, bars are shares of a site's rows on one scale; noisy bars are counts, on a scale for each panel.
    """
    counts = [histogram.counts[list(group.members)].sum(axis=0) for group in groups]
    margins = [0 if noise is None else noise.margin(len(group.members)) for group in groups]
    if noise is None:
        # Sites of different size are compared by their shares.
        shares = [of_group / max(1, of_group.sum()) for of_group in counts]
        highest = max((float(share.max(initial=0.0)) for share in shares), default=0.0) or 1.0
        drawn = [(share, highest, figures.share(highest)) for share in shares]
    else:
        drawn = []
        for of_group, margin in zip(counts, margins, strict=True):
            top = max(1, int(of_group.max(initial=0)) + margin)
            drawn.append((of_group.astype(float), float(top), f"{top:,} rows"))

    result = []
    for group, of_group, margin, (heights, highest, top) in zip(groups, counts, margins, drawn, strict=True):
        picture = Markup()
        bars: list[Bar] = []
        if histogram.scale == "levels":
            bars = _bars(histogram, of_group, heights / highest, margin, margin / highest)
        else:
            picture = _picture(histogram, heights / highest, margin / highest, f"{histogram.name} at {group.name}")
        result.append(Panel(group, picture, top, bars))
    return result


def _bars(
    histogram: Histogram, counts: np.ndarray, lengths: np.ndarray, margin: int, margin_length: float
) -> list[Bar]:
    """Return the bars of levels; of many, the longest, and all others together."""
    total = max(1, int(counts.sum()))
    numbers = list(range(len(counts)))
    if len(numbers) > _MOST_LEVELS:
        longest = sorted(numbers, key=lambda number: -counts[number])[:_MOST_LEVELS]
        numbers = sorted(longest)
    first_apart = len(counts) - histogram.apart
    bars = []
    for number in numbers:
        length = float(lengths[number])
        text = f"{counts[number]:,} ± {margin:,}" if margin else figures.share(counts[number] / total)
        bars.append(
            Bar(
                label=histogram.labels[number],
                length=percent(length),
                low=percent(length - margin_length),
                high=percent(length + margin_length),
                text=text.replace("-", "−"),
                is_apart=number >= first_apart,
            )
        )
    return bars


def percent(part: float) -> float:
    """Return a share as percent of a panel's length, from 0 to 100."""
    return round(100 * min(max(part, 0.0), 1.0), 1)


def _picture(histogram: Histogram, heights: np.ndarray, margin: float, about: str) -> Markup:
    """Draw the bars of a scale, and the intervals of noisy counts as lines. Counts below 0 are drawn as 0."""
    bins = len(heights)
    apart = histogram.apart
    slot = (_WIDTH - _GAP * (apart > 0)) / max(1, bins)
    paths = {"bar": "", "bar apart": "", "noise": ""}
    for number, height in enumerate(heights):
        is_apart = number >= bins - apart
        left = number * slot + (_GAP if is_apart else 0)
        top = _HEIGHT * (1 - min(max(float(height), 0.0), 1.0))
        paths["bar apart" if is_apart else "bar"] += f"M{left + 0.5:.1f} {_HEIGHT}V{top:.1f}h{slot - 1:.1f}V{_HEIGHT}z"
        if margin:
            low = _HEIGHT * (1 - min(max(float(height) - margin, 0.0), 1.0))
            high = _HEIGHT * (1 - min(max(float(height) + margin, 0.0), 1.0))
            paths["noise"] += f"M{left + slot / 2:.1f} {low:.1f}V{high:.1f}"
    drawn = Markup().join(
        Markup('<path class="{}" d="{}"/>').format(name, path) for name, path in paths.items() if path
    )
    frame = Markup(
        '<svg class="bins" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    )
    return frame.format(_WIDTH, _HEIGHT, about, drawn)


def drawn_column(
    histogram: Histogram,
    groups: Sequence[SiteGroup],
    said: Sequence[str],
    noise: Noise | None = None,
) -> dict[str, Any]:
    """Return what the template draws of a column.

    Args:
        histogram: The column's counts.
        groups: The sites of each panel.
        said: What is to be known of the column, in sentences.
        noise: The noise of the counts; None where they have none.
    """
    return {
        "name": histogram.name,
        "role": "" if histogram.role == "feature" else histogram.role,
        "said": said,
        "edges": histogram.edges,
        "panels": panels(histogram, groups, noise),
        "heads": [group.name for group in groups],
        "counts": counts_table(histogram, groups),
    }


def counts_table(histogram: Histogram, groups: Sequence[SiteGroup]) -> list[tuple[str, list[str]]]:
    """Return the count of each bin at each group of sites: a row for each bin."""
    counts = [histogram.counts[list(group.members)].sum(axis=0) for group in groups]
    rows = []
    for number, label in enumerate(histogram.labels):
        rows.append((label, [f"{of_group[number]:,}".replace("-", "−") for of_group in counts]))
    return rows
