"""Divide rows among sites.

Apart from the sites the data has itself, a partition is a way to simulate: it looks at rows, often
at their targets, to deal them out, as no real federation could. The facts that follow from it
(which site has which labels) are no public knowledge.
"""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from fedsim.data.declared_sites import DECLARED, Sites, group
from fedsim.data.tables import Column
from fedsim.data.task import Rows
from fedsim.mistakes import Mistake
from fedsim.outcomes import outcome_of
from fedsim.randomness import stream, torch_seed
from fedsim.scenario.kinds import Kind
from fedsim.scenario.schema import Partition

_LEAST = 10  # rows that a draw of Dirichlet shares must leave to a site, if there are enough


class Division(Protocol):
    """A way to deal rows out."""

    def __call__(self, rows: Rows, kind: Kind, partition: Partition) -> list[np.ndarray]:
        """Return each site's row numbers."""
        ...


def divide(rows: Rows, kind: Kind, partition: Partition, columns: Sequence[Column] = ()) -> Sites:
    """Divide rows among the sites of a partition.

    Args:
        rows: The rows of all institutions.
        kind: The kind of outcome.
        partition: The scenario's partition.
        columns: The task's columns, by whose categories rows may be divided.

    Raises:
        Mistake: The partition can't be made of these rows, would leave a site without rows, or
            would leave rows out.
    """
    if partition.by == "natural" and partition.sites is None:
        return natural(rows)
    if partition.by in DECLARED:
        return DECLARED[partition.by](rows, columns, partition)

    row_count = len(rows.target)
    site_count = partition.sites or 1
    if site_count > row_count:
        expected = f"at most one for each of the {row_count} rows"
        raise Mistake(f"partition.sites: expected {expected}, got {site_count}")

    # A partitioner of another package may repeat rows, or leave sites or labels out.
    parts = DIVISIONS[partition.by](rows, kind, partition)
    sizes = [len(part) for part in parts]
    if len(parts) != site_count or 0 in sizes or sum(sizes) != row_count:
        raise Mistake(
            f"partition: expected {site_count} sites with rows, and every row at one of them; "
            f"by = {partition.by!r} does not give that for these rows; take fewer sites"
        )
    return {name: np.sort(part) for name, part in zip(names(site_count), parts, strict=True)}


def natural(rows: Rows) -> Sites:
    """Group rows by the sites that the data has itself."""
    return group(rows.site)


def names(count: int) -> list[str]:
    """Number sites as ``site-00, site-01, ...``."""
    width = max(2, len(str(count - 1)))
    return [f"site-{number:0{width}}" for number in range(count)]


def labels_of(target: np.ndarray, kind: Kind) -> np.ndarray:
    """Return each row's label, int64 (rows,).

    The label of a number is its tenth: 0 for a row among the lowest tenth of all rows, and so on. Rows of a kind
    without labels share one.
    """
    labels = outcome_of(kind).labels(target)
    return np.zeros(len(target), np.int64) if labels is None else labels


def skewed(inputs: np.ndarray, partition: Partition, number: int) -> np.ndarray:
    """Skew a site's inputs as instruments of its own would, float32 (rows, ...).

    Every input is moved by an amount that is the site's, drawn from a normal distribution of
    deviation ``partition.shift``; and each row gets noise of deviation ``partition.noise`` times
    (number + 1) / sites, as in Li, Diao, Chen, He, "Federated Learning on Non-IID Data Silos",
    ICDE 2022, https://arxiv.org/abs/2102.02079, section 4.2. Inputs reach from -1 to 1 before.
    """
    if partition.by != "feature-skew" or partition.sites is None:
        return inputs

    random = stream(partition.seed, "feature skew", number)
    shift = (partition.shift or 0.0) * random.standard_normal(inputs.shape[1:])  # one for all rows
    deviation = (partition.noise or 0.0) * (number + 1) / partition.sites
    noise = deviation * random.standard_normal(inputs.shape)  # (rows, ...)
    return (inputs + shift + noise).astype(np.float32)


def _regrouped(rows: Rows, kind: Kind, partition: Partition) -> list[np.ndarray]:
    """Deal the natural sites out in random order, each to the group that has the fewest of them."""
    natural_sites = [*natural(rows).values()]
    group_count = partition.sites or 1
    if group_count > len(natural_sites):
        expected = f"at most {len(natural_sites)} with by = 'natural', as many as the data has"
        raise Mistake(f"partition.sites: expected {expected}, got {group_count}")

    order = stream(partition.seed, "partition", "natural").permutation(len(natural_sites))
    groups = []
    for first in range(group_count):
        members = [natural_sites[site] for site in order[first::group_count]]
        groups.append(np.concatenate(members))
    return groups


