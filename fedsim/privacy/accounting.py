"""From mechanisms to epsilon and back: privacy loss distributions, and the closed form where nothing is sampled.

Every number that leaves this module is an upper bound on epsilon. PLD is dp-accounting's Connect-the-Dots
discretisation with pessimistic rounding (Doroshenko, Ghazi, Kamath, Kumar, Manurangsi 2022,
https://arxiv.org/abs/2207.04380), interval 1e-4. At a sampling rate of 1 the composed Gaussian mechanism has a closed
form (Balle and Wang 2018, https://arxiv.org/abs/1805.06530, Theorem 8), which is exact.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Literal

import dp_accounting
from dp_accounting.pld import PLDAccountant
from scipy.optimize import root_scalar
from scipy.special import log_ndtr

from fedsim.mistakes import Mistake

Neighbours = Literal["add-or-remove-one", "replace-one"]
ACCOUNTANT = f"PLD (dp-accounting {version('dp-accounting')}, interval 1e-4); closed form at sampling rate 1"
SMALLEST_NOISE = 0.3  # below it a sampled Gaussian takes PLD minutes and promises next to nothing
SMALLEST_DELTA = 1e-12  # below it the discretisation's own error decides
_LARGEST_NOISE = 1e6
_SENSITIVITY = {"add-or-remove-one": 1, "replace-one": 2}  # of a clipped sum, in units of the clipping norm
_RELATION = {
    "add-or-remove-one": dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace-one": dp_accounting.NeighboringRelation.REPLACE_ONE,
}


@dataclass(frozen=True)
class Segment:
    """Equal steps of a Poisson-sampled Gaussian mechanism.

    Attributes:
        sampling_rate: The probability that a row joins a step, in (0, 1].
        noise_multiplier: The noise's standard deviation over the clipping norm, > 0.
        steps: How many steps, >= 1.

    Raises:
        Mistake: A value is out of its range; accountants answer such input with nonsense or not at all.
    """

    sampling_rate: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        if not 0 < self.sampling_rate <= 1:
            raise Mistake(f"sampling_rate: expected a number in (0, 1], got {self.sampling_rate}")
        if not (0 < self.noise_multiplier < math.inf):
            raise Mistake(f"noise_multiplier: expected a finite number > 0, got {self.noise_multiplier}")
        if self.sampling_rate < 1 and self.noise_multiplier < SMALLEST_NOISE:
            raise Mistake(f"noise_multiplier: expected at least {SMALLEST_NOISE} with sampling, "
                          f"got {self.noise_multiplier}")  # fmt: skip
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise Mistake(f"steps: expected a whole number >= 1, got {self.steps}")


def epsilon(segments: Iterable[Segment], delta: float, neighbours: Neighbours = "add-or-remove-one") -> float:
    """Return an upper bound on the epsilon of all segments composed; 0 if there are none.

    Args:
        segments: What was released. Their order doesn't matter.
        delta: From 1e-12 to below 1.
        neighbours: The relation. ``replace-one`` is the costlier one: two rows differ.
    """
    _check_delta(delta)
    steps: Counter[tuple[float, float]] = Counter()
    for segment in segments:
        steps[segment.sampling_rate, segment.noise_multiplier] += segment.steps
    merged = tuple(Segment(rate, noise, count) for (rate, noise), count in sorted(steps.items()))
    return _epsilon(merged, delta, neighbours)


@lru_cache(maxsize=4096)
def _epsilon(segments: tuple[Segment, ...], delta: float, neighbours: Neighbours) -> float:
    if not segments:
        return 0.0
    if all(segment.sampling_rate == 1 for segment in segments):
        return _gaussian_epsilon(_shift(segments, neighbours), delta)
    accountant = PLDAccountant(_RELATION[neighbours])
    for segment in segments:
        step = dp_accounting.PoissonSampledDpEvent(
            segment.sampling_rate, dp_accounting.GaussianDpEvent(segment.noise_multiplier)
        )
        accountant.compose(step, segment.steps)
    return float(accountant.get_epsilon(delta))


@lru_cache(maxsize=256)
def noise_multiplier(
    target: float, sampling_rate: float, steps: int, delta: float, neighbours: Neighbours = "add-or-remove-one"
) -> float:
    """Return the least noise multiplier (to 4 digits, rounded up) whose epsilon is at most ``target``.

    Never less than ``SMALLEST_NOISE`` where rows are sampled.

    Raises:
        Mistake: The target is not a finite number > 0, or no noise up to 1e6 reaches it.
    """
    if not 0 < target < math.inf:
        raise Mistake(f"epsilon: expected a finite number > 0, got {target}")

    def excess(log_noise: float) -> float:
        return epsilon((Segment(sampling_rate, math.exp(log_noise), steps),), delta, neighbours) - target

    least = math.log(SMALLEST_NOISE if sampling_rate < 1 else 1e-4)
    low = high = max(least, math.log(_guess(target, sampling_rate, steps, delta, neighbours)))
    while low > least and excess(low) <= 0:
        low = max(least, low - 0.1)
    if excess(low) <= 0:
        return math.exp(low)
    while excess(high) > 0:
        high += 0.1
        if high > math.log(_LARGEST_NOISE):
            raise Mistake(f"epsilon: {target} needs more noise than a multiplier of {_LARGEST_NOISE:g}")
    root = root_scalar(excess, bracket=(low, high), xtol=1e-5).root
    noise = _round_up(math.exp(root))
    while excess(math.log(noise)) > 0:
        noise = _round_up(noise * 1.0002)
    return noise


def _guess(target: float, sampling_rate: float, steps: int, delta: float, neighbours: Neighbours) -> float:
    """Return roughly the right noise: the central limit of many steps is one Gaussian step with shift mu."""
    mu = root_scalar(lambda mu: _gaussian_epsilon(mu, delta) - target, bracket=(1e-9, 1e3)).root
    return _SENSITIVITY[neighbours] / math.sqrt(math.log1p((mu / sampling_rate) ** 2 / steps))


def _round_up(value: float) -> float:
    """Return the next number of 4 significant digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    return round(math.ceil(value / unit) * unit, 10)


def _check_delta(delta: float) -> None:
    if not SMALLEST_DELTA <= delta < 1:
        raise Mistake(f"delta: expected a number from {SMALLEST_DELTA:g} to below 1, got {delta}")


def _shift(segments: tuple[Segment, ...], neighbours: Neighbours) -> float:
    """Return the composed mechanism's mu: how far neighbours' outputs lie apart, in standard deviations."""
    return _SENSITIVITY[neighbours] * math.sqrt(sum(s.steps / s.noise_multiplier**2 for s in segments))


def _gaussian_epsilon(mu: float, delta: float) -> float:
    def log_delta(eps: float) -> float:
        """Return log(Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu))."""
        first, second = log_ndtr(mu / 2 - eps / mu), eps + log_ndtr(-mu / 2 - eps / mu)
        return first + math.log1p(-math.exp(second - first)) if second < first else -math.inf

    if log_delta(0.0) <= math.log(delta):
        return 0.0
    high = 1.0
    while log_delta(high) > math.log(delta):
        high *= 2
    return root_scalar(lambda eps: log_delta(eps) - math.log(delta), bracket=(0.0, high), xtol=1e-12).root
