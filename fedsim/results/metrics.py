"""Compute the metrics of a model for each kind of target; the first of a kind is its headline."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedsim.scenario.kinds import Kind


@dataclass(frozen=True)
class Metric:
    """A metric: its name in tables, its label for people, its better direction and its bounds.

    ``by_site`` says whether the metric inside sites differs from the pooled metric. A mean over
    rows is the same in both.
    """

    name: str
    label: str
    better: Literal["higher", "lower"]
    low: float
    high: float
    by_site: bool = False


AUC = Metric("auc", "AUC", "higher", 0.0, 1.0, by_site=True)
ACCURACY = Metric("accuracy", "accuracy", "higher", 0.0, 1.0)
LOG_LOSS = Metric("log_loss", "log loss", "lower", 0.0, math.inf)
R2 = Metric("r2", "R²", "higher", -math.inf, 1.0, by_site=True)
RMSE = Metric("rmse", "RMSE", "lower", 0.0, math.inf)

METRICS: Mapping[Kind, tuple[Metric, ...]] = {
    "binary": (AUC, ACCURACY, LOG_LOSS),
    "classes": (ACCURACY, LOG_LOSS, AUC),
    "number": (R2, RMSE),
}
BY_NAME = {metric.name: metric for metrics in METRICS.values() for metric in metrics}

_LEAST_LIKELIHOOD = 1e-15  # below it, log loss is cut: it would be infinite at 0
_NO_SPREAD = 1e-12  # mean square that is no more than rounding


def score(
    kind: Kind,
    target: np.ndarray,
    predicted: np.ndarray,
    scale: float = 1.0,
) -> dict[str, float | None]:
    """Compute the metrics of some rows: {name: value}, None where a metric can't be computed.

    Args:
        kind: The kind of the targets.
        target: 0 or 1, class numbers, or numbers; (rows,).
        predicted: Probabilities of a 1, (rows,); of each class, (rows, classes); or predicted
            numbers, (rows,).
        scale: The amount of the outcome's unit in one unit of a number.
    """
    if not len(target) or not np.isfinite(predicted).all():
        return {metric.name: None for metric in METRICS[kind]}
    if kind == "number":
        root_mean_square = float(np.sqrt(np.mean((target - predicted) ** 2)))
        values = {"r2": r2(target, predicted), "rmse": scale * root_mean_square}
        return _in_order(METRICS[kind], values, "score")

    if kind == "binary":
        likelihood = np.where(target == 1, predicted, 1 - predicted)  # of the true label, (rows,)
        guess = predicted >= 0.5
        area = auc(target, predicted)
    else:
        likelihood = predicted[np.arange(len(target)), target]  # of the true class, (rows,)
        guess = predicted.argmax(1)
        area = auc_of_classes(target, predicted)

    log_likelihood = np.log(np.maximum(likelihood, _LEAST_LIKELIHOOD))
    values = {
        "auc": area,
        "accuracy": float((guess == target).mean()),
        "log_loss": float(-log_likelihood.mean()),
    }
    return _in_order(METRICS[kind], values, "score")


def _in_order(
    metrics: Sequence[Metric],
    values: Mapping[str, float | None],
    function: str,
) -> dict[str, float | None]:
    """Return the values of some metrics by name, in their order.

    Raises:
        LookupError: A metric is declared, and the function does not compute it. Without this error
            its figure would be missing, or that of other rows would stand in its place.
    """
    missing = [metric.name for metric in metrics if metric.name not in values]
    if missing:
        raise LookupError(f"metrics.{function}: expected a value of {', '.join(missing)}, got none")
    return {metric.name: values[metric.name] for metric in metrics}


def auc(target: np.ndarray, probability: np.ndarray) -> float | None:
    """Compute the AUC as the Mann-Whitney statistic.

    It is the share of pairs whose positive row is ranked above the negative row; ties count half.
    """
    positives = int(target.sum())
    pairs = positives * (len(target) - positives)
    if not pairs:
        return None

    from scipy.stats import rankdata  # a node that only trains takes half a second less to start without it

    ranks = rankdata(probability)  # (rows,), from 1
    least_rank_sum = positives * (positives + 1) / 2
    return float((ranks[target == 1].sum() - least_rank_sum) / pairs)


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
    return _mean_of_known(areas)


def r2(target: np.ndarray, predicted: np.ndarray) -> float | None:
    """Compute the explained share of the variance of targets; None where all targets are equal."""
    spread = float(((target - target.mean()) ** 2).sum())
    has_spread = spread > _NO_SPREAD * max(1, len(target))
    if not has_spread:
        return None
    squared_errors = float(((target - predicted) ** 2).sum())
    return 1 - squared_errors / spread


def score_inside(
    kind: Kind,
    target: np.ndarray,
    predicted: np.ndarray,
    site: np.ndarray,
) -> dict[str, float | None]:
    """Compute the metrics that compare rows, each row compared with rows of its own site only.

    These are the metrics whose ``by_site`` is true. The other metrics are means over rows, so that
    it makes no difference to them which site a row is at.

    Args:
        kind: The kind of the targets.
        target: As in ``score``, (rows,).
        predicted: As in ``score``, (rows,) or (rows, classes).
        site: Each row's site, whole numbers from 0 on, (rows,).
    """
    by_site = [metric for metric in METRICS[kind] if metric.by_site]
    if not len(target) or not np.isfinite(predicted).all():
        return {metric.name: None for metric in by_site}

    values: dict[str, float | None] = {}
    if kind == "number":
        values["r2"] = r2_inside(target, predicted, site)
    elif kind == "binary":
        values["auc"] = auc_inside(target, predicted, site)
    else:
        values["auc"] = auc_of_classes_inside(target, predicted, site)
    return _in_order(by_site, values, "score_inside")


def auc_inside(target: np.ndarray, probability: np.ndarray, site: np.ndarray) -> float | None:
    """Average the sites' AUCs, weighted by their pairs of a positive and a negative row.

    That is the share of all pairs inside sites that are ranked rightly; ties count half. Sites
    without a pair drop out, and without any pair the result is None. Arguments are as in
    ``score_inside``; all sites share a single sort.
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
    return _mean_of_known(areas)


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


def _mean_of_known(areas: Sequence[float | None]) -> float | None:
    known = [area for area in areas if area is not None]
    return float(np.mean(known)) if known else None
