"""Pictures of a story: membership, claimed against proven epsilon, and a record beside what was rebuilt of it."""

from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from fedsim.audits.bounds import RATES
from fedsim.audits.pictures import names_of, side_by_side
from fedsim.audits.story import Level
from fedsim.data.tables import Column
from fedsim.report.chart_style import BLUE, COLOURS, FAINT, LINES, ORANGE, STYLE, png


@matplotlib.rc_context(STYLE)
def membership(levels: Sequence[Level]) -> bytes:
    """Draw the share of members that LiRA finds against the share of others it accuses, both on a log scale: a PNG."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axis = figure.subplots()
    axis.plot(RATES, RATES, color=FAINT, linewidth=1, label="guessing")
    for number, level in enumerate(levels):
        if attacks := level.audit.membership.get(level.kind):
            curve = [max(rate, RATES[0] / 2) for rate in attacks["lira"].curve]
            axis.plot(
                RATES,
                curve,
                color=COLOURS[number],
                linestyle=LINES[number % len(LINES)],
                linewidth=2,
                label=level.title,
            )
    axis.set(xscale="log", yscale="log", xlim=(RATES[0], 1), ylim=(RATES[0], 1))
    for way in (axis.xaxis, axis.yaxis):
        way.set_major_formatter(lambda value, _: f"{value:.1%}".replace(".0%", "%"))
    axis.set_xlabel("share of the others who are accused wrongly")
    axis.set_ylabel("share of the members who are found")
    axis.legend(frameon=False, loc="lower right")
    return png(figure)


@matplotlib.rc_context(STYLE)
def epsilons(levels: Sequence[Level]) -> bytes | None:
    """Draw what was claimed at each level, and below it what attacks proved and suggested; None if nothing was."""
    claimed = [level for level in levels if level.audit.claim]
    if not claimed:
        return None
    figure = Figure(figsize=(6.4, 1.1 + 0.9 * len(claimed)), layout="constrained")
    axis = figure.subplots()
    for place, level in enumerate(claimed):
        found = level.audit
        axis.barh(place, found.claim.epsilon if found.claim else 0, 0.5, color="#dce6ee", label="claimed")
        axis.barh(place, found.bound, 0.22, color=BLUE, label="proven by attacks (at least)")
        for mark, name, value in (
            ("D", "estimate: a canary, in or out", found.paired and found.paired.estimate),
            ("o", "estimate: final model only", found.one_shot and found.one_shot.estimate),
        ):
            if value is not None:
                axis.plot(value, place, mark, color=ORANGE, markerfacecolor="white", label=name)
    axis.set_yticks(range(len(claimed)), [level.title for level in claimed])
    axis.set_ylim(len(claimed) - 0.5, -0.5)
    axis.set_xlabel("epsilon")
    axis.set_xlim(left=0)
    axis.grid(axis="y", visible=False)
    labels = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(labels.values(), labels.keys(), frameon=False, loc="outside upper left", ncols=2)
    return png(figure)


def records(levels: Sequence[Level], columns: Sequence[Column]) -> bytes | None:
    """Draw a record, and below it what was rebuilt of it at each level; None if none was."""
    found = [(level, next(iter(own.values()))) for level in levels if (own := level.audit.inversion.get(level.kind))]
    if not found:
        return None
    record = found[0][1].record
    pictures = {"a record, as the model sees it": record}
    pictures |= {f"rebuilt from its update alone, {level.title}": one.rebuilt for level, one in found}
    return side_by_side(pictures, names_of(columns, record.size))
