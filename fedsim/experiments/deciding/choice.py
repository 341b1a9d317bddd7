"""Choose settings by validation rows, seed by seed, and compare what was chosen on test rows.

Each seed is a fold of its own: the settings that it is tested with are chosen by its own validation rows, and by no row
that it is tested on (nested cross-validation). A choice by the mean over seeds would look at rows that another seed
tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fedsim.experiments.ranking import alone, is_kept, step_of
from fedsim.outcomes import metric_named
from fedsim.results.comparison import verdict
from fedsim.results.evaluation import INSIDE, TOGETHER, headline_of
from fedsim.results.multiple_comparisons import differences
from fedsim.results.seeds import WORTH_TELLING, seeds_needed

QUESTIONS = ["arm", "epsilon"]
"""What is compared: settings are chosen for each of these alone."""


@dataclass(frozen=True)
class Chosen:
    """What was chosen and how it did.

    Attributes:
        trainings: A row for each training that could be chosen: arm, epsilon, seed, the settings,
            ``validation`` (after the last round), ``test`` and whether it was ``chosen``.
        figures: The test figures of what was chosen, a row for each seed and a column for each (arm,
            epsilon).
        step: The least amount by which two of these figures can differ at one seed.
        overlap: Of the seeds' rows, as ``comparison.interval`` takes it.
        metric: The name of the metric.
        settings: The names of the settings that are chosen among.
    """

    trainings: pd.DataFrame
    figures: pd.DataFrame
    step: float
    overlap: float
    metric: str
    settings: Sequence[str]


def choose(
    scores: pd.DataFrame,
    curves: pd.DataFrame,
    settings: Sequence[str],
    metric: str,
    overlap: float,
) -> Chosen:
    """Choose, for each arm, epsilon and seed, the settings with the best validation figure.

    Args:
        scores: Test figures: arm, epsilon, the settings, seed, site and the metrics.
        curves: Validation figures: the same without sites, and the round.
        settings: The names of the settings.
        metric: The name of the metric; higher is better.
        overlap: Of the seeds' rows.
    """
    keys = [*QUESTIONS, *settings, "seed"]
    headline = headline_of(scores, metric)
    whole = scores[scores["site"] == headline]
    tested = whole.set_index(keys)[metric].astype(float).rename("test")
    trainings = tested.reset_index()
    trainings["validation"] = _last(curves, keys, metric).reindex(tested.index).to_numpy()

    # Of equals the first is taken: the scenario's own settings, or those that were typed first. Where there is
    # something to choose, a training without a validation figure can't be chosen.
    by = trainings["validation"].fillna(-np.inf)
    if settings:
        by = by[trainings["validation"].notna()]
    places = [trainings.loc[by.index, name] for name in [*QUESTIONS, "seed"]]
    best = by.groupby(places, sort=False).idxmax()
    trainings["chosen"] = trainings.index.isin(best)

    chosen = trainings[trainings["chosen"]]
    figures = chosen.pivot(index="seed", columns=QUESTIONS, values="test")
    order = list(dict.fromkeys(zip(chosen["arm"], chosen["epsilon"], strict=True)))
    counted = scores[~scores["site"].isin(TOGETHER)] if headline == INSIDE else whole
    return Chosen(
        trainings=trainings,
        figures=figures[order],
        step=step_of(counted, metric, [*QUESTIONS, *settings]),
        overlap=overlap,
        metric=metric,
        settings=list(settings),
    )


def _last(curves: pd.DataFrame, keys: list[str], metric: str) -> pd.Series:
    """Return {(arm, epsilon, settings, seed): validation figure after the round whose models are kept}."""
    if metric not in curves:
        return pd.Series(dtype=float, index=pd.MultiIndex.from_tuples([], names=keys))
    return curves[is_kept(curves, keys)].set_index(keys)[metric].astype(float)


def points(chosen: Chosen) -> pd.DataFrame:
    """Return a row for each arm and epsilon.

    Returns:
        ``arm, epsilon``, ``mean, low, high`` of the test figures with the interval of this one alone,
        ``validation`` and the ``settings`` that were chosen, with how many seeds chose them.
    """
    rows = []
    metric = metric_named(chosen.metric)
    for arm, epsilon in chosen.figures.columns:
        mean, low, high = alone(chosen.figures[arm, epsilon], chosen.overlap, metric)
        here = chosen.trainings[
            chosen.trainings["chosen"] & (chosen.trainings["arm"] == arm) & (chosen.trainings["epsilon"] == epsilon)
        ]
        rows.append({
            "arm": arm,
            "epsilon": epsilon,
            "mean": mean,
            "low": low,
            "high": high,
            "validation": float(here["validation"].mean()),
            "settings": _in_words(here, chosen.settings),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _in_words(chosen: pd.DataFrame, settings: Sequence[str]) -> str:
    """Return the settings that were chosen, the commonest first: ``training.optimizer.lr=0.5 (4 of 5 seeds)``."""
    if not settings:
        return ""
    shown = [name for name in settings if name != TRIAL]
    texts = []
    for row in chosen[shown].to_dict("records"):
        texts.append(", ".join(f"{name}={value}" for name, value in row.items() if value != NOT_FOR_IT))
    counts = pd.Series(texts).value_counts(sort=True)
    if len(counts) == 1:
        return texts[0]
    if TRIAL in settings:
        return ", ".join(_range(name, chosen[name]) for name in shown if chosen[name].iloc[0] != NOT_FOR_IT)
    return "; ".join(f"{text} ({count} of {len(texts)} seeds)" for text, count in counts.items())


def _range(name: str, values: pd.Series) -> str:
    """Return the values of a setting over the seeds: from the least to the largest, or all of them."""
    distinct = list(dict.fromkeys(map(str, values)))
    try:
        distinct.sort(key=float)
    except ValueError:
        return f"{name}={' or '.join(distinct)}"
    return f"{name}={distinct[0]}" if len(distinct) == 1 else f"{name}={distinct[0]} to {distinct[-1]}"


TRIAL = "trial"
"""The number of a trial of a search: it tells settings apart, and says nothing to people."""


NOT_FOR_IT = "-"
"""Stands for the value of a setting that has no meaning for an arm, such as the strategy of the local one."""


def by_epsilon(chosen: Chosen) -> pd.DataFrame:
    """Compare each epsilon with the first one, in each arm; see ``_contrasts`` for the columns."""
    tables = []
    for arm in dict.fromkeys(chosen.figures.columns.get_level_values("arm")):
        figures = pd.DataFrame(chosen.figures.xs(arm, axis=1, level="arm"))
        table = _contrasts(chosen, figures, "epsilon")
        table.insert(0, "arm", arm)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def by_arm(chosen: Chosen, reference: str) -> pd.DataFrame:
    """Compare each arm with a reference arm, at each epsilon; see ``_contrasts`` for the columns."""
    tables = []
    for epsilon in dict.fromkeys(chosen.figures.columns.get_level_values("epsilon")):
        figures = pd.DataFrame(chosen.figures.xs(epsilon, axis=1, level="epsilon"))
        if reference not in figures:
            continue
        others = [name for name in figures if name != reference]
        table = _contrasts(chosen, figures[[reference, *others]], "arm")
        table.insert(0, "epsilon", epsilon)
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["epsilon", "arm", "against"])


def _contrasts(chosen: Chosen, figures: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Compare each column with the first.

    Returns:
        A row for each column but the first: its name under ``axis``, ``against`` which it is compared, the mean
        paired ``difference``, ``low, high`` and the ``verdict`` at institutions like these, ``here_low, here_high``
        and ``here_verdict`` on these records (see decision 0001), all adjusted for the comparisons with the first,
        and ``seeds_needed`` to tell a difference of ``WORTH_TELLING`` apart on these records.
    """
    names = list(figures.columns)
    comparisons = max(1, len(names) - 1)
    values = figures.to_numpy(dtype=float)
    elsewhere = differences(values, chosen.overlap, chosen.step, comparisons)
    here = differences(values, 0.0, chosen.step, comparisons)
    rows = []
    for number, name in enumerate(names[1:], start=1):
        paired = values[:, number] - values[:, 0]
        rows.append({
            axis: name,
            "against": names[0],
            "difference": elsewhere.mean[number, 0],
            "low": elsewhere.low[number, 0],
            "high": elsewhere.high[number, 0],
            "verdict": elsewhere.verdict(number, 0),
            "here_low": here.low[number, 0],
            "here_high": here.high[number, 0],
            "here_verdict": verdict(here.low[number, 0], here.high[number, 0]),
            "seeds_needed": seeds_needed(paired, WORTH_TELLING, 0.0, comparisons),
        })  # fmt: skip
    columns = [axis, "against", "difference", "low", "high", "verdict", "here_low", "here_high", "here_verdict"]
    return pd.DataFrame(rows, columns=[*columns, "seeds_needed"])
