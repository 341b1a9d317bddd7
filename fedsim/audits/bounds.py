"""Lower bounds on epsilon from an attack's successes.

The bounds hold with a stated confidence, whatever the attack: a better one only makes them tighter.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import root_scalar
from scipy.stats import beta, binom

CONFIDENCE = 0.99
RATES = tuple(np.logspace(-3, 0, 61).tolist())
"""False-positive rates at which a ROC is drawn."""
SHARES = (0.1, 0.2, 0.35, 0.5, 1.0)  # shares of the canaries about which a guess is ventured
_MOST = 100.0  # epsilon that can be found


def clopper_pearson(successes: np.ndarray | int, trials: int, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the interval that holds a probability with at least this confidence (Clopper and Pearson 1934)."""
    tail = (1 - confidence) / 2
    successes = np.asarray(successes)
    low = beta.ppf(tail, np.maximum(successes, 1), trials - successes + 1)
    high = beta.ppf(1 - tail, successes + 1, np.maximum(trials - successes, 1))
    return np.where(successes > 0, low, 0.0), np.where(successes < trials, high, 1.0)


def paired_bound(inside: np.ndarray, outside: np.ndarray, delta: float, confidence: float = CONFIDENCE) -> float:
    """Bound epsilon from below by many trainings with a canary and as many without.

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
    thresholds = np.quantile(np.concatenate((inside[:half], outside[:half])), np.linspace(0.005, 0.995, 199))
    on_first_half = _bounds(inside[:half], outside[:half], thresholds, delta, confidence)
    on_second_half = _bounds(inside[half:], outside[half:], thresholds, delta, confidence)
    chosen = int(on_first_half.argmax())
    return max(0.0, float(on_second_half[chosen]))


def _bounds(
    inside: np.ndarray, outside: np.ndarray, thresholds: np.ndarray, delta: float, confidence: float
) -> np.ndarray:
    """Return the bound for each threshold, then for each of them with the roles of in and out exchanged."""
    each = 1 - (1 - confidence) / 2  # two intervals share the error
    above_in = (inside > thresholds[:, None]).sum(1)
    above_out = (outside > thresholds[:, None]).sum(1)

    def bound(right: np.ndarray, rights: int, wrong: np.ndarray, wrongs: int) -> np.ndarray:
        least_right, _ = clopper_pearson(right, rights, each)
        _, most_wrong = clopper_pearson(wrong, wrongs, each)
        return np.log(np.maximum(least_right - delta, 1e-300) / most_wrong)

    guessed_in = bound(above_in, len(inside), above_out, len(outside))
    guessed_out = bound(len(outside) - above_out, len(outside), len(inside) - above_in, len(inside))
    return np.concatenate([guessed_in, guessed_out])


def one_run_bound(scores: np.ndarray, included: np.ndarray, delta: float, confidence: float = CONFIDENCE) -> float:
    """Bound epsilon from below by one training that included each canary with probability one half.

    Steinke, Nasr, Jagielski 2023, https://arxiv.org/abs/2305.08846, Theorem 5.2. The highest scores are guessed to be
    in, the lowest to be out; how many guesses are ventured is tried in five ways, which share the error.

    Args:
        scores: Of each canary, (canaries,); higher means "it was in".
        included: Whether it was, bool (canaries,).
        delta: The mechanism's.
        confidence: With which the bound holds.
    """
    error = (1 - confidence) / len(SHARES)
    bounds = []
    for share in SHARES:
        ventured, right = guesses(scores, included, share)
        bounds.append(_least_epsilon(len(scores), ventured, right, delta, error))
    return max(bounds)


def guesses(scores: np.ndarray, included: np.ndarray, share: float) -> tuple[int, int]:
    """Count the guesses that are ventured about a share of the canaries, and the right ones among them."""
    order = np.argsort(-scores, kind="stable")
    each = max(1, int(share * len(scores)) // 2)
    rightly_in = included[order[:each]].sum()
    rightly_out = (~included[order[-each:]]).sum()
    return 2 * each, int(rightly_in + rightly_out)


def _least_epsilon(canaries: int, guesses: int, right: int, delta: float, error: float) -> float:
    """Return the largest epsilon under which so many right guesses are less likely than the error."""

    def excess(epsilon: float) -> float:
        return _chance(canaries, guesses, right, epsilon, delta) - error

    if excess(0.0) >= 0:
        return 0.0
    if excess(_MOST) <= 0:
        return _MOST
    return root_scalar(excess, bracket=(0.0, _MOST)).root


def _chance(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Return the most probable it can be that at least so many guesses are right."""
    rate = 1 / (1 + math.exp(-epsilon))
    steps = np.arange(1, right + 1)
    exact = np.cumsum(binom.pmf(right - steps, guesses, rate))
    slack = float((exact / steps).max()) if right else 0.0
    return min(1.0, float(binom.sf(right - 1, guesses, rate)) + 2 * canaries * delta * slack)


def roc(inside: np.ndarray, outside: np.ndarray, at: Sequence[float] = (0.01,)) -> list[float]:
    """Return an attack's AUC, ties counting half, and its true-positive rate at each false-positive rate of ``at``."""
    outer = np.sort(outside)
    inner = np.sort(inside)
    below = np.searchsorted(outer, inner, "left")
    up_to = np.searchsorted(outer, inner, "right")
    auc = float((below + up_to).mean() / 2 / len(outside))

    # The threshold of a rate is the largest score of the others who are not accused.
    thresholds = []
    for rate in at:
        place = math.ceil((1 - rate) * len(outer) - 1e-9) - 1
        thresholds.append(outer[place] if place >= 0 else -np.inf)
    found = 1 - np.searchsorted(inner, np.array(thresholds), "right") / len(inner)
    return [auc, *found.tolist()]


def ceiling(epsilon: float, delta: float) -> float:
    """Return the largest AUC that any attack can have against an (epsilon, delta) mechanism.

    The area under the curve TPR = min(1, e^epsilon FPR + delta, 1 - e^-epsilon (1 - delta - FPR)).
    """
    if math.isinf(epsilon):
        return 1.0
    false = np.linspace(0, 1, 100_001)
    with np.errstate(over="ignore"):
        left = math.exp(min(epsilon, 700)) * false + delta
        right = 1 - math.exp(-epsilon) * (1 - delta - false)
        true = np.minimum(1, np.minimum(left, right))
    return float(np.trapezoid(true, false))
