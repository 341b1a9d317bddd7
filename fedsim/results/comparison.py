"""Compare arms over seeds: means, paired differences, and intervals for two questions.

The question HERE is about these records: which scores would noise, initial weights or a strategy
give on average, if training were repeated again and again on the records of this run? The question
ELSEWHERE is about institutions like these: which scores would they give with another sample of
their patients, customers or pupils? Each question has an interval of its own, see
docs/decisions/0001.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit  # Student's t quantile, as in scipy.stats, which takes a second to import

from fedsim.outcomes import is_metric, metric_named
from fedsim.outcomes.metric import Metric

CONFIDENCE = 0.95
SAME = "not distinguishable"
HERE = "on these records"
ELSEWHERE = "at institutions like these"

# Why there is no interval, and so no verdict.
ONE_SEED = "one seed gives no interval"
TWO_SEEDS = "two seeds give no verdict"
AGREE = "all seeds agree"
UNBOUNDED = "these seeds do not bound it"

_LEAST_SEEDS = 3
_AGREE = 1e-12  # a spread that is no more than rounding

_BASE = "base rate"  # stands where an arm's name does; no arm is called so
_Key = tuple[Any, ...]  # (private, arm, site)


@dataclass(frozen=True)
class Reference:
    """An arm that the others are compared with, and the columns of that comparison."""

    arm: str
    name: str
    verdict: str
    here_verdict: str


REFERENCES = (
    Reference("centralized", "difference", "verdict", "here_verdict"),
    Reference("local", "gain", "gain_verdict", "gain_here_verdict"),
)


@dataclass(frozen=True)
class Stated:
    """A mean over seeds with the interval that may be stated.

    Attributes:
        mean: The mean; NaN where no value is known.
        low: The interval's lower end; NaN where there is no interval.
        high: The interval's upper end.
        why: The reason why there is no interval; empty where there is an interval, and where no
            value is known.
    """

    mean: float
    low: float
    high: float
    why: str = ""


def interval(values: pd.Series, overlap: float) -> tuple[float, float, float]:
    """Compute mean, low and high of a metric over seeds; the bounds are NaN for fewer than two.

    With an overlap it answers ELSEWHERE: the corrected resampled t interval of Nadeau and Bengio,
    "Inference for the Generalization Error", Machine Learning 52, 2003 (section 3). The training
    rows of different seeds overlap, and so the variance of the mean is s^2 (1/J + test share /
    training share), with J - 1 degrees of freedom.

    With an overlap of 0 it is the plain t interval over seeds. Of differences that are paired by
    seed it answers HERE.

    This is the formula alone. ``state`` also knows which intervals may be shown to people.

    Args:
        values: The metric, seed by seed.
        overlap: Test share over training share, or 0.
    """
    means, lows, highs = _intervals(values.to_numpy(dtype=float)[None], overlap)  # of a single row
    return float(means[0]), float(lows[0]), float(highs[0])


def state(
    values: pd.Series,
    overlap: float,
    ends: tuple[float, float] = (-math.inf, math.inf),
) -> Stated:
    """Compute the mean of a metric over seeds, and its interval if the interval says something.

    There is no interval below three seeds; none where all seeds have the same value, since a width
    of zero would look like certainty; and none that covers all possible values. Else the interval
    is cut where the metric ends.

    Args:
        values: The metric, seed by seed.
        overlap: As in ``interval``.
        ends: The least and the largest value of the metric.
    """
    stated = state_all(values.to_numpy(dtype=float)[None], overlap, ends)  # of a single row
    return Stated(
        mean=float(stated["mean"][0]),
        low=float(stated["low"][0]),
        high=float(stated["high"][0]),
        why=str(stated["why"][0]),
    )


def compare(scores: pd.DataFrame, overlap: float) -> pd.DataFrame:
    """Compare arms, over all sites and at each site.

    Args:
        scores: A row for each arm, private, seed and site, with a column for each metric.
        overlap: Test share over training share; 0 where all seeds have the same rows. Then HERE is
            the only question that seeds can answer, and the intervals called ELSEWHERE below are
            those of HERE, too.

    Returns:
        A row for each private, arm, metric and site (the rows of all sites are sites here, see
        ``evaluation``):

        - ``mean``, with the interval for ELSEWHERE: ``low, high``, and ``why`` there is none;
        - the ``difference`` to the centralized arm of the same privacy, paired by seed:
          ``difference_low``, ``difference_high``, ``difference_why`` and the ``verdict``, for
          ELSEWHERE; then ``difference_here_low``, ``difference_here_high``,
          ``difference_here_why`` and ``here_verdict`` for HERE;
        - the ``gain`` over the local arm likewise, with ``gain_verdict`` and ``gain_here_verdict``.

        Means and intervals are those of ``state``, which also says when there is none.
    """
    columns = (scores["private"], scores["arm"], scores["site"])
    keys = list(dict.fromkeys(zip(*columns, strict=True)))
    metrics = [metric_named(str(name)) for name in scores if is_metric(str(name))]
    tables = [_compare_by(metric, scores, keys, overlap) for metric in metrics]
    return pd.concat(tables, ignore_index=True)


def _compare_by(
    metric: Metric,
    scores: pd.DataFrame,
    keys: list[_Key],
    overlap: float,
) -> pd.DataFrame:
    """Compare arms by a metric: the rows of ``compare`` for it."""
    values = _by_seed(scores, metric.name, keys)  # (keys, seeds)
    table = pd.DataFrame(keys, columns=["private", "arm", "site"])
    table["metric"] = metric.name
    stated = state_all(values, overlap, (metric.low, metric.high))
    table[["mean", "low", "high", "why"]] = pd.DataFrame(stated)

    span = metric.high - metric.low
    for reference in REFERENCES:
        change = values - _of_reference(values, keys, reference.arm)  # (keys, seeds)
        elsewhere = state_all(change, overlap, (-span, span))
        here = state_all(change, 0.0, (-span, span))

        table[reference.name] = elsewhere["mean"]
        add_interval(table, reference.name, reference.verdict, elsewhere)
        add_interval(table, f"{reference.name}_here", reference.here_verdict, here)
    return table


def compare_with_base(scores: pd.DataFrame, base: pd.DataFrame, overlap: float) -> pd.DataFrame:
    """Compare arms with the base rate, over all sites.

    Args:
        scores: As in ``compare``.
        base: A row for each seed and each of the sites that stand for all, as ``base_rates``
            returns them, with a column ``seed``.
        overlap: As in ``compare``.

    Returns:
        A row for each private, arm, metric and site of ``base``: the mean ``base`` rate, and the
        ``difference`` of the arm to it, paired by seed, with the columns that ``compare`` has for a
        difference.
    """
    together = scores[scores["site"].isin(set(base["site"]))]
    as_arm = base.assign(private=False, arm=_BASE)
    both = pd.concat([together, as_arm], ignore_index=True)
    columns = (together["private"], together["arm"], together["site"])
    keys = list(dict.fromkeys(zip(*columns, strict=True)))
    base_keys = [(False, _BASE, site) for _, _, site in keys]

    tables = []
    for metric in [metric_named(str(name)) for name in scores if is_metric(str(name))]:
        values = _by_seed(both, metric.name, keys)  # (keys, seeds)
        base_values = _by_seed(both, metric.name, base_keys)  # (keys, seeds)
        change = values - base_values
        span = metric.high - metric.low
        elsewhere = state_all(change, overlap, (-span, span))
        here = state_all(change, 0.0, (-span, span))

        table = pd.DataFrame(keys, columns=["private", "arm", "site"])
        table["metric"] = metric.name
        table["base"] = state_all(base_values, overlap, (metric.low, metric.high))["mean"]
        table["difference"] = elsewhere["mean"]
        add_interval(table, "difference", "verdict", elsewhere)
        add_interval(table, "difference_here", "here_verdict", here)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _of_reference(values: np.ndarray, keys: list[_Key], reference_arm: str) -> np.ndarray:
    """Find the reference arm's value for each (private, arm, site), seed by seed.

    Args:
        values: A metric of each key, (keys, seeds).
        keys: (private, arm, site).
        reference_arm: The arm that the others are compared with.

    Returns:
        (keys, seeds); NaN for the reference arm itself, and where it was not trained.
    """
    place_of_key = {key: place for place, key in enumerate(keys)}
    reference = np.full_like(values, math.nan)
    for place, (private, arm, site) in enumerate(keys):
        reference_place = place_of_key.get((private, reference_arm, site))
        if reference_place is not None and arm != reference_arm:
            reference[place] = values[reference_place]
    return reference


def add_interval(
    table: pd.DataFrame,
    name: str,
    verdict_name: str,
    stated: dict[str, np.ndarray],
) -> None:
    """Add the columns of a difference's interval, and of its verdict, to a table."""
    for end in ("low", "high", "why"):
        table[f"{name}_{end}"] = stated[end]
    ends = zip(stated["low"], stated["high"], strict=True)
    table[verdict_name] = [verdict(low, high) for low, high in ends]


