"""Compute the rates of each group of test rows, from counts and sums.

Sums add up, so that the sums of everyone else are the whole's less the group's. Calibration is the
mean of expected less observed outcomes: unlike the expected calibration error, it is not larger
for being measured on few rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from fedsim.data.tables import Number
from fedsim.data.task import SITE
from fedsim.results.evaluation import POOLED, Answers
from fedsim.scenario.kinds import Kind

FEW = 10  # a rate of fewer rows in a seed is marked


@dataclass(frozen=True)
class Rate:
    """A rate of a group: its name in tables, its label for people, its denominator and its bounds.

    ``of`` names the rows that the rate is a share or mean of. ``better`` is ``neither`` where a
    group is not worse off for a larger or smaller value by itself.
    """

    name: str
    label: str
    of: Literal["rows", "positives", "negatives"]
    better: Literal["higher", "lower", "neither"]
    low: float
    high: float


SELECTION = Rate("selection_rate", "selection rate", "rows", "neither", 0.0, 1.0)
TPR = Rate("tpr", "true positive rate", "positives", "higher", 0.0, 1.0)
FPR = Rate("fpr", "false positive rate", "negatives", "lower", 0.0, 1.0)
CALIBRATION = Rate("calibration", "expected minus observed", "rows", "neither", -1.0, 1.0)
ACCURACY = Rate("accuracy", "accuracy", "rows", "higher", 0.0, 1.0)
ERROR = Rate("error", "mean error (said minus true)", "rows", "neither", -np.inf, np.inf)
RMSE = Rate("rmse", "RMSE", "rows", "lower", 0.0, np.inf)

RATES: Mapping[Kind, tuple[Rate, ...]] = {
    "binary": (TPR, SELECTION, FPR, CALIBRATION),
    "classes": (ACCURACY, CALIBRATION),
    "number": (RMSE, ERROR),
}
"""The rates of each kind of outcome; the first is the headline."""

SUMS: Mapping[Kind, tuple[str, ...]] = {
    "binary": ("positives", "selected", "found", "expected"),
    "classes": ("right", "expected"),
    "number": ("errors", "squares"),
}
"""The sums over the rows of a group, beside their number ``rows``."""


def tally(answers: Sequence[Answers], kind: Kind, range: Number | None = None) -> pd.DataFrame:
    """Count and sum predictions for the test rows of every group, at each site and over all sites.

    Args:
        answers: The predictions at each site.
        kind: The kind of the targets.
        range: The public range of a number, by which targets are scaled.

    Returns:
        A row for each attribute, group and site where the group has rows, and a row for all sites
        together (site = POOLED): ``attribute, group, site, rows``, the sums, and the rates. Each
        site is a group of the attribute SITE. A sum in which a number is not finite is missing,
        and so is a rate of no rows.
    """
    summands_of_sites = [_summands(at_site, kind, range) for at_site in answers]
    summands = {}
    for name in SUMS[kind]:
        summands[name] = np.concatenate([of_site[name] for of_site in summands_of_sites])
    site = np.concatenate([np.full(len(at_site.target), at_site.site) for at_site in answers])
    everywhere = np.full(len(site), POOLED)

    tables = [_sum(summands, SITE, group=site, site=everywhere)]
    for attribute in answers[0].groups:
        group = np.concatenate([at_site.groups[attribute] for at_site in answers])
        tables.append(_sum(summands, attribute, group, everywhere))
        tables.append(_sum(summands, attribute, group, site))
    sums = pd.concat(tables, ignore_index=True)
    return pd.concat([sums, rates(sums, kind)], axis=1)


def rates(sums: pd.DataFrame, kind: Kind) -> pd.DataFrame:
    """Compute the rates that follow from sums, a column for each; a rate of no rows is missing."""
    columns = {}
    for name, formula in _FORMULAS[kind].items():
        rate = formula(sums)
        columns[name] = rate.where(np.isfinite(rate))
    return pd.DataFrame(columns, index=sums.index)


def denominators(sums: pd.DataFrame, rate: Rate) -> pd.Series:
    """Return the number of rows that a rate is taken of."""
    if rate.of == "negatives":
        return sums["rows"] - sums["positives"]
    return sums[rate.of]


def _share(part: pd.Series, whole: pd.Series) -> pd.Series:
    """Divide sums; a share of no rows is missing."""
    return part.astype(float) / whole.where(whole > 0).astype(float)


def _true_positive_rate(sums: pd.DataFrame) -> pd.Series:
    return _share(sums["found"], sums["positives"])


def _selection_rate(sums: pd.DataFrame) -> pd.Series:
    return _share(sums["selected"], sums["rows"])


def _false_positive_rate(sums: pd.DataFrame) -> pd.Series:
    falsely_selected = sums["selected"] - sums["found"]
    negatives = sums["rows"] - sums["positives"]
    return _share(falsely_selected, negatives)


def _calibration(sums: pd.DataFrame) -> pd.Series:
    return _share(sums["expected"] - sums["positives"], sums["rows"])


def _accuracy(sums: pd.DataFrame) -> pd.Series:
    return _share(sums["right"], sums["rows"])


def _calibration_of_classes(sums: pd.DataFrame) -> pd.Series:
    return _share(sums["expected"] - sums["right"], sums["rows"])


def _root_mean_square_error(sums: pd.DataFrame) -> pd.Series:
    return _share(sums["squares"], sums["rows"]) ** 0.5


def _mean_error(sums: pd.DataFrame) -> pd.Series:
    return _share(sums["errors"], sums["rows"])


_FORMULAS: Mapping[Kind, Mapping[str, Callable[[pd.DataFrame], pd.Series]]] = {
    "binary": {
        TPR.name: _true_positive_rate,
        SELECTION.name: _selection_rate,
        FPR.name: _false_positive_rate,
        CALIBRATION.name: _calibration,
    },
    "classes": {
        ACCURACY.name: _accuracy,
        CALIBRATION.name: _calibration_of_classes,
    },
    "number": {
        RMSE.name: _root_mean_square_error,
        ERROR.name: _mean_error,
    },
}


def _summands(answers: Answers, kind: Kind, range: Number | None) -> dict[str, np.ndarray]:
    """Compute each row's summands, float64 (rows,); NaN where a prediction is not finite."""
    target = answers.target
    predicted = answers.said
    total = predicted if predicted.ndim == 1 else predicted.sum(1)
    known = np.where(np.isfinite(total), 1.0, np.nan)  # makes a summand NaN, (rows,)

    if kind == "binary":
        selected = known * (predicted >= 0.5)
        return {
            "positives": target.astype(float),
            "selected": selected,
            "found": selected * target,
            "expected": known * np.nan_to_num(predicted),
        }
    if kind == "classes":
        return {
            "right": known * (predicted.argmax(1) == target),
            "expected": known * np.nan_to_num(predicted.max(1)),
        }
    scale = range.scale if range else 1.0
    errors = known * (np.nan_to_num(predicted) - target) * scale
    return {"errors": errors, "squares": errors**2}


def _sum(
    summands: Mapping[str, np.ndarray],
    attribute: str,
    group: np.ndarray,
    site: np.ndarray,
) -> pd.DataFrame:
    """Sum over the rows of each group at each site.

    Args:
        summands: {name: each row's summand, (rows,)}.
        attribute: The attribute of the groups.
        group: Each row's group, (rows,).
        site: Each row's site, (rows,).
    """
    group_of_row, group_names = pd.factorize(group, sort=True)
    site_of_row, site_names = pd.factorize(site, sort=True)
    pair_of_row = group_of_row * len(site_names) + site_of_row  # a number for each (group, site)
    pairs, place_of_row = np.unique(pair_of_row, return_inverse=True)

    rows = np.bincount(place_of_row, minlength=len(pairs))
    sums = {}
    for name, values in summands.items():
        sums[name] = np.bincount(place_of_row, values, minlength=len(pairs))
    if "positives" in sums:
        sums["positives"] = sums["positives"].astype(int)

    columns = {
        "attribute": attribute,
        "group": group_names[pairs // len(site_names)],
        "site": site_names[pairs % len(site_names)],
        "rows": rows,
        **sums,
    }
    return pd.DataFrame(columns)
