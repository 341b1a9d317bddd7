"""Pictures of a story: ROC curves, claimed against proven epsilon, and a record beside its reconstructions."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from fedsim.audits.bounds import RATES
from fedsim.audits.finding import Curve, Picture
from fedsim.audits.pictures import draw_records
from fedsim.audits.story.levels import Level

# Okabe and Ito, "Color Universal Design", 2008, https://jfly.uni-koeln.de/color/, without the faint yellow.
_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_LINES: Sequence[Any] = ("-", (0, (5, 2)), (0, (1, 1.4)), "-.", (0, (3, 1, 1, 1, 1, 1)), "-")
_MARKERS = ("D", "o", "s", "^", "v", "P")
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e8ed",
    "text.parse_math": False,
}
_FAINT = "#5c6b7a"


def pictures_of(levels: Sequence[Level]) -> dict[str, Mapping[str, Picture]]:
    """Collect the findings' pictures: {name of a picture: {title of a level: its first finding's}}."""
    collected: dict[str, dict[str, Picture]] = {}
    for level in levels:
        for finding in level.audit.findings:
            if finding.picture:
                collected.setdefault(finding.picture.name, {}).setdefault(level.title, finding.picture)
    return dict(collected)


def draw(pictures: Mapping[str, Picture]) -> bytes:
    """Draw one picture of all levels, {title of a level: its data}: a PNG.

    Raises:
        TypeError: The levels' data is not of one kind.
    """
    curves = {}
    rebuilt = {}
    for title, picture in pictures.items():
        if isinstance(picture.data, Curve):
            curves[title] = picture.data
        else:
            rebuilt[title] = picture.data
    if curves and rebuilt:
        names = {picture.name for picture in pictures.values()}
        raise TypeError(f"picture {', '.join(names)}: expected curves or records, got both")
    return draw_curves(curves) if curves else draw_records(rebuilt)


@matplotlib.rc_context(_STYLE)
def draw_curves(curves: Mapping[str, Curve]) -> bytes:
    """Draw the share of members found against the share of others accused, both on a log scale: a PNG."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axis = figure.subplots()
    axis.plot(RATES, RATES, color=_FAINT, linewidth=1, label="guessing")
    for number, (title, curve) in enumerate(curves.items()):
        visible = [max(rate, RATES[0] / 2) for rate in curve.found]  # a log scale has no 0
        axis.plot(RATES, visible, color=_COLOURS[number], linestyle=_LINES[number], linewidth=2, label=title)
    axis.set(xscale="log", yscale="log", xlim=(RATES[0], 1), ylim=(RATES[0], 1))
    for way in (axis.xaxis, axis.yaxis):
        way.set_major_formatter(lambda value, _: f"{value:.1%}".replace(".0%", "%"))
    axis.set_xlabel("share of the others who are accused wrongly")
    axis.set_ylabel("share of the members who are found")
    axis.legend(frameon=False, loc="lower right")
    return _png(figure)


@matplotlib.rc_context(_STYLE)
def epsilons(levels: Sequence[Level]) -> bytes | None:
    """Draw the claim of each level, and below it what attacks proved and suggested; None without a claim."""
    claimed = [level for level in levels if level.audit.claim]
    if not claimed:
        return None
    estimates = [estimates_of(level) for level in claimed]
    names = list(dict.fromkeys(name for of_level in estimates for name in of_level))
    figure = Figure(figsize=(6.4, 1.1 + 0.9 * len(claimed)), layout="constrained")
    axis = figure.subplots()
    for place, level in enumerate(claimed):
        claim = level.audit.claim
        axis.barh(place, claim.epsilon if claim else 0, 0.5, color="#dce6ee", label="claimed")
        axis.barh(place, level.audit.bound, 0.22, color="#0072b2", label="proven by attacks (at least)")
        for name, value in estimates[place].items():
            marker = _MARKERS[names.index(name) % len(_MARKERS)]
            axis.plot(value, place, marker, color=_COLOURS[0], markerfacecolor="white", label=f"estimate: {name}")
    axis.set_yticks(range(len(claimed)), [level.title for level in claimed])
    axis.set_ylim(len(claimed) - 0.5, -0.5)
    axis.set_xlabel("epsilon")
    axis.set_xlim(left=0)
    axis.grid(axis="y", visible=False)

    handles, labels = axis.get_legend_handles_labels()
    each_once = dict(zip(labels, handles, strict=True))
    figure.legend(each_once.values(), each_once.keys(), frameon=False, loc="outside upper left", ncols=2)
    return _png(figure)


def estimates_of(level: Level) -> dict[str, float]:
    """Collect a level's estimates of epsilon, {how it was estimated: the figure}."""
    estimates = {}
    for finding in level.audit.findings:
        for figure in finding.measured:
            if figure.quantity == "epsilon" and figure.value is not None:
                estimates[figure.name] = figure.value
    return estimates


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()
