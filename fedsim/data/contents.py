"""What the sites of a scenario hold: rows, labels, protected groups, missing values; all rows, without noise."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim.data.federation import sites_of
from fedsim.data.loading import rows_of, task_of
from fedsim.data.partition import QUANTILES, labels_of
from fedsim.data.tables import Column, Number
from fedsim.data.task import Rows, Task
from fedsim.scenario.kinds import Kind
from fedsim.scenario.schema import Scenario


@dataclass(frozen=True)
class Contents:
    """What there is to see.

    Attributes:
        sites: {site: rows, a few words about its outcome, and the figure in them}.
        labels: What the labels are called: the classes, or the tenths of a number.
        counts: How many rows of each label each site has, int64 (sites, labels).
        missing: {column: share of rows without a value}, of columns that may lack it.
        groups: {protected attribute: {value: rows}}.
    """

    sites: Mapping[str, dict[str, Any]]
    labels: list[str]
    counts: np.ndarray
    missing: Mapping[str, float]
    groups: Mapping[str, dict[str, int]]


def contents_of(scenario: Scenario) -> Contents | None:
    """Return what a scenario's sites hold; None where rows are made up when they are needed.

    Raises:
        Mistake: The rows can't be read, or the partition can't be made of them.
    """
    task = task_of(scenario)
    if task.load is None:
        return None
    rows, sites = rows_of(scenario), sites_of(scenario)
    labels = labels_of(rows.target, task.kind)
    count = max(2, int(labels.max()) + 1)
    return Contents(
        sites={site: {"rows": len(own), **_outcome(task, rows.target[own])} for site, own in sites.items()},
        labels=_names(task.kind, count),
        counts=np.stack([np.bincount(labels[own], minlength=count) for own in sites.values()]),
        missing=_missing(task.columns, rows),
        groups={name: _tally(values) for name, values in rows.groups.items()},
    )


def _names(kind: Kind, count: int) -> list[str]:
    if kind == "number":
        return ["lowest tenth", *[f"{number}." for number in range(2, QUANTILES)], "highest tenth"][:count]
    return ["negative", "positive"] if kind == "binary" else [f"class {number}" for number in range(count)]


def _outcome(task: Task, target: np.ndarray) -> dict[str, Any]:
    """Return a figure about a site's outcome, and the same in words."""
    if task.kind == "binary":
        share = float(target.mean())
        return {"positive": round(share, 3), "about": f"{share:.1%} positive"}
    if task.kind == "classes":
        counts = np.bincount(target)
        share = float(counts.max() / len(target))
        return {"classes": int((counts > 0).sum()), "about": f"{(counts > 0).sum()} classes, {share:.0%} of one"}
    mean = task.range.in_units(float(target.mean(dtype=float))) if task.range else float(target.mean())
    unit = f" {task.range.unit}" if task.range and task.range.unit else ""
    return {"mean": round(mean, 6), "about": f"mean {mean:.4g}{unit}"}


def _tally(values: np.ndarray) -> dict[str, int]:
    found, counts = np.unique(values, return_counts=True)
    return {str(value): int(count) for value, count in zip(found, counts, strict=True)}


def _missing(columns: tuple[Column, ...], rows: Rows) -> dict[str, float]:
    """Return the share of rows that lack each column, read from the inputs as ``fedsim.data.encode`` makes them."""
    widths = [(2 if c.missing else 1) if isinstance(c, Number) else len(c.levels) for c in columns]
    if rows.inputs.ndim != 2 or rows.inputs.shape[1] != sum(widths):
        return {}
    shares, start = {}, 0
    for column, width in zip(columns, widths, strict=True):
        own, start = rows.inputs[:, start : start + width], start + width
        if column.missing:
            lacks = own[:, 1] == 1 if isinstance(column, Number) else (own == 0).all(axis=1)
            shares[column.name] = float(lacks.mean())
    return shares
