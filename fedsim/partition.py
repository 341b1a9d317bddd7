"""Partitions: which rows belong to which site."""

from collections.abc import Callable

import numpy as np

from fedsim.task import Rows

Partition = Callable[[Rows], dict[str, np.ndarray]]


def natural(rows: Rows) -> dict[str, np.ndarray]:
    """Return the sites as the data has them: {site name: row numbers}, sorted by name."""
    return {str(site): np.flatnonzero(rows.site == site) for site in np.unique(rows.site)}


PARTITIONS: dict[str, Partition] = {"natural": natural}