def _by_time(rows: Rows, kind: Kind, partition: Partition) -> list[np.ndarray]:
    """Cut time into blocks of about as many rows; the first site has the earliest.

    Rows of one moment stay together.
    """
    if rows.time is None:
        raise Mistake("partition.by: expected another than 'time' with rows that have no time")

    site_count = partition.sites or 1

    # The first row of each site but the first, were rows sorted by time.
    first_rows = np.arange(1, site_count) * len(rows.time) // site_count
    cuts = np.sort(rows.time)[first_rows]  # moments, (sites - 1,)
    site_of_row = np.searchsorted(cuts, rows.time, side="right")
    return [np.flatnonzero(site_of_row == site) for site in range(site_count)]


class MakePartitioner(Protocol):
    """A function that makes a partitioner of flwr-datasets."""

    def __call__(self, flower: Any, partition: Partition, rows: int) -> Any:  # noqa: ANN401
        """Make the partitioner.

        Args:
            flower: The module of partitioners, which is imported late.
            partition: The scenario's partition.
            rows: The number of rows.
        """
        ...


def _by_flower(
    make_partitioner: MakePartitioner,
    rows: Rows,
    kind: Kind,
    partition: Partition,
) -> list[np.ndarray]:
    """Deal rows out with a partitioner of flwr-datasets."""
    import datasets  # takes a second: only such a partition waits for it
    from flwr_datasets import partitioner as flower

    # Partitioners deal the rows of a label out in the order in which they stand, so that order
    # is drawn first.
    order = stream(partition.seed, "partition", partition.by).permutation(len(rows.target))
    labels = labels_of(rows.target, kind)[order]
    if partition.by == "quantity":
        labels = np.zeros_like(labels)  # the same label for all: only sizes differ

    partitioner = make_partitioner(flower, partition, len(order))
    table = datasets.Dataset.from_dict({"row": order, "label": labels})
    partitioner.dataset = table.with_format("numpy")
    sites = range(partition.sites or 1)
    try:
        # Flower warns of repeated draws and of labels that are left out: ``divide`` checks that.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [partitioner.load_partition(site)["row"][:] for site in sites]
    except ValueError as error:
        by = partition.by
        raise Mistake(f"partition: by = {by!r} can't be made of these rows: {error}") from None


def _iid(flower: Any, partition: Partition, rows: int) -> Any:  # noqa: ANN401
    return flower.IidPartitioner(partition.sites)


def _dirichlet(flower: Any, partition: Partition, rows: int) -> Any:  # noqa: ANN401
    half_of_even_share = rows // (2 * (partition.sites or 1))
    return flower.DirichletPartitioner(
        num_partitions=partition.sites,
        partition_by="label",
        alpha=partition.alpha,
        min_partition_size=min(_LEAST, max(1, half_of_even_share)),
        shuffle=False,
        seed=torch_seed(partition.seed, "partition", partition.by),
    )


def _pathological(flower: Any, partition: Partition, rows: int) -> Any:  # noqa: ANN401
    return flower.PathologicalPartitioner(
        num_partitions=partition.sites,
        partition_by="label",
        num_classes_per_partition=partition.classes,
        class_assignment_mode="first-deterministic",
        shuffle=False,
        seed=torch_seed(partition.seed, "partition", partition.by),
    )


def _size(flower: Any, partition: Partition, rows: int) -> Any:  # noqa: ANN401
    partitioners = {
        "linear": flower.LinearPartitioner,
        "square": flower.SquarePartitioner,
        "exponential": flower.ExponentialPartitioner,
    }
    partitioner = partitioners[partition.growth or "linear"]
    return partitioner(partition.sites)


DIVISIONS: dict[str, Division] = {
    "natural": _regrouped,
    "iid": partial(_by_flower, _iid),
    "dirichlet": partial(_by_flower, _dirichlet),
    "quantity": partial(_by_flower, _dirichlet),
    "pathological": partial(_by_flower, _pathological),
    "size": partial(_by_flower, _size),
    "feature-skew": partial(_by_flower, _iid),
    "time": _by_time,
}