def verdict(low: float, high: float) -> str | None:
    """Judge a difference by its interval; None where there is no interval.

    The verdict is ``higher`` or ``lower`` than zero, whichever direction is better.
    """
    if math.isnan(low):
        return None
    if low > 0:
        return "higher"
    if high < 0:
        return "lower"
    return SAME


def _by_seed(scores: pd.DataFrame, metric: str, keys: Sequence[_Key]) -> np.ndarray:
    """Arrange a metric by (private, arm, site) and seed: (keys, seeds), NaN where it is unknown."""
    index = ["private", "arm", "site"]
    known = scores[[*index, "seed"]].assign(value=scores[metric].astype(float))
    by_seed = known.pivot_table(index=index, columns="seed", values="value", dropna=False)
    return by_seed.reindex(pd.MultiIndex.from_tuples(keys)).to_numpy(dtype=float)


def _intervals(values: np.ndarray, overlap: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute mean, low and high of each row of values, as ``interval`` defines them.

    Args:
        values: (rows, seeds), NaN or infinite where a value is unknown.
        overlap: As in ``interval``.

    Returns:
        Mean, low and high, each (rows,).
    """
    known = np.isfinite(values)
    count = known.sum(axis=1)  # (rows,), as all below
    sums = np.where(known, values, 0.0).sum(axis=1)
    mean = np.where(count > 0, sums / np.maximum(count, 1), math.nan)
    squares = np.where(known, (values - mean[:, None]) ** 2, 0.0).sum(axis=1)

    # The corrected variance of the mean, s^2 (1/J + overlap), with J - 1 degrees of freedom.
    freedom = np.maximum(count - 1, 1)
    variance = squares / freedom * (1 / np.maximum(count, 1) + overlap)
    reach = stdtrit(freedom, (1 + CONFIDENCE) / 2) * np.sqrt(variance)
    reach = np.where(count < 2, math.nan, reach)
    return mean, mean - reach, mean + reach


def state_all(
    values: np.ndarray,
    overlap: float,
    ends: tuple[float, float],
) -> dict[str, np.ndarray]:
    """Compute mean, low, high and why of each row of values, as ``state`` does.

    Args:
        values: (rows, seeds).
        overlap: As in ``interval``.
        ends: As in ``state``.

    Returns:
        Arrays (rows,).
    """
    mean, low, high = _intervals(values, overlap)
    known = np.isfinite(values)
    count = known.sum(axis=1)
    least = np.where(known, values, math.inf).min(axis=1, initial=math.inf)
    most = np.where(known, values, -math.inf).max(axis=1, initial=-math.inf)
    rounding = _AGREE * np.maximum(1.0, np.abs(mean))

    # The first reason that holds is given.
    reasons = {
        "": count == 0,
        ONE_SEED: count == 1,
        TWO_SEEDS: count < _LEAST_SEEDS,
        AGREE: most - least <= rounding,
        UNBOUNDED: (low <= ends[0]) & (high >= ends[1]),
    }
    why = np.select(list(reasons.values()), list(reasons), default="")

    has_interval = (why == "") & (count > 0)
    return {
        "mean": np.clip(mean, *ends),
        "low": np.where(has_interval, np.clip(low, *ends), math.nan),
        "high": np.where(has_interval, np.clip(high, *ends), math.nan),
        "why": why.astype(object),
    }
