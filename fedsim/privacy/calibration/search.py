"""The search for the least noise that keeps an epsilon: by an estimate first, by the exact accountant last."""

import math
from typing import Protocol

from fedsim.mistakes import Mistake

LARGEST_NOISE = 1e6
_STRIDE = 0.1  # of the logarithm of the noise, to find numbers on both sides of the target
_CLEAR = 0.2  # of a digit's effect on epsilon, by which the next smaller noise must miss the target to need no try
_LARGEST_RATIO = 2.0  # of an epsilon to the target, and of the target to it, by which a try is set right at once
_BEYOND = f"epsilon: {{target}} needs more noise than a multiplier of {LARGEST_NOISE:g}"


class EpsilonOf(Protocol):
    """Epsilon as a function of the noise multiplier, falling."""

    def __call__(self, noise: float, /) -> float:
        """Return the epsilon of a noise multiplier."""
        ...


def least_noise(exact: EpsilonOf, estimated: EpsilonOf, target: float, guess: float, least: float) -> float:
    """Return the least noise multiplier of 4 digits whose exact epsilon is at most the target.

    The estimate only says where to look. The result is always one whose exact epsilon was computed. An estimate that
    is somewhat off costs exact evaluations, and not the result.

    Args:
        exact: The upper bound that is promised.
        estimated: About the same, and faster.
        target: The epsilon to keep.
        guess: Roughly the right noise.
        least: The least noise that may be returned; it need not have 4 digits.

    Raises:
        Mistake: No noise up to ``LARGEST_NOISE`` reaches the target.
    """
    root = _root(estimated, target, guess, least)
    if root is None:
        if exact(least) <= target:
            return least
        root = least
    steepness = _steepness(estimated, root)

    # Known are a noise that is too little and one that is enough, and every try moves one of them.
    too_little = 0.0
    enough = math.inf
    noise = _round_up(root)
    while noise <= LARGEST_NOISE:
        found = exact(noise)
        if found > target:
            too_little = noise
        else:
            enough = noise
            smaller = _next_smaller(noise)
            step = (noise / smaller) ** steepness  # what a digit less does to epsilon
            if smaller < least or found * step > target * (1 + _CLEAR * (step - 1)):
                return noise

        # The next try is where epsilon meets the target if it falls as steeply as the estimate.
        # An epsilon of 0 says only that much less noise is enough, too.
        ratio = min(max(found / target, 1 / _LARGEST_RATIO), _LARGEST_RATIO)
        wanted = max(_round_up(noise * ratio ** (1 / steepness)), _next_larger(too_little), least)
        noise = min(wanted, _next_smaller(enough))
        if noise <= too_little:
            return enough
    raise Mistake(_BEYOND.format(target=target))


def _root(estimated: EpsilonOf, target: float, guess: float, least: float) -> float | None:
    """Return where the estimate meets the target; None if the least noise is enough already."""

    def excess(log_noise: float) -> float:
        return estimated(math.exp(log_noise)) - target

    bottom = math.log(least)
    low = high = max(bottom, math.log(guess))
    while math.isinf(excess(low)):  # a root is only found between numbers
        low = high = low + _STRIDE
    while low > bottom and excess(low) <= 0:
        low = max(bottom, low - _STRIDE)
    if excess(low) <= 0:
        return None
    while excess(high) > 0:
        high += _STRIDE
        if high > math.log(LARGEST_NOISE):
            raise Mistake(_BEYOND.format(target=target))

    from scipy.optimize import root_scalar

    return math.exp(root_scalar(excess, bracket=(low, high), xtol=1e-6).root)


def _steepness(estimated: EpsilonOf, noise: float) -> float:
    """Return by which power epsilon falls as noise grows, > 0."""
    wider = 1.01
    here, there = estimated(noise), estimated(noise * wider)
    if not (0 < there < here < math.inf):
        return 1.0
    return math.log(here / there) / math.log(wider)


def _round_up(value: float) -> float:
    """Return the next number of 4 significant digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    return round(math.ceil(value / unit) * unit, 10)


def _next_larger(noise: float) -> float:
    """Return the next larger number of 4 significant digits; of 0, 0."""
    return _round_up(noise * (1 + 1e-6)) if noise else 0.0


def _next_smaller(noise: float) -> float:
    """Return the next smaller number of 4 significant digits; of infinity, infinity."""
    if math.isinf(noise):
        return noise
    unit = 10.0 ** (math.floor(math.log10(noise * (1 - 1e-9))) - 3)
    return round(round(noise / unit - 1) * unit, 10)
