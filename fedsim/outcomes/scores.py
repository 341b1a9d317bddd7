"""Compute the figures that metrics are made of: areas under curves, explained shares, shares of rows."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

_LEAST_LIKELIHOOD = 1e-15  # below it, log loss is cut: it would be infinite at 0
_NO_SPREAD = 1e-12  # mean square that is no more than rounding


def share(part: pd.Series, whole: pd.Series) -> pd.Series:
    """Divide sums; a share of no rows is missing."""
    return part.astype(float) / whole.where(whole > 0).astype(float)


def of_probabilities(likelihood: np.ndarray, is_right: np.ndarray) -> dict[str, float | None]:
    """Compute accuracy and log loss.

    Args:
        likelihood: The probability that was said of what came true, (rows,).
        is_right: Whether what came true was named, (rows,).
    """
    log_likelihood = np.log(np.maximum(likelihood, _LEAST_LIKELIHOOD))
    return {"accuracy": float(is_right.mean()), "log_loss": float(-log_likelihood.mean())}


def auc(target: np.ndarray, probability: np.ndarray) -> float | None:
    """Compute the AUC as the Mann-Whitney statistic.

    It is the share of pairs whose positive row is ranked above the negative row; ties count half.
    """
    positives = int(target.sum())
    pairs = positives * (len(target) - positives)
    if not pairs:
        return None

    ranks = _mean_ranks(probability)
    least_rank_sum = positives * (positives + 1) / 2
    return float((ranks[target == 1].sum() - least_rank_sum) / pairs)


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    """Return the rank of each value from 1 on, (rows,); equal values share the mean of theirs, and NaN has none.

    It is ``scipy.stats.rankdata``, which takes a second to import.
    """
    if np.isnan(values).any():
        return np.full(len(values), np.nan)
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()  # the greatest rank of each group of equal values
    return (last - (counts - 1) / 2)[group]


def auc_of_classes(target: np.ndarray, probability: np.ndarray) -> float | None:
    """Average the AUC of each class against the rest, over the classes that occur.

    Args:
        target: Class numbers, (rows,).
        probability: Of each class, (rows, classes).
    """
    areas = []
    for number in range(probability.shape[1]):
        is_class = (target == number).astype(float)
        areas.append(auc(is_class, probability[:, number]))
    return mean_of_known(areas)


def r2(target: np.ndarray, predicted: np.ndarray) -> float | None:
    """Compute the explained share of the variance of targets; None where all targets are equal."""
    spread = float(((target - target.mean()) ** 2).sum())
    has_spread = spread > _NO_SPREAD * max(1, len(target))
    if not has_spread:
        return None
    squared_errors = float(((target - predicted) ** 2).sum())
    return 1 - squared_errors / spread


def auc_inside(target: np.ndarray, probability: np.ndarray, site: np.ndarray) -> float | None:
    """Average the sites' AUCs, weighted by their pairs of a positive and a negative row.

    That is the share of all pairs inside sites that are ranked rightly; ties count half. Sites
    without a pair drop out, and without any pair the result is None. Arguments are as in
    ``Outcome.values_inside``; all sites share a single sort.
    """
    # Sort rows by site, and by probability inside each site.
    order = np.lexsort((probability, site))
    is_positive = target[order] == 1
    probability = probability[order]
    site = site[order]

    # Rows of one site with the same probability share the mean of their ranks, which are counted
    # within the site from 1.
    first_of_site = np.r_[True, site[1:] != site[:-1]]
    first_of_tie = first_of_site | np.r_[True, probability[1:] != probability[:-1]]
    tie_starts = np.flatnonzero(first_of_tie)  # (ties,)
    tie_ends = np.r_[tie_starts[1:], len(site)]  # (ties,)
    tie_of_row = np.cumsum(first_of_tie) - 1  # (rows,)
    site_starts = np.flatnonzero(first_of_site)[np.cumsum(first_of_site) - 1]  # (rows,)
    ranks = (tie_starts[tie_of_row] + tie_ends[tie_of_row] + 1) / 2 - site_starts  # (rows,)

    # The Mann-Whitney statistic of each site, as in ``auc``; all are (sites,).
    rows = np.bincount(site).astype(float)
    positives = np.bincount(site, weights=is_positive)
    rank_sums = np.bincount(site, weights=ranks * is_positive)
    ranked_rightly = rank_sums - positives * (positives + 1) / 2
    pairs = positives * (rows - positives)
    if not pairs.any():
        return None
    return float(ranked_rightly[pairs > 0].sum() / pairs.sum())


def auc_of_classes_inside(
    target: np.ndarray,
    probability: np.ndarray,
    site: np.ndarray,
) -> float | None:
    """Average each class's AUC against the rest inside sites, over the classes with a pair."""
    areas = []
    for number in range(probability.shape[1]):
        areas.append(auc_inside(target == number, probability[:, number], site))
    return mean_of_known(areas)


def r2_inside(target: np.ndarray, predicted: np.ndarray, site: np.ndarray) -> float | None:
    """Compute the explained share of the variance inside sites.

    Squares are summed over all sites, those of the targets around the mean of their own site's
    rows. The result is None where the targets of each site are all equal.
    """
    rows = np.maximum(np.bincount(site), 1)  # (sites,)
    means = np.bincount(site, weights=target) / rows  # (sites,)
    spread = float(((target - means[site]) ** 2).sum())
    has_spread = spread > _NO_SPREAD * len(target)
    if not has_spread:
        return None
    squared_errors = float(((target - predicted) ** 2).sum())
    return 1 - squared_errors / spread


def mean_of_known(areas: Sequence[float | None]) -> float | None:
    """Average the figures that could be computed; None where none could."""
    known = [area for area in areas if area is not None]
    return float(np.mean(known)) if known else None
