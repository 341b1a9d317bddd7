"""Partitions: which rows belong to which site."""

import numpy as np

from fedsim.losses import Kind
from fedsim.mistakes import Mistake
from fedsim.scenario import Partition
from fedsim.task import Rows

Sites = dict[str, np.ndarray]
"""{site name: row numbers}."""


def divide(rows: Rows, kind: Kind, chosen: Partition) -> Sites:
    """Return the sites of a partition, sorted by name.

    Raises:
        Mistake: The partition can't be made of these rows, or would leave a site without rows.
    """
    if chosen.by != "natural" or chosen.sites:
        raise Mistake(f"partition.by: {chosen.by!r} is not there yet")
    return natural(rows)


def natural(rows: Rows) -> Sites:
    """Return the sites as the data has them."""
    return {str(site): np.flatnonzero(rows.site == site) for site in np.unique(rows.site)}
