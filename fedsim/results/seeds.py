"""How many seeds it takes to tell a difference apart from none, from the spread that some seeds have shown."""

import math

import numpy as np
from scipy.special import stdtrit  # Student's t quantile, as in scipy.stats, which takes a second to import

from fedsim.results.comparison import CONFIDENCE

WORTH_TELLING = 0.01
"""A difference of a metric that lies between 0 and 1 which is worth telling apart from none."""

POWER = 0.8
"""The chance of telling the difference apart, if it is there."""

MOST_SEEDS = 1000
"""More than so many seeds are not counted: a scenario has no more."""

_FEWEST = 3


def seeds_needed(differences: np.ndarray, size: float, overlap: float, comparisons: int = 1) -> float:
    """Compute how many seeds tell a difference of some size apart from none, four times out of five.

    With J seeds the interval of ``multiple_comparisons.differences`` reaches t(1 - 0.05 / (2 m)) times
    s sqrt(1 / J + overlap) to both sides, and a true difference must lie further from 0 than that by
    t(0.8) of the same standard errors, both with J - 1 degrees of freedom.
    Where the rows of all seeds overlap, the standard error never falls below s sqrt(overlap): some
    differences can't be told apart by any number of seeds, but only by more records.

    Args:
        differences: The paired differences, (seeds,), by which their spread s is estimated.
        size: The difference that is to be told apart, above 0.
        overlap: Test share over training share; 0 where all seeds have the same rows.
        comparisons: m, the number of comparisons that are made together.

    Returns:
        The number of seeds; infinite where ``MOST_SEEDS`` don't suffice; NaN where fewer than three seeds are known or
        all have the same difference, so that there is no spread to go by.
    """
    known = differences[np.isfinite(differences)]
    if len(known) < _FEWEST:
        return math.nan
    spread = float(known.std(ddof=1))
    if spread <= 1e-12:
        return math.nan

    seeds = np.arange(_FEWEST, MOST_SEEDS + 1)
    level = 1 - (1 - CONFIDENCE) / (2 * max(1, comparisons))
    reach = (stdtrit(seeds - 1, level) + stdtrit(seeds - 1, POWER)) * spread * np.sqrt(1 / seeds + overlap)
    enough = seeds[reach <= size]
    return float(enough[0]) if len(enough) else math.inf
