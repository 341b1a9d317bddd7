"""From the scores of all seeds to a fair comparison: means, intervals and paired differences."""

import math
from typing import cast

import numpy as np
import pandas as pd
from scipy.stats import t

from fedsim.evaluation import POOLED
from fedsim.metrics import BY_NAME

CONFIDENCE = 0.95
SAME = "not distinguishable"


def interval(values: pd.Series, overlap: float) -> tuple[float, float, float]:
    """Return mean, low and high of a metric over seeds; the bounds are NaN when there are fewer than two.

    The training rows of different seeds overlap, so the plain t interval is too narrow. This is the corrected
    resampled t interval of Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 52, 2003
    (section 3): the variance of the mean is s^2 (1/J + test share / training share), with J - 1 degrees of freedom.

    Args:
        values: The metric, seed by seed.
        overlap: Test share over training share; 0 where all seeds have the same rows, which gives the plain t interval
            of what training again on them would give.
    """
    known = values.dropna().to_numpy(dtype=float)
    if not len(known):
        return math.nan, math.nan, math.nan
    mean = float(known.mean())
    if len(known) < 2:
        return mean, math.nan, math.nan
    spread = float(known.std(ddof=1)) * math.sqrt(1 / len(known) + overlap)
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(known) - 1)) * spread
    return mean, mean - half, mean + half


def compare(scores: pd.DataFrame, overlap: float) -> pd.DataFrame:
    """Compare arms, pooled and inside each site.

    Args:
        scores: A row for each arm, private, seed and site, with a column for each metric.
        overlap: As ``interval`` takes it.

    Returns:
        A row for each private, arm, metric and site: ``mean, low, high``, cut where the metric ends; then the
        difference to the centralized arm of the same privacy and seeds (``difference, difference_low,
        difference_high``), what can be said of it (``verdict``), and the same against the local arm (``gain,
        gain_low, gain_high, gain_verdict``).
    """
    rows = []
    for metric in [BY_NAME[str(name)] for name in scores if name in BY_NAME]:
        by_seed = scores.pivot_table(index="seed", columns=["private", "arm", "site"], values=metric.name, dropna=False)
        for private, arm, site in dict.fromkeys(zip(scores["private"], scores["arm"], scores["site"], strict=True)):
            own = by_seed[private, arm, site]
            row: dict[str, object] = {"arm": arm, "private": private, "metric": metric.name, "site": site}
            ends, span = (metric.low, metric.high), metric.high - metric.low
            row |= dict(zip(("mean", "low", "high"), np.clip(interval(own, overlap), *ends), strict=True))
            for name, other, said in (("difference", "centralized", "verdict"), ("gain", "local", "gain_verdict")):
                found = (private, other, site) in by_seed.columns and arm != other
                change = own - by_seed[(private, other, site)] if found else own * np.nan
                bounds = np.clip(interval(change, overlap), -span, span)
                row |= dict(zip((name, f"{name}_low", f"{name}_high"), bounds, strict=True))
                row[said] = verdict(cast(float, row[f"{name}_low"]), cast(float, row[f"{name}_high"]))
            rows.append(row)
    return pd.DataFrame(rows)


def pooled(comparison: pd.DataFrame) -> pd.DataFrame:
    """Return the rows for all sites together."""
    return comparison[comparison["site"] == POOLED].drop(columns="site").reset_index(drop=True)


def verdict(low: float, high: float) -> str | None:
    """Return what a difference's interval says, whichever way is the better one."""
    if math.isnan(low):
        return None
    return "higher" if low > 0 else "lower" if high < 0 else SAME
