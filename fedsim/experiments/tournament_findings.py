"""Say in words who won a tournament, and what the columns of its table mean."""

from collections.abc import Iterator, Sequence

import pandas as pd

from fedsim import figures
from fedsim.outcomes import metric_named
from fedsim.report.statement import listed
from fedsim.results.multiple_comparisons import FEWEST_SEEDS

_MEANINGS = {
    "group": "Strategies that cannot be told apart. Group 1 is the first strategy and all that are not told to be "
    "lower; group 2 is the first of the rest and all that are not told to be lower than that one. Being in one group "
    "does not show that strategies are equal.",
    "vs. first": "The difference to the first strategy of the table, paired by seed, and half its 95 % interval. The "
    "intervals are adjusted for all pairs, so that they hold together.",
    "worst": "The same figure at the site where it is lowest, the mean over seeds.",
    "spread": "How much sites differ: the standard deviation of the figure over the sites, the mean over seeds.",
    "MB": "Megabytes that one training sends between the server and all sites, both ways together.",
    "rounds": "Rounds until the target is reached on validation rows, the median over seeds; a dash where half of the "
    "seeds do not reach it.",
    "time": "Virtual time until the target is reached, where sites differ in speed. A training of a typical site takes "
    "one unit.",
}


def winners(ranked: pd.DataFrame, axes: Sequence[str], metric: str, seeds: int) -> Iterator[str]:
    """Say who is best, in a sentence for each field of the grid.

    Args:
        ranked: As ``ranking.rank`` returns it: the best first in each field.
        axes: The axes of the grid.
        metric: The name of the metric.
        seeds: How many there were.
    """
    fields = [name for name in axes if name != "strategy"]
    varied = [name for name in fields if ranked[name].nunique() > 1]
    for _, field in ranked.groupby(fields, sort=False):
        place = ", ".join(_place(name, str(field[name].iloc[0])) for name in varied)
        sentence = _winner(field, metric_named(metric).label, seeds)
        yield f"With {place}: {sentence}" if place else sentence


def column_meanings(columns: Sequence[str], metric: str, seeds: int) -> Iterator[tuple[str, str]]:
    """Yield the columns of the table that need an explanation, each with its meaning."""
    for name in columns:
        if name == metric:
            label = metric_named(metric).label
            over = "of one seed" if seeds == 1 else f"the mean over {seeds} seeds and half its 95 % interval"
            yield name, f"{label[0].upper()}{label[1:]} on test rows, each compared with rows of its own site: {over}."
        elif name in _MEANINGS:
            yield name, _MEANINGS[name]


def _place(axis: str, value: str) -> str:
    """Return an axis and its value as in a sentence: ``epsilon 8``, or ``no privacy``."""
    if value == "none":
        return "no privacy" if axis == "epsilon" else f"no {axis}"
    return f"{axis} {value}"


def _winner(field: pd.DataFrame, label: str, seeds: int) -> str:
    best = field.iloc[0]
    figure = f"{label} {figures.figure(best['mean'])} on test rows"
    if len(field) == 1:
        return f"{best['strategy']} ran alone, with {figure}, so there is no winner."

    by = "validation" if field["validation"].notna().all() else "test"
    reached = f"{best['strategy']} has the highest {by} figure ({figure})"
    higher = field[field["verdict"] == "higher"]["strategy"].tolist()
    if higher:
        verb = "is" if len(higher) == 1 else "are"
        return f"{reached}, but {listed(higher)} {verb} told to be higher on test rows, so there is no winner."
    if seeds < FEWEST_SEEDS:
        which = "one seed names" if seeds == 1 else f"{seeds} seeds name"
        return f"{reached}, but {which} no winner; take {FEWEST_SEEDS} or more."

    rivals = field[field["group"] == best["group"]]["strategy"].tolist()[1:]
    if not rivals:
        return f"{best['strategy']} wins: with {figure} it is told apart from all others."
    if len(rivals) == len(field) - 1:
        return f"{reached}, but no strategy can be told apart from it, so there is no winner."
    below = field[field["group"] != best["group"]]["strategy"].tolist()
    verb = "is" if len(below) == 1 else "are"
    return f"{reached}; {listed(rivals)} cannot be told apart from it, and {listed(below)} {verb} told to be lower."
