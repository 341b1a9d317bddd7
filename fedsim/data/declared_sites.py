"""Divide rows among sites that a scenario declares: by a column, by a mapping, or by shares of the rows.

A column and shares do what ``NaturalIdPartitioner`` and ``SizePartitioner`` of flwr-datasets do. Here the sites have
names, and no row is left out.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from fedsim.data.tables import Column, Levels
from fedsim.data.task import TOGETHER, Rows
from fedsim.mistakes import Mistake
from fedsim.randomness import stream
from fedsim.scenario import catalog
from fedsim.scenario.schema import Partition

WITHOUT_VALUE = "unknown"
"""The site of the rows that lack the column by which rows are divided."""

Sites = dict[str, np.ndarray]
"""{site name: row numbers, ascending}, sorted by name."""


class Declared(Protocol):
    """A way to deal rows out to sites with names."""

    def __call__(self, rows: Rows, columns: Sequence[Column], partition: Partition) -> Sites:
        """Return the row numbers of each site."""
        ...


def group(site_of_row: np.ndarray) -> Sites:
    """Group rows by the name of each row's site, str (rows,)."""
    sites, number_of_row = np.unique(site_of_row, return_inverse=True)
    order = np.argsort(number_of_row, kind="stable")  # row numbers, site by site
    ends = np.cumsum(np.bincount(number_of_row))
    parts = np.split(order, ends[:-1])
    return {str(site): part for site, part in zip(sites, parts, strict=True)}


def _by_column(rows: Rows, columns: Sequence[Column], partition: Partition) -> Sites:
    """Make each value of a protected attribute or of a category a site.

    Raises:
        Mistake: There is no such attribute or category, or a value can't be the name of a site.
    """
    name = partition.column or ""
    values = rows.groups.get(name)
    if values is None:
        values = _values_of_category(rows, columns, name)
    if values is None:
        known = [*rows.groups, *_categories(rows, columns)]
        if not known:
            raise Mistake(f"partition.column: expected a task with a protected attribute or a category, got {name!r}")
        hint = catalog.nearest(name, dict.fromkeys(known))
        raise Mistake(f"partition.column: expected a protected attribute or a category, got {name!r}{hint}")

    sites = group(values)
    reserved = [site for site in TOGETHER if site in sites]
    if reserved:
        raise Mistake(f"partition.column: expected values other than {' and '.join(TOGETHER)}, got {reserved[0]!r}")
    return sites


def _categories(rows: Rows, columns: Sequence[Column]) -> dict[str, tuple[Levels, int]]:
    """Return the categories among the columns, {name: (column, its first input)}.

    Rows whose inputs are no encoded table, such as images, have none.
    """
    widths = [column.width for column in columns]
    if rows.inputs.ndim != 2 or rows.inputs.shape[1] != sum(widths):
        return {}

    categories = {}
    start = 0
    for column, width in zip(columns, widths, strict=True):
        if isinstance(column, Levels):
            categories[column.name] = (column, start)
        start += width
    return categories


def _values_of_category(rows: Rows, columns: Sequence[Column], name: str) -> np.ndarray | None:
    """Return each row's value of a category, str (rows,); None if no category has that name."""
    categories = _categories(rows, columns)
    if name not in categories:
        return None

    column, start = categories[name]
    encoded = rows.inputs[:, start : start + column.width]  # (rows, levels)
    texts = [_as_text(level) for level in column.levels]
    values = np.array([*texts, WITHOUT_VALUE])[np.argmax(encoded, axis=1)]
    return np.where(encoded.any(axis=1), values, WITHOUT_VALUE)


def _as_text(level: float | str) -> str:
    """Write a level as the name of a site: a whole number without a point."""
    if isinstance(level, str):
        return level
    return str(int(level)) if float(level).is_integer() else repr(float(level))


def _by_mapping(rows: Rows, columns: Sequence[Column], partition: Partition) -> Sites:
    """Join the sites that the data has into the sites of a mapping.

    Raises:
        Mistake: A site of the data is not in the mapping, or the mapping names a site that the data has not.
    """
    mapping = partition.mapping or {}
    natural_sites = [str(site) for site in np.unique(rows.site)]

    faults = []
    left_out = [site for site in natural_sites if site not in mapping]
    if left_out:
        listed = _listed(left_out)
        faults.append(f"partition.mapping: expected a site for each site of the data, got none for {listed}")
    for site in mapping:
        if site not in natural_sites:
            hint = catalog.nearest(site, natural_sites)
            faults.append(f"partition.mapping: expected the names of sites of the data, got {site!r}{hint}")
    if faults:
        raise Mistake("\n".join(faults))

    site_of_row = np.array([mapping[str(site)] for site in rows.site])
    return group(site_of_row)


_MOST_LISTED = 10  # sites in a message


def _listed(sites: Sequence[str]) -> str:
    shown = ", ".join(map(repr, sites[:_MOST_LISTED]))
    if len(sites) > _MOST_LISTED:
        return f"{shown} and {len(sites) - _MOST_LISTED} more"
    return shown


def _by_shares(rows: Rows, columns: Sequence[Column], partition: Partition) -> Sites:
    """Deal rows out at random, to each site its share.

    Raises:
        Mistake: A site would be left without rows.
    """
    shares = partition.shares or []
    width = max(2, len(str(len(shares) - 1)))
    names = [f"site-{number:0{width}}" for number in range(len(shares))]
    return _dealt(rows, partition, names, shares)


def _by_size_classes(rows: Rows, columns: Sequence[Column], partition: Partition) -> Sites:
    """Deal rows out at random, to each class of sites its share, and within a class evenly.

    Raises:
        Mistake: There are more sites than rows, or a site would be left without rows.
    """
    classes = partition.size_classes or {}
    site_count = sum(size_class.sites for size_class in classes.values())
    if site_count > len(rows.target):
        expected = f"at most one site for each of the {len(rows.target)} rows"
        raise Mistake(f"partition.size_classes: expected {expected}, got {site_count} sites")

    names = []
    shares = []
    for name, size_class in classes.items():
        width = max(2, len(str(size_class.sites - 1)))
        names += [f"{name}-{number:0{width}}" for number in range(size_class.sites)]
        shares += [size_class.share / size_class.sites] * size_class.sites
    return _dealt(rows, partition, names, shares)


def _dealt(rows: Rows, partition: Partition, names: Sequence[str], shares: Sequence[float]) -> Sites:
    """Deal rows out at random by shares, which add up to 1.

    Raises:
        Mistake: A site would be left without rows.
    """
    row_count = len(rows.target)
    ends = np.rint(np.cumsum(shares) * row_count).astype(int)  # (sites,)
    ends[-1] = row_count

    order = stream(partition.seed, "partition", partition.by).permutation(row_count)
    parts = np.split(order, ends[:-1])
    empty = [name for name, part in zip(names, parts, strict=True) if not len(part)]
    if empty:
        raise Mistake(
            f"partition: expected shares that leave each site some of the {row_count} rows, "
            f"got none for {_listed(empty)}; take fewer sites or larger shares"
        )
    sites = {name: np.sort(part) for name, part in zip(names, parts, strict=True)}
    return dict(sorted(sites.items()))


DRAWN = ("shares", "size-classes")
"""Those that draw which rows are at a site, and look at nothing in them."""

DECLARED: dict[str, Declared] = {
    "column": _by_column,
    "mapping": _by_mapping,
    "shares": _by_shares,
    "size-classes": _by_size_classes,
}
