"""Simulate faults at sites: wrong labels, and sites that join late.

The scenario states both, so they are public and the same for all arms. Faults change the model that
is learned and leave the privacy guarantee as it is.
"""

from collections.abc import Sequence

import numpy as np

from fedsim.mistakes import Mistake
from fedsim.outcomes import outcome_of
from fedsim.randomness import stream
from fedsim.scenario import catalog
from fedsim.scenario.kinds import Kind
from fedsim.scenario.schema import Faults


def check_sites(faults: Faults, names: Sequence[str]) -> None:
    """Check that faults name existing sites, and that at least one site joins in the first round.

    Raises:
        Mistake: A fault names another site, or all sites join late.
    """
    if not faults.wrong_labels and not faults.joins_late:
        return  # without going through the names, which may be a million

    known = set(names)
    for key, faulty_sites in (
        ("wrong_labels", faults.wrong_labels),
        ("joins_late", faults.joins_late),
    ):
        for site in faulty_sites:
            if site not in known:
                hint = catalog.nearest(site, names)
                raise Mistake(f"faults.{key}: expected the name of a site, got {site!r}{hint}")

    if known and len(faults.joins_late) == len(known):
        expected = "a site that is there from the first round"
        raise Mistake(f"faults.joins_late: expected {expected}, got all of them")


def mislabel(target: np.ndarray, kind: Kind, share: float, seed: int, site: str) -> np.ndarray:
    """Make a share of the labels of a site's training rows wrong.

    A wrong label of a binary target is the other label. A wrong class is the next class that the
    site has. A wrong number is the number mirrored at the middle of its range.

    Args:
        target: As in ``Rows``, (rows,).
        kind: The kind of the target.
        share: The share of wrong labels in (0, 1], rounded to whole rows.
        seed: The seed of the run.
        site: The name of the site. Seed and site decide which rows are wrong.

    Raises:
        Mistake: Outcomes of the kind have no wrong labels.
    """
    shuffled = stream(seed, "wrong labels", site).permutation(len(target))
    wrong = shuffled[: round(share * len(target))]  # row numbers

    new = outcome_of(kind).mislabelled(target, wrong)
    if new is None:
        raise Mistake(f"faults.wrong_labels: expected an outcome that has wrong labels, got one of the kind {kind!r}")
    changed = target.copy()
    changed[wrong] = new
    return changed
