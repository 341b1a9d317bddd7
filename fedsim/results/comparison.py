"""From the scores of all seeds to a fair comparison: means, paired differences, and intervals for two questions.

HERE asks what happened on these records: what would noise, initial weights or a strategy give on average, if one
trained again and again on the records of this run? ELSEWHERE asks what would happen at institutions like these: with
another sample of their patients, customers or pupils. Each has an interval of its own, see docs/decisions/0001.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t

from fedsim.results.metrics import BY_NAME

CONFIDENCE = 0.95
SAME = "not distinguishable"
HERE, ELSEWHERE = "on these records", "at institutions like these"

# Why there is no interval, and so no verdict.
ONE_SEED = "one seed gives no interval"
TWO_SEEDS = "two seeds give no verdict"
AGREE = "all seeds agree"
UNBOUNDED = "these seeds do not bound it"

_LEAST_SEEDS = 3
_AGREE = 1e-12  # a spread that is no more than rounding


@dataclass(frozen=True)
class Reference:
    """An arm that the others are compared with: the name of the comparison, and of its verdicts."""

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
        mean: The mean; NaN where nothing is known.
        low: The interval's lower end; NaN where there is no interval.
        high: Its upper end.
        why: Why there is no interval; empty where there is one, and where nothing is known.
    """

    mean: float
    low: float
    high: float
    why: str = ""


def interval(values: pd.Series, overlap: float) -> tuple[float, float, float]:
    """Compute mean, low and high of a metric over seeds; the bounds are NaN when there are fewer than two.

    With an overlap it answers ELSEWHERE: the corrected resampled t interval of Nadeau and Bengio, "Inference for the
    Generalization Error", Machine Learning 52, 2003 (section 3). The training rows of different seeds overlap, and so
    the variance of the mean is s^2 (1/J + test share / training share), with J - 1 degrees of freedom.

    With an overlap of 0 it is the plain t interval over seeds. Of differences that are paired by seed it answers HERE.

    This is the formula alone. ``state`` also knows which intervals may be shown to people.

    Args:
        values: The metric, seed by seed.
        overlap: Test share over training share, or 0.
    """
    means, lows, highs = _intervals(values.to_numpy(dtype=float)[None], overlap)
    return float(means[0]), float(lows[0]), float(highs[0])


def state(values: pd.Series, overlap: float, ends: tuple[float, float] = (-math.inf, math.inf)) -> Stated:
    """Compute what may be stated of a metric over seeds: its mean, and an interval if it says something.

    There is none below three seeds; none where all seeds have the same value, since a width of zero would look like
    certainty; and none that covers all that is possible. Else it is cut where the metric ends.

    Args:
        values: The metric, seed by seed.
        overlap: As of ``interval``.
        ends: Between which values the metric is.
    """
    found = _state_all(values.to_numpy(dtype=float)[None], overlap, ends)
    return Stated(float(found["mean"][0]), float(found["low"][0]), float(found["high"][0]), str(found["why"][0]))


