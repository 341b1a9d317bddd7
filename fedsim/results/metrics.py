"""The figures a model is judged by, for each kind of target; the first of a kind is its headline."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import rankdata

from fedsim.scenario.kinds import Kind


@dataclass(frozen=True)
class Metric:
    """A figure: its name in tables, what people call it, which way is better, and where it ends.

    ``by_site`` says whether the figure inside sites is another than the pooled one. A mean over rows is the same.
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


def score(kind: Kind, target: np.ndarray, found: np.ndarray, scale: float = 1.0) -> dict[str, float | None]:
    """Return {name: figure} of some rows; a figure that can't be computed is None.

    Args:
        kind: What the targets are.
        target: 0 or 1, class numbers, or numbers; (rows,).
        found: Probabilities of a 1, (rows,); of each class, (rows, classes); or the numbers that were said, (rows,).
        scale: How much of the outcome's unit one unit of a number is.
    """
    if not len(target) or not np.isfinite(found).all():
        return {metric.name: None for metric in METRICS[kind]}
    if kind == "number":
        return {"r2": r2(target, found), "rmse": scale * float(np.sqrt(np.mean((target - found) ** 2)))}
    if kind == "binary":
        likelihood = np.where(target == 1, found, 1 - found)
        guess, area = found >= 0.5, auc(target, found)
    else:
        likelihood = found[np.arange(len(target)), target]
        guess, area = found.argmax(1), auc_of_classes(target, found)
    figures = {
        "auc": area,
        "accuracy": float((guess == target).mean()),
        "log_loss": float(-np.log(np.maximum(likelihood, 1e-15)).mean()),
    }
    return {metric.name: figures[metric.name] for metric in METRICS[kind]}


def auc(target: np.ndarray, probability: np.ndarray) -> float | None:
    """Return the Mann-Whitney statistic: how often a positive row is ranked above a negative one, ties half."""
    positives = int(target.sum())
    pairs = positives * (len(target) - positives)
    if not pairs:
        return None
    ranks = rankdata(probability)
    return float((ranks[target == 1].sum() - positives * (positives + 1) / 2) / pairs)


def auc_of_classes(target: np.ndarray, probability: np.ndarray) -> float | None:
    """Return the mean AUC of each class against the rest, of the classes that occur."""
    each = [auc((target == number).astype(float), probability[:, number]) for number in range(probability.shape[1])]
    known = [area for area in each if area is not None]
    return float(np.mean(known)) if known else None


def r2(target: np.ndarray, said: np.ndarray) -> float | None:
    """Return the share of the variance of these rows' targets that is explained; None where they are all equal."""
    spread = float(((target - target.mean()) ** 2).sum())
    return 1 - float(((target - said) ** 2).sum()) / spread if spread > 1e-12 * max(1, len(target)) else None


def score_inside(kind: Kind, target: np.ndarray, found: np.ndarray, site: np.ndarray) -> dict[str, float | None]:
    """Return {name: figure} of the metrics that compare rows, where each row is compared with its own site's only.

    These are the metrics whose ``by_site`` is true. The other metrics are means over rows, so that it makes no
    difference to them which site a row is at.

    Args:
        kind: What the targets are.
        target: As of ``score``, (rows,).
        found: As of ``score``, (rows,) or (rows, classes).
        site: Each row's site, whole numbers from 0 on, (rows,).
    """
    if not len(target) or not np.isfinite(found).all():
        return {metric.name: None for metric in METRICS[kind] if metric.by_site}
    if kind == "number":
        return {"r2": r2_inside(target, found, site)}
    if kind == "binary":
        return {"auc": auc_inside(target, found, site)}
    return {"auc": auc_of_classes_inside(target, found, site)}


def auc_inside(target: np.ndarray, probability: np.ndarray, site: np.ndarray) -> float | None:
    """Return the mean of the sites' AUCs, weighted by their pairs of a positive and a negative row.

    That is the share of all pairs of one site that are ranked rightly, ties half. Sites without a pair drop out, and
    without any pair there is no figure. Arguments as of ``score_inside``; one sort serves all sites.
    """
    order = np.lexsort((probability, site))
    target, probability, site = target[order] == 1, probability[order], site[order]

    # Rows of one site with the same probability share the mean of their ranks, which are counted within the site.
    first_of_site = np.r_[True, site[1:] != site[:-1]]
    first_of_tie = first_of_site | np.r_[True, probability[1:] != probability[:-1]]
    starts = np.flatnonzero(first_of_tie)
    ends = np.r_[starts[1:], len(site)]
    places = np.flatnonzero(first_of_site)[np.cumsum(first_of_site) - 1]
    tie = np.cumsum(first_of_tie) - 1
    ranks = (starts[tie] + ends[tie] + 1) / 2 - places

    rows = np.bincount(site).astype(float)
    positives = np.bincount(site, weights=target)
    right = np.bincount(site, weights=ranks * target) - positives * (positives + 1) / 2
    pairs = positives * (rows - positives)
    return float(right[pairs > 0].sum() / pairs.sum()) if pairs.any() else None


def auc_of_classes_inside(target: np.ndarray, probability: np.ndarray, site: np.ndarray) -> float | None:
    """Return the mean over classes of each class's AUC against the rest inside sites, of classes with a pair."""
    each = [auc_inside(target == number, probability[:, number], site) for number in range(probability.shape[1])]
    known = [area for area in each if area is not None]
    return float(np.mean(known)) if known else None


def r2_inside(target: np.ndarray, said: np.ndarray, site: np.ndarray) -> float | None:
    """Return the share of the variance inside sites that is explained; None where each site's targets are all equal.

    Squares are summed over all sites, those of the targets around the mean of their own site's rows.
    """
    rows = np.maximum(np.bincount(site), 1)
    means = np.bincount(site, weights=target) / rows
    spread = float(((target - means[site]) ** 2).sum())
    return 1 - float(((target - said) ** 2).sum()) / spread if spread > 1e-12 * len(target) else None
