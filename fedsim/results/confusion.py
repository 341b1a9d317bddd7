"""Count how test rows are named, by what they are: the confusion matrix, and the rates read off it."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fedsim.outcomes import outcome_of
from fedsim.results.evaluation import Answers
from fedsim.scenario.kinds import Kind

MOST_CLASSES = 20  # of which a matrix is kept
RATES = ("sensitivity", "specificity", "precision")


def confusion(predictions: Sequence[Answers], kind: Kind, threshold: float) -> pd.DataFrame:
    """Count test rows of all sites by their class and by the class that is named.

    Args:
        predictions: The predictions for test rows.
        kind: The kind of the outcome.
        threshold: From which probability on a row is called positive, with a binary outcome. It is
            public and declared beforehand. Of classes, the most probable is named.

    Returns:
        A row for each pair of classes: ``true``, ``named`` and ``rows``. It is empty for kinds that name no class,
        for more than ``MOST_CLASSES`` classes, without test rows, and where a prediction is not
        finite.
    """
    if kind == "number":
        return pd.DataFrame()
    target = np.concatenate([at_site.target for at_site in predictions])
    predicted = np.concatenate([at_site.said for at_site in predictions])
    if not len(target) or not np.isfinite(predicted).all():
        return pd.DataFrame()

    said = outcome_of(kind).named(predicted, threshold)
    if said is None:
        return pd.DataFrame()
    classes, named = said
    if classes > MOST_CLASSES:
        return pd.DataFrame()

    counts = np.bincount(target.astype(int) * classes + named, minlength=classes * classes)
    pairs = np.arange(classes * classes)
    return pd.DataFrame({"true": pairs // classes, "named": pairs % classes, "rows": counts})


def counts_of(table: pd.DataFrame) -> Mapping[tuple[int, int], int]:
    """Return {(true class, named class): rows}, summed over the seeds of a table."""
    counts: dict[tuple[int, int], int] = {}
    for true, named, rows in zip(table["true"], table["named"], table["rows"], strict=True):
        counts[int(true), int(named)] = counts.get((int(true), int(named)), 0) + int(rows)
    return counts


def rates(counts: Mapping[tuple[int, int], int]) -> dict[str, float]:
    """Compute the rates of a binary outcome's matrix; NaN where there is no row to take one of.

    Sensitivity is the share of positive rows that are found, specificity the share of negative rows
    that are called negative, and precision the share of rows called positive that are positive.
    """
    found = counts[1, 1]
    missed = counts[1, 0]
    false_alarms = counts[0, 1]
    rightly_left = counts[0, 0]
    return {
        "sensitivity": _share(found, found + missed),
        "specificity": _share(rightly_left, rightly_left + false_alarms),
        "precision": _share(found, found + false_alarms),
    }


def rates_of_class(counts: Mapping[tuple[int, int], int], number: int) -> dict[str, float]:
    """Compute the rates of a class against the rest."""
    against_rest = {(0, 0): 0, (0, 1): 0, (1, 0): 0, (1, 1): 0}
    for (true, named), rows in counts.items():
        against_rest[int(true == number), int(named == number)] += rows
    return rates(against_rest)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
