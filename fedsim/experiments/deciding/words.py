"""Say in sentences what a sweep or a tuned comparison found."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from fedsim import figures
from fedsim.experiments.deciding.together import Released
from fedsim.outcomes import metric_named
from fedsim.privacy.accounting import HOPELESS
from fedsim.privacy.tiers import caution
from fedsim.report.statement import listed
from fedsim.results.multiple_comparisons import FEWEST_SEEDS
from fedsim.results.seeds import MOST_SEEDS, WORTH_TELLING
from fedsim.scenario.schema import Tuning

NONE = "none"


def _told_apart(rows: Sequence[Mapping[Any, Any]]) -> str:
    """Say which epsilons are told apart from the first one."""
    parts = []
    for verdict in ("lower", "higher"):
        names = [_under(row["epsilon"]) for row in rows if row["verdict"] == verdict]
        if names:
            parts.append(f"{listed(names)} {'is' if len(names) == 1 else 'are'} told to be {verdict}")
    return " and ".join(parts) or "nothing else can be told apart from it"


def of_arms(points: pd.DataFrame, contrasts: pd.DataFrame, metric: str) -> Iterator[str]:
    """Say, at the first epsilon, how each arm does beside the reference arm; the others are in the table.

    Args:
        points: As ``choice.points`` returns it.
        contrasts: As ``choice.by_arm`` returns it.
        metric: The name of the metric.
    """
    label = metric_named(metric).label
    first = points["epsilon"].iloc[0]
    for row in contrasts[contrasts["epsilon"] == first].to_dict("records"):
        place = "without privacy, " if first == NONE else f"at {_under(first)}, "
        figure = _mean(points, row["arm"], row["epsilon"])
        reference = _mean(points, row["against"], row["epsilon"])
        sentence = f"{place}the {row['arm']} arm has {label} {figure}, the {row['against']} one {reference}: "
        yield _capital(f"{sentence}{_difference(row)}")


def of_epsilons(points: pd.DataFrame, contrasts: pd.DataFrame, metric: str) -> Iterator[str]:
    """Say, in the first arm, what each epsilon gives or costs beside the first one; the others are in the table.

    Args:
        points: As ``choice.points`` returns it.
        contrasts: As ``choice.by_epsilon`` returns it.
        metric: The name of the metric.
    """
    label = metric_named(metric).label
    first_arm = points["arm"].iloc[0]
    rows = contrasts[contrasts["arm"] == first_arm].to_dict("records")
    if not rows:
        return
    against = rows[0]["against"]
    figure = _mean(points, first_arm, against)
    yield f"In the {first_arm} arm, {_under(against)} gives {label} {figure} on test rows; {_told_apart(rows)}."
    for row in rows:
        yield _capital(f"{_under(row['epsilon'])} instead: {_difference(row)}")


def alone(points: pd.DataFrame, metric: str) -> Iterator[str]:
    """Say how the only arm did, where there is nothing to compare it with."""
    for row in points.to_dict("records"):
        figure = figures.figure(row["mean"])
        place = "without privacy" if row["epsilon"] == NONE else f"at {_under(row['epsilon'])}"
        yield f"The {row['arm']} arm has {metric_named(metric).label} {figure} {place}."


def of_seeds(contrasts: pd.DataFrame, seeds: int) -> Iterator[str]:
    """Say how many seeds it would take to tell a small difference apart, on these records.

    Args:
        contrasts: As ``choice.by_arm`` or ``choice.by_epsilon`` returns it.
        seeds: How many there were.
    """
    if seeds < FEWEST_SEEDS:
        which = "One seed tells" if seeds == 1 else f"{seeds} seeds tell"
        yield f"{which} nothing apart: it takes {FEWEST_SEEDS} or more."
        return
    needed = contrasts["seeds_needed"].dropna().astype(float)
    if needed.empty:
        return
    size = figures.setting(WORTH_TELLING)
    if math.isinf(needed.max()):
        yield f"Where the spread is widest, more than {MOST_SEEDS} seeds would be needed to tell {size} from nothing."
        return
    yield (
        f"To tell a difference of {size} apart on these records, four times out of five, it would take about "
        f"{needed.min():.0f} to {needed.max():.0f} seeds, by the spread that is seen here; these are {seeds}."
    )


def _difference(row: Mapping[Any, Any]) -> str:
    """Return a paired difference with what may be concluded from it."""
    change = figures.figure(row["difference"], signed=True)
    if math.isnan(row["low"]):
        return f"{change} (there is no interval to judge it by)"
    within = figures.bounds(row["low"], row["high"], signed=True)
    if row["verdict"] in ("higher", "lower"):
        return f"{change} ({within}), {row['verdict']}"

    most_lost = max(0.0, -row["low"])
    ruled_out = f"a loss of more than {figures.figure(most_lost)} is ruled out"
    if row["here_verdict"] in ("higher", "lower"):
        here = figures.bounds(row["here_low"], row["here_high"], signed=True)
        return (
            f"{change} ({within}), not distinguishable at institutions like these, though {row['here_verdict']} on "
            f"these records ({here}); {ruled_out}"
        )
    return f"{change} ({within}), not distinguishable; {ruled_out}"


def _trainings(number: int) -> str:
    return "The one private training" if number == 1 else f"All {number} private trainings"


def _mean(points: pd.DataFrame, arm: str, epsilon: str) -> str:
    row = points[(points["arm"] == arm) & (points["epsilon"] == epsilon)].iloc[0]
    return figures.figure(float(row["mean"]))


def _under(epsilon: str) -> str:
    return "no privacy" if epsilon == NONE else f"epsilon {epsilon}"


def _capital(sentence: str) -> str:
    return f"{sentence[0].upper()}{sentence[1:]}."


def of_privacy(released: Sequence[Released], tuning: Tuning) -> Iterator[str]:
    """Say what the epsilons of a sweep cover, and what all of its private trainings come to together.

    Args:
        released: What they come to.
        tuning: What the scenario says of trainings that are chosen among.
    """
    each = "Each epsilon is that of one training"
    if tuning.charged:
        each = f"Each epsilon is that of {tuning.runs} trainings like the one that was run (privacy.tuning)"
    for one in released:
        weak = caution(one.epsilon)
        together = f"above {figures.setting(HOPELESS)}" if math.isinf(one.epsilon) else figures.epsilon(one.epsilon)
        yield (
            f"{each}, for one {one.protected}; choosing among those of this page is not charged. "
            f"{_trainings(one.trainings)} on the records of {one.scenario} come to epsilon {together} "
            f"together (composition, delta {figures.setting(one.delta)}){f'; {weak}' if weak else ''}. In a simulation "
            "that is the price of the comparison. Whoever chooses by this page on the very records that are then "
            "trained on has spent it, too. Trainings without privacy, and figures on validation and test rows, are "
            "covered by nothing."
        )
