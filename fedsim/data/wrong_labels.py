"""What goes wrong at sites on purpose: labels that are wrong, and sites that join late.

Both are stated in the scenario, so public, and the same for all arms. They change what is learned, not what is
promised.
"""

from collections.abc import Sequence

import numpy as np

from fedsim.mistakes import Mistake
from fedsim.randomness import stream
from fedsim.scenario import catalog
from fedsim.scenario.kinds import Kind
from fedsim.scenario.schema import Faults


def check_sites(faults: Faults, names: Sequence[str]) -> None:
    """Make sure that faults are at sites there are, and that the first round has a site.

    Raises:
        Mistake: One is not.
    """
    known = set(names) if faults.wrong_labels or faults.joins_late else set()
    for key in ("wrong_labels", "joins_late"):
        for site in getattr(faults, key):
            if site not in known:
                raise Mistake(f"faults.{key}: expected the name of a site, got {site!r}{catalog.nearest(site, names)}")
    if known and len(faults.joins_late) == len(known):
        raise Mistake("faults.joins_late: expected a site that is there from the first round, got all of them")


def mislabel(target: np.ndarray, kind: Kind, share: float, seed: int, site: str) -> np.ndarray:
    """Return the targets of a site's training rows, a share of them wrong.

    A wrong label of a binary target is the other one; of classes, the next class that the site has; of a number, the
    number mirrored at the middle of its range.

    Args:
        target: As in ``Rows``, (rows,).
        kind: What it is.
        share: Of the rows, rounded to whole rows, in (0, 1].
        seed: The seed of the run.
        site: The name of the site; which rows are wrong depends on both.
    """
    wrong = stream(seed, "wrong labels", site).permutation(len(target))[: round(share * len(target))]
    changed = target.copy()
    if kind == "classes":
        there = np.unique(target)
        changed[wrong] = there[(np.searchsorted(there, target[wrong]) + 1) % len(there)]
    else:
        changed[wrong] = 1 - target[wrong] if kind == "binary" else -target[wrong]
    return changed
