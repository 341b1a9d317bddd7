"""What a model does to each group of test rows: counts and sums, and the rates that follow from them.

Sums add up, so that those of everyone else are the whole's less a group's own. Calibration is the mean of what was
expected less what was observed: unlike the expected calibration error, it is not larger for being measured on few rows.
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

FEW = 10  # rows that a rate is taken of in one seed: below that it is marked


@dataclass(frozen=True)
class Rate:
    """A figure of a group: its name in tables, what people call it, what it is a share or mean of, where it ends.

    ``better`` is ``neither`` where a group is not worse off for a larger or smaller value by itself.
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
"""What is summed over the rows of a group, beside ``rows``."""


def tally(answers: Sequence[Answers], kind: Kind, range: Number | None = None) -> pd.DataFrame:
    """Count and sum what was said of the test rows of every group, at each site and over all sites.

    Args:
        answers: What the models said.
        kind: What the targets are.
        range: The public range of a number, by which targets are scaled.

    Returns:
        A row for each attribute, group and site where the group has rows, and one for all sites together (site =
        POOLED): ``attribute, group, site, rows``, the sums, and the rates. Each site is a group of the attribute SITE.
        A sum in which a number is not finite is missing, and so is a rate of no rows.
    """
    each = [_rows(one, kind, range) for one in answers]
    figures = {name: np.concatenate([one[name] for one in each]) for name in SUMS[kind]}
    site = np.concatenate([np.full(len(one.target), one.site) for one in answers])
    table = _sum(figures, SITE, site, np.full(len(site), POOLED))
    parts = [table]
    for attribute in answers[0].groups:
        group = np.concatenate([one.groups[attribute] for one in answers])
        parts += [_sum(figures, attribute, group, where) for where in (np.full(len(site), POOLED), site)]
    together = pd.concat(parts, ignore_index=True)
    return pd.concat([together, rates(together, kind)], axis=1)


def rates(sums: pd.DataFrame, kind: Kind) -> pd.DataFrame:
    """Return the rates that follow from sums, a column for each; a rate of no rows is missing."""
    found = {name: of(sums) for name, of in _RATES[kind].items()}
    return pd.DataFrame({name: value.where(np.isfinite(value)) for name, value in found.items()}, index=sums.index)


def denominators(sums: pd.DataFrame, rate: Rate) -> pd.Series:
    """Return how many rows a rate was taken of."""
    return sums["rows"] - sums["positives"] if rate.of == "negatives" else sums[rate.of]


def _share(part: pd.Series, whole: pd.Series) -> pd.Series:
    return part.astype(float) / whole.where(whole > 0).astype(float)


_RATES: Mapping[Kind, Mapping[str, Callable[[pd.DataFrame], pd.Series]]] = {
    "binary": {
        TPR.name: lambda sums: _share(sums["found"], sums["positives"]),
        SELECTION.name: lambda sums: _share(sums["selected"], sums["rows"]),
        FPR.name: lambda sums: _share(sums["selected"] - sums["found"], sums["rows"] - sums["positives"]),
        CALIBRATION.name: lambda sums: _share(sums["expected"] - sums["positives"], sums["rows"]),
    },
    "classes": {
        ACCURACY.name: lambda sums: _share(sums["right"], sums["rows"]),
        CALIBRATION.name: lambda sums: _share(sums["expected"] - sums["right"], sums["rows"]),
    },
    "number": {
        RMSE.name: lambda sums: _share(sums["squares"], sums["rows"]) ** 0.5,
        ERROR.name: lambda sums: _share(sums["errors"], sums["rows"]),
    },
}


def _rows(one: Answers, kind: Kind, range: Number | None) -> dict[str, np.ndarray]:
    """Return what each row adds to the sums, float64 (rows,); not a number where what was said is none."""
    target, said = one.target, one.said
    known = np.where(np.isfinite(said if said.ndim == 1 else said.sum(1)), 1.0, np.nan)
    if kind == "binary":
        selected = known * (said >= 0.5)
        return {"positives": target.astype(float), "selected": selected, "found": selected * target,
                "expected": known * np.nan_to_num(said)}  # fmt: skip
    if kind == "classes":
        return {"right": known * (said.argmax(1) == target), "expected": known * np.nan_to_num(said.max(1))}
    errors = known * (np.nan_to_num(said) - target) * (range.scale if range else 1.0)
    return {"errors": errors, "squares": errors**2}


def _sum(figures: Mapping[str, np.ndarray], attribute: str, group: np.ndarray, site: np.ndarray) -> pd.DataFrame:
    """Return the sums over the rows of each group at each site."""
    groups, sites = pd.factorize(group, sort=True), pd.factorize(site, sort=True)
    pairs, place = np.unique(groups[0] * len(sites[1]) + sites[0], return_inverse=True)
    rows = np.bincount(place, minlength=len(pairs))
    sums = {name: np.bincount(place, values, minlength=len(pairs)) for name, values in figures.items()}
    if "positives" in sums:
        sums["positives"] = sums["positives"].astype(int)
    of, where = groups[1][pairs // len(sites[1])], sites[1][pairs % len(sites[1])]
    return pd.DataFrame({"attribute": attribute, "group": of, "site": where, "rows": rows, **sums})
