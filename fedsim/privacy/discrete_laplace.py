"""Draw from the discrete Laplace distribution, exactly: whole numbers of probability proportional to exp(-epsilon |x|).

Canonne, Kamath, Steinke 2020, "The discrete Gaussian for differential privacy", https://arxiv.org/abs/2004.00010,
algorithms 1 and 2. Nothing but whole numbers is computed with, so that no rounding of floating point numbers gives
away the count that is hidden (Mironov 2012, "On significance of the least significant bits for differential privacy").

Guarantee. A count that one row changes by at most one, plus such a number, is epsilon-differentially private: the
distribution is that of Ghosh, Roughgarden, Sundararajan 2009, "Universally utility-maximizing privacy mechanisms".
"""

import math
import secrets
from fractions import Fraction
from typing import Protocol

import numpy as np

_LEVEL = 0.95
_TAIL = 1e-12  # of the distribution's mass, beyond what is computed


class Below(Protocol):
    """A source of randomness: a whole number from 0 to below ``limit``, each as likely as another."""

    def __call__(self, limit: int, /) -> int:
        """Draw a number."""
        ...


system_random: Below = secrets.randbelow
"""The operating system's randomness: nothing that it gives can be repeated or known from a seed."""


def draw(epsilon: Fraction, below: Below = system_random) -> int:
    """Draw one number, of probability proportional to exp(-epsilon |x|).

    Args:
        epsilon: The privacy parameter, > 0.
        below: The source of randomness.
    """
    scale = epsilon.denominator  # t of the paper
    divisor = epsilon.numerator  # s of the paper
    while True:
        remainder = below(scale)
        if not _happens(Fraction(remainder, scale), below):
            continue

        # The geometric part: how many times exp(-1) happens in a row.
        whole = 0
        while _happens(Fraction(1), below):
            whole += 1

        magnitude = (remainder + scale * whole) // divisor
        is_negative = below(2) == 1
        if is_negative and magnitude == 0:
            continue  # or zero would be drawn twice as often
        return -magnitude if is_negative else magnitude


def _happens(exponent: Fraction, below: Below) -> bool:
    """Draw an event of probability exp(-exponent), for an exponent from 0 to 1: algorithm 1, first case."""
    trials = 1
    while below(exponent.denominator * trials) < exponent.numerator:
        trials += 1
    return trials % 2 == 1


def probability(epsilon: Fraction, value: int) -> float:
    """Return the probability of a number."""
    rate = float(epsilon)
    return math.tanh(rate / 2) * math.exp(-rate * abs(value))


def margin(epsilon: Fraction, terms: int = 1, level: float = _LEVEL) -> int:
    """Return the least half width of an interval that holds the noise with at least a probability.

    Args:
        epsilon: The privacy parameter of each number.
        terms: How many independent numbers are added up.
        level: The probability.
    """
    rate = float(epsilon)
    if terms == 1:
        # P(|x| > m) = 2 exp(-rate (m + 1)) / (1 + exp(-rate))
        outside = (1 - level) * (1 + math.exp(-rate)) / 2
        return max(0, math.ceil(-math.log(outside) / rate - 1))
    return _margin_of_sum(rate, terms, level)


def _margin_of_sum(rate: float, terms: int, level: float) -> int:
    """Return the half width for a sum, whose distribution follows from its characteristic function."""
    deviation = standard_deviation(rate) * math.sqrt(terms)
    reach = 10 * deviation - math.log(_TAIL) / rate
    size = 2 ** math.ceil(math.log2(2 * reach + 2))
    angles = 2 * math.pi * np.arange(size // 2 + 1) / size

    # The characteristic function of one number, real because its distribution is symmetric.
    decay = math.exp(-rate)
    of_one = (1 - decay) ** 2 / (1 - 2 * decay * np.cos(angles) + decay**2)
    mass = np.fft.irfft(of_one**terms, size)  # mass[x] for x = 0, 1, ..., and mass[-x] the same
    inside = mass[0] + 2 * np.cumsum(mass[1 : size // 2])
    if mass[0] >= level:
        return 0
    return int(np.searchsorted(inside, level)) + 1


def standard_deviation(rate: float) -> float:
    """Return the standard deviation of one number, for an epsilon of ``rate``."""
    return 1 / (math.sqrt(2) * math.sinh(rate / 2))
