"""Partitions: which rows belong to which site.

Apart from the sites the data has itself, a partition is a way to simulate: it looks at rows, often at their targets, to
deal them out, as no real federation could. What follows from it (which site has which labels) is no public knowledge.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from fedsim.data.task import Rows
from fedsim.mistakes import Mistake
from fedsim.randomness import stream, torch_seed
from fedsim.scenario.kinds import Kind
from fedsim.scenario.schema import Partition

Sites = dict[str, np.ndarray]
"""{site name: row numbers, ascending}, sorted by name."""

QUANTILES = 10  # into which the numbers of a target are sorted where labels are needed
_LEAST = 10  # rows of a site that a draw of Dirichlet shares must leave, if there are enough for that


def divide(rows: Rows, kind: Kind, chosen: Partition) -> Sites:
    """Return the sites of a partition.

    Raises:
        Mistake: The partition can't be made of these rows, would leave a site without rows, or would leave rows out.
    """
    if chosen.by == "natural" and chosen.sites is None:
        return natural(rows)
    count = chosen.sites or 1
    if count > len(rows.target):
        raise Mistake(f"partition.sites: expected at most one for each of the {len(rows.target)} rows, got {count}")
    parts = DIVISIONS[chosen.by](rows, kind, chosen)
    if len(parts) != count or not all(map(len, parts)) or sum(map(len, parts)) != len(rows.target):
        raise Mistake(f"partition: expected {count} sites with rows, and every row at one of them; by = {chosen.by!r} "
                      "does not give that for these rows; take fewer sites")  # fmt: skip
    return {name: np.sort(part) for name, part in zip(names(count), parts, strict=True)}


def natural(rows: Rows) -> Sites:
    """Return the sites as the data has them."""
    found, which = np.unique(rows.site, return_inverse=True)
    order = np.argsort(which, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(which))[:-1])
    return {str(site): part for site, part in zip(found, parts, strict=True)}


def names(count: int) -> list[str]:
    """Return ``site-00, site-01, ...``."""
    width = max(2, len(str(count - 1)))
    return [f"site-{number:0{width}}" for number in range(count)]


def labels_of(target: np.ndarray, kind: Kind) -> np.ndarray:
    """Return each row's label, int64 (rows,): its class, or the tenth of all rows in which its number is."""
    if kind != "number":
        return target.astype(np.int64)
    bounds = np.quantile(target, np.linspace(0, 1, QUANTILES + 1)[1:-1])
    return np.searchsorted(bounds, target, side="right")


def skewed(inputs: np.ndarray, chosen: Partition, number: int) -> np.ndarray:
    """Return a site's inputs as its own instruments would have measured them, float32 (rows, ...).

    Every input is moved by an amount that is the site's, drawn from a normal distribution of deviation
    ``partition.shift``; and each row gets noise of deviation ``partition.noise`` times (number + 1) / sites, as in Li,
    Diao, Chen, He, "Federated Learning on Non-IID Data Silos", ICDE 2022, https://arxiv.org/abs/2102.02079, section
    4.2. Inputs reach from -1 to 1 before.
    """
    if chosen.by != "feature-skew" or chosen.sites is None:
        return inputs
    random = stream(chosen.seed, "feature skew", number)
    shift = (chosen.shift or 0.0) * random.standard_normal(inputs.shape[1:])
    deviation = (chosen.noise or 0.0) * (number + 1) / chosen.sites
    return (inputs + shift + deviation * random.standard_normal(inputs.shape)).astype(np.float32)


def _regrouped(rows: Rows, kind: Kind, chosen: Partition) -> list[np.ndarray]:
    """Deal the natural sites out in random order, each to the group that has the fewest of them."""
    sites = [*natural(rows).values()]
    count = chosen.sites or 1
    if count > len(sites):
        raise Mistake(f"partition.sites: expected at most {len(sites)} with by = 'natural', as many as the data has, "
                      f"got {count}")  # fmt: skip
    order = stream(chosen.seed, "partition", "natural").permutation(len(sites))
    return [np.concatenate([sites[site] for site in order[group::count]]) for group in range(count)]


def _by_time(rows: Rows, kind: Kind, chosen: Partition) -> list[np.ndarray]:
    """Cut time into blocks of about as many rows; the first site has the earliest. Rows of one moment stay together."""
    if rows.time is None:
        raise Mistake("partition.by: expected another than 'time' with rows that have no time")
    count = chosen.sites or 1
    places = np.arange(1, count) * len(rows.time) // count
    site = np.searchsorted(np.sort(rows.time)[places], rows.time, side="right")
    return [np.flatnonzero(site == number) for number in range(count)]


Make = Callable[[Any, Partition, int], Any]
"""From flwr-datasets' module of partitioners, a partition and the number of rows to the partitioner."""


def _by_flower(make: Make, rows: Rows, kind: Kind, chosen: Partition) -> list[np.ndarray]:
    """Deal rows out with a partitioner of flwr-datasets.

    They deal the rows of a label out in the order in which they stand, so that order is drawn first.
    """
    import datasets  # takes a second: only such a partition waits for it
    from flwr_datasets import partitioner as flower

    order = stream(chosen.seed, "partition", chosen.by).permutation(len(rows.target))
    labels = np.zeros(len(order), np.int64) if chosen.by == "quantity" else labels_of(rows.target, kind)[order]
    dealer = make(flower, chosen, len(order))
    dealer.dataset = datasets.Dataset.from_dict({"row": order, "label": labels}).with_format("numpy")
    try:
        with warnings.catch_warnings():  # about draws that are repeated, and labels that are left out: an error below
            warnings.simplefilter("ignore")
            return [dealer.load_partition(number)["row"][:] for number in range(chosen.sites or 1)]
    except ValueError as error:
        raise Mistake(f"partition: by = {chosen.by!r} can't be made of these rows: {error}") from None


def _iid(flower: Any, chosen: Partition, rows: int) -> Any:  # noqa: ANN401  a module that is imported late
    return flower.IidPartitioner(chosen.sites)


def _dirichlet(flower: Any, chosen: Partition, rows: int) -> Any:  # noqa: ANN401
    least = min(_LEAST, max(1, rows // (2 * (chosen.sites or 1))))
    seed = torch_seed(chosen.seed, "partition", chosen.by)
    return flower.DirichletPartitioner(chosen.sites, "label", chosen.alpha, least, shuffle=False, seed=seed)


def _pathological(flower: Any, chosen: Partition, rows: int) -> Any:  # noqa: ANN401
    seed, first = torch_seed(chosen.seed, "partition", chosen.by), "first-deterministic"
    return flower.PathologicalPartitioner(chosen.sites, "label", chosen.classes, first, shuffle=False, seed=seed)


def _size(flower: Any, chosen: Partition, rows: int) -> Any:  # noqa: ANN401
    growths = {
        "linear": flower.LinearPartitioner,
        "square": flower.SquarePartitioner,
        "exponential": flower.ExponentialPartitioner,
    }
    return growths[chosen.growth or "linear"](chosen.sites)


DIVISIONS: dict[str, Callable[[Rows, Kind, Partition], list[np.ndarray]]] = {
    "natural": _regrouped,
    "iid": partial(_by_flower, _iid),
    "dirichlet": partial(_by_flower, _dirichlet),
    "quantity": partial(_by_flower, _dirichlet),
    "pathological": partial(_by_flower, _pathological),
    "size": partial(_by_flower, _size),
    "feature-skew": partial(_by_flower, _iid),
    "time": _by_time,
}
