"""From an attack's successes to a lower bound on epsilon.

The bounds hold with a stated confidence, whatever the attack: a better one only makes them tighter.
"""

import math
from dataclasses import replace

import numpy as np
from scipy.optimize import root_scalar
from scipy.special import ndtri
from scipy.stats import beta, binom

from fedsim.privacy.accounting import SMALLEST_NOISE, Segment, epsilon, profile

CONFIDENCE = 0.99
_GUESSES = (0.1, 0.2, 0.35, 0.5, 1.0)  # shares of the canaries about which a guess is ventured
_MOST = 100.0  # epsilon that can be found
_COARSE = 1.1  # the factor to which noise is found out; the side that gives the smaller epsilon is used


def clopper_pearson(successes: np.ndarray | int, trials: int, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the interval that holds a probability with at least this confidence (Clopper and Pearson 1934)."""
    tail, successes = (1 - confidence) / 2, np.asarray(successes)
    low = beta.ppf(tail, np.maximum(successes, 1), trials - successes + 1)
    high = beta.ppf(1 - tail, successes + 1, np.maximum(trials - successes, 1))
    return np.where(successes > 0, low, 0.0), np.where(successes < trials, high, 1.0)


def paired_bound(inside: np.ndarray, outside: np.ndarray, delta: float, confidence: float = CONFIDENCE) -> float:
    """Return a lower bound on epsilon from many trainings with a canary and as many without.

    A threshold is chosen on the first half of the scores and judged on the second. An (epsilon, delta) mechanism has
    TPR <= e^epsilon FPR + delta and the same of TNR and FNR (Kairouz, Oh, Viswanath 2015,
    https://arxiv.org/abs/1311.0776), so epsilon >= log((TPR - delta) / FPR) with both rates at the unfavourable end of
    their Clopper-Pearson intervals.

    Args:
        inside: Scores of independent trainings with the canary, (trials,); higher means "it was in".
        outside: Scores of those without, (trials,).
        delta: The mechanism's.
        confidence: With which the bound holds, for both rates together.
    """
    half = min(len(inside), len(outside)) // 2
    first, second = (inside[:half], outside[:half]), (inside[half:], outside[half:])
    thresholds = np.quantile(np.concatenate(first), np.linspace(0.005, 0.995, 199))
    chosen = int(_bounds(*first, thresholds, delta, confidence).argmax())
    return max(0.0, float(_bounds(*second, thresholds, delta, confidence)[chosen]))


def noise_bound(
    inside: np.ndarray, outside: np.ndarray, claimed: Segment, delta: float, confidence: float = CONFIDENCE
) -> float:
    """Return a lower bound on epsilon that presumes a Poisson-sampled Gaussian mechanism of unknown noise.

    Where ``paired_bound`` uses one point of the trade-off between false and true positives, this uses all of it, as
    Nasr et al. 2023 (https://arxiv.org/abs/2302.07956) do for Gaussian differential privacy: it looks for the most
    noise whose privacy profile allows the rates that were seen, from 4 times the claimed noise down to a quarter, and
    returns its epsilon. Few trials suffice to find a large epsilon. It is what refutes too little noise.

    Args:
        inside: Scores with the canary, as in ``paired_bound``.
        outside: Scores without it.
        claimed: The mechanism; its noise is what is doubted.
        delta: The mechanism's.
        confidence: With which the bound holds.
    """
    half, each = min(len(inside), len(outside)) // 2, 1 - (1 - confidence) / 2
    # The upper half of the scores: there the profile's epsilons >= 0 decide.
    thresholds = np.quantile(np.concatenate((inside[:half], outside[:half])), np.linspace(0.5, 0.98, 49))
    chosen = int(np.subtract(*map(ndtri, _rates(inside[:half], outside[:half], thresholds, each))).argmax())
    right, wrong = (float(rate[chosen]) for rate in _rates(inside[half:], outside[half:], thresholds, each))
    grid = np.linspace(0, 20, 161)

    def allows(noise: float) -> bool:
        deltas = profile([replace(claimed, noise_multiplier=noise)], grid.tolist())
        return bool(right <= (np.exp(grid) * wrong + deltas).min())

    low, high = max(SMALLEST_NOISE, claimed.noise_multiplier / 4), 4 * claimed.noise_multiplier
    if right <= wrong or allows(high):
        return 0.0
    if not allows(low):
        high = low
    while high / low > _COARSE:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if allows(middle) else (low, middle)
    return epsilon([replace(claimed, noise_multiplier=high)], delta)


def _rates(
    inside: np.ndarray, outside: np.ndarray, thresholds: np.ndarray, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each threshold the least true-positive and the most false-positive rate."""
    above = [(scores > thresholds[:, None]).sum(1) for scores in (inside, outside)]
    return (
        clopper_pearson(above[0], len(inside), confidence)[0],
        clopper_pearson(above[1], len(outside), confidence)[1],
    )


def _bounds(
    inside: np.ndarray, outside: np.ndarray, thresholds: np.ndarray, delta: float, confidence: float
) -> np.ndarray:
    """Return the bound for each threshold, then for each of them with the roles of in and out exchanged."""
    each = 1 - (1 - confidence) / 2  # two intervals share the error
    above_in, above_out = ((scores > thresholds[:, None]).sum(1) for scores in (inside, outside))
    found = []
    for right, rights, wrong, wrongs in (
        (above_in, len(inside), above_out, len(outside)),
        (len(outside) - above_out, len(outside), len(inside) - above_in, len(inside)),
    ):
        rightly, wrongly = clopper_pearson(right, rights, each)[0], clopper_pearson(wrong, wrongs, each)[1]
        found.append(np.log(np.maximum(rightly - delta, 1e-300) / wrongly))
    return np.concatenate(found)


def one_run_bound(scores: np.ndarray, included: np.ndarray, delta: float, confidence: float = CONFIDENCE) -> float:
    """Return a lower bound on epsilon from one training that included each canary with probability one half.

    Steinke, Nasr, Jagielski 2023, https://arxiv.org/abs/2305.08846, Theorem 5.2. The highest scores are guessed to be
    in, the lowest to be out; how many guesses are ventured is tried in five ways, which share the error.

    Args:
        scores: Of each canary, (canaries,); higher means "it was in".
        included: Whether it was, bool (canaries,).
        delta: The mechanism's.
        confidence: With which the bound holds.
    """
    order, error = np.argsort(-scores, kind="stable"), (1 - confidence) / len(_GUESSES)
    found = []
    for share in _GUESSES:
        each = max(1, int(share * len(scores)) // 2)
        right = int(included[order[:each]].sum() + (~included[order[-each:]]).sum())
        found.append(_least_epsilon(len(scores), 2 * each, right, delta, error))
    return max(found)


def _least_epsilon(canaries: int, guesses: int, right: int, delta: float, error: float) -> float:
    """Return the largest epsilon under which so many right guesses are less likely than the error."""

    def excess(epsilon: float) -> float:
        return _chance(canaries, guesses, right, epsilon, delta) - error

    if excess(0.0) >= 0:
        return 0.0
    return root_scalar(excess, bracket=(0.0, _MOST)).root if excess(_MOST) > 0 else _MOST


def _chance(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Return the most probable it can be that at least so many guesses are right."""
    rate = 1 / (1 + math.exp(-epsilon))
    exact = np.cumsum(binom.pmf(right - np.arange(1, right + 1), guesses, rate))
    slack = float((exact / np.arange(1, right + 1)).max()) if right else 0.0
    return min(1.0, float(binom.sf(right - 1, guesses, rate)) + 2 * canaries * delta * slack)


def roc(inside: np.ndarray, outside: np.ndarray, at: float = 0.01) -> tuple[float, float]:
    """Return an attack's AUC, ties counting half, and its true-positive rate at a false-positive rate ``at``."""
    ordered = np.sort(outside)
    below, up_to = np.searchsorted(ordered, inside, "left"), np.searchsorted(ordered, inside, "right")
    threshold = ordered[max(0, math.ceil((1 - at) * len(ordered)) - 1)]
    return float((below + up_to).mean() / 2 / len(outside)), float((inside > threshold).mean())


def ceiling(epsilon: float, delta: float) -> float:
    """Return the largest AUC that any attack can have against an (epsilon, delta) mechanism.

    The area under the curve TPR = min(1, e^epsilon FPR + delta, 1 - e^-epsilon (1 - delta - FPR)).
    """
    if math.isinf(epsilon):
        return 1.0
    false = np.linspace(0, 1, 100_001)
    with np.errstate(over="ignore"):
        true = np.minimum(1, np.minimum(math.exp(min(epsilon, 700)) * false + delta,
                                        1 - math.exp(-epsilon) * (1 - delta - false)))  # fmt: skip
    return float(np.trapezoid(true, false))
