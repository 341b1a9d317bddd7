"""Compare all pairs of strategies, with intervals that hold together.

A ranking looks for the best strategy and then asks which others can be told apart from it. The
best was chosen by looking, so that each of the k (k - 1) / 2 pairs could have been the pair that is
shown: the intervals are adjusted for all of them.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtrit  # Student's t quantile, as in scipy.stats, which takes a second to import

from fedsim.results.comparison import CONFIDENCE, SAME

FEWEST_SEEDS = 3
"""Two seeds have one degree of freedom: an interval from them says next to nothing."""

_STEADY = 1e-9  # of the largest score: less than this is rounding, not chance


@dataclass(frozen=True)
class Differences:
    """The paired differences of all strategies with simultaneous intervals.

    Attributes are arrays (strategies, strategies).

    Attributes:
        mean: The score of the row's strategy less that of the column's, mean over the seeds that
            have both.
        low: The intervals' lower ends, NaN where there is no interval.
        high: The intervals' upper ends.
        same: Whether both have the same score at every seed, of three seeds or more; but for
            rounding.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    same: np.ndarray

    @property
    def lower(self) -> np.ndarray:
        """Whether the row's strategy is told to be lower than the column's, bool."""
        return self.high < 0

    def verdict(self, first: int, second: int) -> str | None:
        """Judge two strategies by number: ``higher``, ``lower``, ``not distinguishable``, or None.

        None says that there is no interval to judge by.
        """
        if self.same[first, second]:
            return SAME
        if np.isnan(self.low[first, second]):
            return None
        if self.low[first, second] > 0:
            return "higher"
        if self.high[first, second] < 0:
            return "lower"
        return SAME


def differences(scores: np.ndarray, overlap: float, step: float = 0.0, comparisons: int | None = None) -> Differences:
    """Compute simultaneous 95 % intervals for the paired differences of all strategies.

    For J seeds and m = k (k - 1) / 2 pairs an interval reaches t(1 - 0.05 / (2 m); J - 1 degrees
    of freedom) times sqrt((s^2 + step^2 / 6) (1 / J + overlap)) to both sides. This is the
    corrected resampled t interval of ``comparison.interval`` for each pair, with the variance s^2
    of that pair alone, at the level of Bonferroni.

    Each interval fails with probability 0.05 / m at most, where the differences are normal and
    seeds depend on each other no more than the correction assumes. So all of them hold with
    probability 0.95 at least, by the union bound: however pairs depend on each other, and also
    where one strategy is much noisier than the others. Pooled variances (Tukey) would be narrower,
    and wrong in that case.

    There is no interval below three seeds, and none where a difference is the same at every seed:
    then nothing varied by which chance could be judged.

    Args:
        scores: Test figures, (seeds, strategies); NaN for a missing figure.
        overlap: Test share over training share; 0 where all seeds have the same rows.
        step: The least amount by which two scores on the same rows can differ. Each score is
            rounded to it, which adds a variance of step^2 / 12 for each of the two. Without it,
            three seeds that happen to differ by the same two rows look certain.
        comparisons: m, where fewer than all pairs are looked at, such as those with one of them.
    """
    strategies = scores.shape[1]
    change = scores[:, :, None] - scores[:, None, :]  # (seeds, strategies, strategies)
    known = np.isfinite(change)
    seeds = known.sum(axis=0)  # (strategies, strategies), as all below
    pairs = comparisons or max(1, strategies * (strategies - 1) // 2)

    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(known, change, 0.0).sum(axis=0) / seeds
        squares = np.where(known, change - mean, 0.0) ** 2
        variance = squares.sum(axis=0) / (seeds - 1)

    # There is no interval of few seeds, nor where all seeds have the same difference, of which
    # rounding makes a little variance.
    largest = np.abs(np.nan_to_num(scores, posinf=0.0, neginf=0.0)).max(initial=0.0)
    rounding = _STEADY * largest
    few = seeds < FEWEST_SEEDS
    steady = ~few & (np.sqrt(np.nan_to_num(variance)) <= rounding)
    same = steady & (np.abs(mean) <= rounding)

    # The corrected variance of Nadeau and Bengio, with the variance that rounding adds.
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt((variance + step**2 / 6) * (1 / seeds + overlap))

    # The level of Bonferroni: the chance of error is shared among the pairs, and by both sides.
    chance_of_error = (1 - CONFIDENCE) / (2 * pairs)
    critical = stdtrit(seeds - 1, 1 - chance_of_error)
    reach = np.where(few | steady, np.nan, critical * error)
    return Differences(
        mean=np.where(same, 0.0, mean),
        low=mean - reach,
        high=mean + reach,
        same=same,
    )


def groups(order: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Number each strategy's group, int (strategies,), from 1.

    The best strategy that is left leads a group of all that are left and can't be told to be
    lower. So a strategy in group 3 was told to be lower than the leaders of groups 1 and 2, though
    perhaps not than all their members.

    Args:
        order: The strategies' numbers, best first.
        lower: Whether the row's strategy is told to be lower than the column's.
    """
    numbers = np.zeros(len(order), dtype=int)
    number = 0
    for leader in order:
        if numbers[leader]:
            continue  # it is in a better strategy's group
        number += 1
        is_left = numbers == 0  # bool (strategies,)
        is_lower = lower[:, leader]
        numbers[is_left & ~is_lower] = number
    return numbers


def table(scores: pd.DataFrame, overlap: float, step: float = 0.0) -> pd.DataFrame:
    """Compare all pairs of strategies.

    Args:
        scores: A row for each seed and a column for each strategy, best first.
        overlap: As ``differences`` takes it.
        step: As ``differences`` takes it.

    Returns:
        A row for each pair: ``strategy``, the better ``other``, ``difference, low, high`` and the
        ``verdict``.
    """
    paired = differences(scores.to_numpy(dtype=float), overlap, step)
    names = list(scores.columns)
    rows = []
    for better in range(len(names)):
        for worse in range(better + 1, len(names)):
            row = {
                "strategy": names[worse],
                "other": names[better],
                "difference": paired.mean[worse, better],
                "low": paired.low[worse, better],
                "high": paired.high[worse, better],
                "verdict": paired.verdict(worse, better),
            }
            rows.append(row)
    columns = ["strategy", "other", "difference", "low", "high", "verdict"]
    return pd.DataFrame(rows, columns=columns)
