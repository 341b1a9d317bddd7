"""Count the rows, labels, protected groups and missing values at the sites of a scenario.

The counts are exact: they are taken from all rows, and no noise is added.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim.data.federation import sites_of
from fedsim.data.loading import rows_of, task_of
from fedsim.data.persons import Persons, count
from fedsim.data.tables import Column, Number
from fedsim.data.task import Rows
from fedsim.outcomes import outcome_of
from fedsim.scenario.schema import Scenario


@dataclass(frozen=True)
class Contents:
    """The data of all sites, counted.

    Attributes:
        sites: {site: number of rows, a figure of its outcome, and that figure in words}.
        labels: The names of the labels: the classes, or the tenths of a number.
        counts: The number of rows of each label at each site, int64 (sites, labels).
        missing: {column: share of rows without a value}, for columns that may lack values.
        groups: {protected attribute: {value: rows}}.
        persons: The persons whose rows they are; None where nothing is known of persons.
    """

    sites: Mapping[str, dict[str, Any]]
    labels: list[str]
    counts: np.ndarray
    missing: Mapping[str, float]
    groups: Mapping[str, dict[str, int]]
    persons: Persons | None = None


def contents_of(scenario: Scenario) -> Contents | None:
    """Count the data of a scenario's sites; None for a task whose rows are made on demand.

    Raises:
        Mistake: The rows can't be read, or the partition can't be made of them.
    """
    task = task_of(scenario)
    if task.load is None:
        return None

    rows = rows_of(scenario)
    row_numbers_by_site = sites_of(scenario)
    outcome = outcome_of(task.kind)
    sites = {}
    for site, row_numbers in row_numbers_by_site.items():
        about = outcome.about(rows.target[row_numbers], task.range)
        sites[site] = {"rows": len(row_numbers), **about}

    # Both labels of a binary outcome are shown, also where no row has the second. Rows without labels share one.
    labels = outcome.labels(rows.target)  # (rows,)
    if labels is None:
        labels = np.zeros(len(rows.target), np.int64)
        label_count = 1
    else:
        label_count = max(2, int(labels.max()) + 1)
    counts = []
    for row_numbers in row_numbers_by_site.values():
        counts.append(np.bincount(labels[row_numbers], minlength=label_count))  # (labels,)

    return Contents(
        sites=sites,
        labels=outcome.label_names(label_count),
        counts=np.stack(counts),
        missing=_missing_shares(task.columns, rows),
        groups={attribute: _tally(values) for attribute, values in rows.groups.items()},
        persons=count(rows, row_numbers_by_site),
    )


def persons_of(scenario: Scenario) -> Persons | None:
    """Count the persons of a scenario's sites; None where nothing is known of persons.

    Raises:
        Mistake: The rows can't be read, or the partition can't be made of them.
    """
    if task_of(scenario).load is None:
        return None
    rows = rows_of(scenario)
    return None if rows.person is None else count(rows, sites_of(scenario))


def _tally(values: np.ndarray) -> dict[str, int]:
    """Count how often each value occurs."""
    distinct, counts = np.unique(values, return_counts=True)
    return {str(value): int(count) for value, count in zip(distinct, counts, strict=True)}


def _missing_shares(columns: tuple[Column, ...], rows: Rows) -> dict[str, float]:
    """Compute the share of rows that lack each column, from the inputs of ``fedsim.data.encode``.

    Images, sequences and other inputs that were not encoded from these columns have no shares.
    """
    widths = [column.width for column in columns]
    if rows.inputs.ndim != 2 or rows.inputs.shape[1] != sum(widths):
        return {}

    shares = {}
    start = 0
    for column, width in zip(columns, widths, strict=True):
        encoded = rows.inputs[:, start : start + width]  # (rows, width)
        start += width
        if column.missing:
            shares[column.name] = float(_is_missing(column, encoded).mean())
    return shares


def _is_missing(column: Column, encoded: np.ndarray) -> np.ndarray:
    """Return which rows lack a column that may be missing, bool (rows,)."""
    if isinstance(column, Number):
        return encoded[:, 1] == 1
    return (encoded == 0).all(axis=1)