def compare(scores: pd.DataFrame, overlap: float) -> pd.DataFrame:
    """Compare arms, over all sites and at each site.

    Args:
        scores: A row for each arm, private, seed and site, with a column for each metric.
        overlap: Test share over training share; 0 where all seeds have the same rows. Then HERE is the only question
            that seeds can answer, and the intervals called ELSEWHERE below are those of HERE, too.

    Returns:
        A row for each private, arm, metric and site (the rows of all sites are sites here, see ``evaluation``):

        - ``mean``, with the interval for ELSEWHERE: ``low, high``, and ``why`` there is none;
        - the ``difference`` to the centralized arm of the same privacy, paired by seed: ``difference_low``,
          ``difference_high``, ``difference_why`` and what it says, ``verdict``, for ELSEWHERE; then
          ``difference_here_low``, ``difference_here_high``, ``difference_here_why`` and ``here_verdict`` for HERE;
        - the ``gain`` over the local arm likewise, with ``gain_verdict`` and ``gain_here_verdict``.

        What is stated, and when there is no interval, is as of ``state``.
    """
    keys = list(dict.fromkeys(zip(scores["private"], scores["arm"], scores["site"], strict=True)))
    place = {key: number for number, key in enumerate(keys)}
    tables = []
    for metric in [BY_NAME[str(name)] for name in scores if name in BY_NAME]:
        own = _by_seed(scores, metric.name, keys)  # (keys, seeds)
        table = pd.DataFrame(keys, columns=["private", "arm", "site"])
        table["metric"] = metric.name
        table[["mean", "low", "high", "why"]] = pd.DataFrame(_state_all(own, overlap, (metric.low, metric.high)))

        span = metric.high - metric.low
        for reference in REFERENCES:
            others = np.full_like(own, math.nan)
            for number, (private, arm, site) in enumerate(keys):
                other = place.get((private, reference.arm, site))
                if other is not None and arm != reference.arm:
                    others[number] = own[other]
            elsewhere = _state_all(own - others, overlap, (-span, span))
            here = _state_all(own - others, 0.0, (-span, span))
            table[reference.name] = elsewhere["mean"]
            for name, verdict_name, found in (
                (reference.name, reference.verdict, elsewhere),
                (f"{reference.name}_here", reference.here_verdict, here),
            ):
                for end in ("low", "high", "why"):
                    table[f"{name}_{end}"] = found[end]
                table[verdict_name] = [verdict(*ends) for ends in zip(found["low"], found["high"], strict=True)]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def verdict(low: float, high: float) -> str | None:
    """Return what a difference's interval says, whichever way is the better one."""
    if math.isnan(low):
        return None
    return "higher" if low > 0 else "lower" if high < 0 else SAME


def _by_seed(scores: pd.DataFrame, metric: str, keys: Sequence[tuple[Any, ...]]) -> np.ndarray:
    """Return a metric of each (private, arm, site), seed by seed: (keys, seeds), NaN where it is not known."""
    known = scores[["private", "arm", "site", "seed"]].assign(value=scores[metric].astype(float))
    wide = known.pivot_table(index=["private", "arm", "site"], columns="seed", values="value", dropna=False)
    return wide.reindex(pd.MultiIndex.from_tuples(keys)).to_numpy(dtype=float)


def _intervals(values: np.ndarray, overlap: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, low and high of each row of values, (rows, seeds), as ``interval`` defines them; each (rows,)."""
    count = np.isfinite(values).sum(axis=1)
    known = np.where(np.isfinite(values), values, 0.0)
    mean = np.where(count > 0, known.sum(axis=1) / np.maximum(count, 1), math.nan)
    squares = np.where(np.isfinite(values), (values - mean[:, None]) ** 2, 0.0).sum(axis=1)
    freedom = np.maximum(count - 1, 1)
    half = t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(squares / freedom * (1 / np.maximum(count, 1) + overlap))
    half = np.where(count < 2, math.nan, half)
    return mean, mean - half, mean + half


def _state_all(values: np.ndarray, overlap: float, ends: tuple[float, float]) -> dict[str, np.ndarray]:
    """Return mean, low, high and why of each row of values, (rows, seeds), as ``state`` does; each (rows,)."""
    mean, low, high = _intervals(values, overlap)
    finite = np.isfinite(values)
    count = finite.sum(axis=1)
    least = np.where(finite, values, math.inf).min(axis=1, initial=math.inf)
    most = np.where(finite, values, -math.inf).max(axis=1, initial=-math.inf)
    agree = most - least <= _AGREE * np.maximum(1.0, np.abs(mean))

    # The first reason that holds is the one that is given.
    reasons = {
        "": count == 0,
        ONE_SEED: count == 1,
        TWO_SEEDS: count < _LEAST_SEEDS,
        AGREE: agree,
        UNBOUNDED: (low <= ends[0]) & (high >= ends[1]),
    }
    why = np.select(list(reasons.values()), list(reasons), default="")
    stated = (why == "") & (count > 0)
    return {
        "mean": np.clip(mean, *ends),
        "low": np.where(stated, np.clip(low, *ends), math.nan),
        "high": np.where(stated, np.clip(high, *ends), math.nan),
        "why": why.astype(object),
    }
