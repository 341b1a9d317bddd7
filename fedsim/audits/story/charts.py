"""Pictures of a story: ROC curves, claimed against proven epsilon, and a record beside its reconstructions."""

from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure

from fedsim.audits.bounds import RATES
from fedsim.audits.finding import Curve, Picture
from fedsim.audits.pictures import draw_records
from fedsim.audits.story.levels import Level
from fedsim.report.chart_style import BLUE, COLOURS, FAINT, LINES, MARKERS, ORANGE, STYLE, png


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


@matplotlib.rc_context(STYLE)
def draw_curves(curves: Mapping[str, Curve]) -> bytes:
    """Draw the share of members found against the share of others accused, both on a log scale: a PNG."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axis = figure.subplots()
    axis.plot(RATES, RATES, color=FAINT, linewidth=1, label="guessing")
    for number, (title, curve) in enumerate(curves.items()):
        visible = [max(rate, RATES[0] / 2) for rate in curve.found]  # a log scale has no 0
        axis.plot(RATES, visible, color=COLOURS[number], linestyle=LINES[number % len(LINES)], linewidth=2, label=title)
    axis.set(xscale="log", yscale="log", xlim=(RATES[0], 1), ylim=(RATES[0], 1))
    for way in (axis.xaxis, axis.yaxis):
        way.set_major_formatter(lambda value, _: f"{value:.1%}".replace(".0%", "%"))
    axis.set_xlabel("share of the others who are accused wrongly")
    axis.set_ylabel("share of the members who are found")
    axis.legend(frameon=False, loc="lower right")
    return png(figure)


@matplotlib.rc_context(STYLE)
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
        axis.barh(place, level.audit.bound, 0.22, color=BLUE, label="proven by attacks (at least)")
        for name, value in estimates[place].items():
            marker = MARKERS[names.index(name) % len(MARKERS)]
            axis.plot(value, place, marker, color=ORANGE, markerfacecolor="white", label=f"estimate: {name}")
    axis.set_yticks(range(len(claimed)), [level.title for level in claimed])
    axis.set_ylim(len(claimed) - 0.5, -0.5)
    axis.set_xlabel("epsilon")
    axis.set_xlim(left=0)
    axis.grid(axis="y", visible=False)

    handles, labels = axis.get_legend_handles_labels()
    each_once = dict(zip(labels, handles, strict=True))
    figure.legend(each_once.values(), each_once.keys(), frameon=False, loc="outside upper left", ncols=2)
    return png(figure)


def estimates_of(level: Level) -> dict[str, float]:
    """Collect a level's estimates of epsilon, {how it was estimated: the figure}."""
    estimates = {}
    for finding in level.audit.findings:
        for figure in finding.measured:
            if figure.quantity == "epsilon" and figure.value is not None:
                estimates[figure.name] = figure.value
    return estimates
