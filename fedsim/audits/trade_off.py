"""Lower bounds on epsilon that presume the kind of mechanism and doubt its noise.

They use the whole trade-off between false and true positives, not one point of it, and so find noise that is too small
also at a large epsilon. They hold with a stated confidence, whatever the attack.
"""

import math
from dataclasses import replace
from typing import Protocol

import numpy as np
from scipy.special import ndtri

from fedsim.audits.bounds import CONFIDENCE, SHARES, clopper_pearson, guesses
from fedsim.privacy.accounting import SMALLEST_NOISE, Segment, epsilon, profile

_COARSE = 1.1  # the factor to which noise is found out; the side that gives the smaller epsilon is used
_EPSILONS = np.linspace(0, 20, 161)


def paired_noise_bound(
    inside: np.ndarray, outside: np.ndarray, claimed: Segment, delta: float, confidence: float = CONFIDENCE
) -> float:
    """Bound epsilon from below by many trainings with a canary and as many without.

    As Nasr et al. 2023 (https://arxiv.org/abs/2302.07956) do for Gaussian differential privacy: it looks for the most
    noise whose privacy profile allows the rates that were seen. Few trials suffice to find a large epsilon.

    Args:
        inside: Scores of independent trainings with the canary, (trials,); higher means "it was in".
        outside: Scores of those without, (trials,).
        claimed: The mechanism; its noise is what is doubted.
        delta: The mechanism's.
        confidence: With which the bound holds.
    """
    half = min(len(inside), len(outside)) // 2
    each = 1 - (1 - confidence) / 2  # two intervals share the error

    # The threshold is chosen in the upper half of the scores: there the profile's epsilons >= 0 decide.
    thresholds = np.quantile(np.concatenate((inside[:half], outside[:half])), np.linspace(0.5, 0.98, 49))
    least_true, most_false = _rates(inside[:half], outside[:half], thresholds, each)
    chosen = int((ndtri(least_true) - ndtri(most_false)).argmax())

    # It is judged by the other half of the trainings.
    least_true, most_false = _rates(inside[half:], outside[half:], thresholds, each)
    right = float(least_true[chosen])
    wrong = float(most_false[chosen])

    def allows(deltas: np.ndarray) -> bool:
        return bool(right <= (np.exp(_EPSILONS) * wrong + deltas).min())

    return _epsilon_allowed(claimed, delta, allows)


def one_run_noise_bound(
    scores: np.ndarray, included: np.ndarray, claimed: Segment, delta: float, confidence: float = CONFIDENCE
) -> float:
    """Bound epsilon from below by one training that included each canary with probability one half.

    Mahloujifar, Melis, Chaudhuri 2024, "Auditing f-differential privacy in one run",
    https://arxiv.org/abs/2410.22235, Algorithm 3, with the trade-off curve of the claimed mechanism at every noise.
    How many guesses are ventured is tried in several ways, which share the error.

    Args:
        scores: Of each canary, (canaries,); higher means "it was in".
        included: Whether it was, bool (canaries,).
        claimed: The mechanism; its noise is what is doubted.
        delta: The mechanism's.
        confidence: With which the bound holds.
    """
    error = (1 - confidence) / len(SHARES)
    tried = [guesses(scores, included, share) for share in SHARES]

    def allows(deltas: np.ndarray) -> bool:
        return all(_allowed(len(scores), ventured, right, error, deltas) for ventured, right in tried)

    return _epsilon_allowed(claimed, delta, allows)


class _Allows(Protocol):
    """The observations that a mechanism must allow."""

    def __call__(self, deltas: np.ndarray, /) -> bool:
        """Tell whether a privacy profile, the delta of each of ``_EPSILONS``, allows the observations."""
        ...


def _epsilon_allowed(claimed: Segment, delta: float, allows: _Allows) -> float:
    """Compute epsilon at the most noise that allows the observations, from 4 times the claimed to a quarter."""

    def allowed(noise: float) -> bool:
        mechanism = replace(claimed, noise_multiplier=noise)
        return allows(np.array(profile([mechanism], _EPSILONS.tolist())))

    low = claimed.noise_multiplier / 4
    high = 4 * claimed.noise_multiplier
    if claimed.sampling_rate < 1:
        low = max(SMALLEST_NOISE, low)
    if low >= high or allowed(high):
        return 0.0
    if not allowed(low):
        high = low
    while high / low > _COARSE:
        middle = math.sqrt(low * high)
        if allowed(middle):
            low = middle
        else:
            high = middle
    return epsilon([replace(claimed, noise_multiplier=high)], delta)


def _rates(
    inside: np.ndarray, outside: np.ndarray, thresholds: np.ndarray, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the least true-positive and the most false-positive rate at each threshold."""
    above_in = (inside > thresholds[:, None]).sum(1)
    above_out = (outside > thresholds[:, None]).sum(1)
    least_true, _ = clopper_pearson(above_in, len(inside), confidence)
    _, most_false = clopper_pearson(above_out, len(outside), confidence)
    return least_true, most_false


def _allowed(canaries: int, ventured: int, right: int, error: float, deltas: np.ndarray) -> bool:
    """Tell whether a trade-off curve allows so many right guesses of those ventured, but for a chance of ``error``.

    ``wrong`` and ``rightly`` are the paper's h and r: going down from the right guesses that were seen, how much
    probability the curve leaves for one guess to be wrong while so many others are right, and the sum of that.
    """
    rightly = error * right / canaries
    wrong = error * (ventured - right) / canaries
    for index in range(right - 1, -1, -1):
        more = max(wrong, _least_false(rightly, deltas))
        if more == wrong:
            break  # nothing changes any more
        rightly = min(1.0, rightly + index / (ventured - index) * (more - wrong))
        wrong = more
    return rightly + wrong <= ventured / canaries


def _least_false(true: float, deltas: np.ndarray) -> float:
    """Return the least false-positive rate at a true-positive rate: the inverse of the blow-up function."""
    by_positives = float((np.exp(-_EPSILONS) * (true - deltas)).max())
    by_negatives = float((1 - deltas - np.exp(_EPSILONS) * (1 - true)).max())
    return max(0.0, by_positives, by_negatives)
