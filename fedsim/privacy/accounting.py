"""From mechanisms to epsilon and back: privacy loss distributions, and the closed form where nothing is sampled.

Every number that leaves this module is an upper bound on epsilon; where several are valid, the least of them. PLD is
dp-accounting's Connect-the-Dots discretisation with pessimistic rounding (Doroshenko, Ghazi, Kamath, Kumar, Manurangsi
2022, https://arxiv.org/abs/2207.04380), interval 1e-4. Its rounding adds up over steps, so it is helped where that
shows: by an interval of 1e-5 for a small epsilon, by Renyi accounting (Mironov, Talwar, Zhang 2019,
https://arxiv.org/abs/1908.10530) for very many steps. At a sampling rate of 1 the composed Gaussian mechanism has a
closed form (Balle and Wang 2018, https://arxiv.org/abs/1805.06530, Theorem 8), which is exact. Never used are the
central-limit approximation (GDP), which lies below proven lower bounds, and Renyi accounting of replaced rows, where
dp-accounting reads the noise relative to twice the clipping norm.

The accountants are imported where they are asked: a node that trains takes a second less to start without them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from fedsim.mistakes import Mistake
from fedsim.privacy.calibration.estimate import estimated_epsilon
from fedsim.privacy.calibration.kept import keep, kept
from fedsim.privacy.calibration.search import LARGEST_NOISE, least_noise

if TYPE_CHECKING:
    import dp_accounting

Neighbours = Literal["add-or-remove-one", "replace-one"]
ACCOUNTANT = f"PLD and RDP, the lesser (dp-accounting {version('dp-accounting')}); closed form at sampling rate 1"
SMALLEST_NOISE = 0.3  # below it a sampled Gaussian takes PLD minutes and promises next to nothing
SMALLEST_RATE = 1e-12  # below it, and beyond the next, numbers run out of a float's range
MOST_NOISE = 1e12  # and the least is one over it
SMALLEST_DELTA = 1e-12  # below it the discretisation's own error decides
MOST_STEPS = 10_000_000  # of sampled mechanisms: what PLD composes in seconds
HOPELESS = 2000.0  # an epsilon above it is called infinite: PLD would take minutes and gigabytes to find it
_RENYI_NOISE = 1e4  # from it on Renyi divergences of sampled steps are lost in rounding
_COUNTABLE = 2**53  # the most steps that a float counts one by one
_INTERVAL, _FINE_INTERVAL = 1e-4, 1e-5  # of the discretisation, in general and for a small epsilon
_COARSE_INTERVAL, _FEW = 1e-3, 2000  # of the estimate, and the steps up to which its rounding does not add up
_SMALL, _MANY = 0.1, 20_000  # the epsilon below which, and the steps from which on, PLD at 1e-4 is helped
_SENSITIVITY = {"add-or-remove-one": 1, "replace-one": 2}  # of a clipped sum, in units of the clipping norm
_ORDERS = (*range(2, 65), 128, 256, 512, 1024)  # of Renyi divergences; fractional ones are slow and often fail


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
        if not (_is_number(self.sampling_rate) and 0 < self.sampling_rate <= 1):
            raise Mistake(f"sampling_rate: expected a number in (0, 1], got {self.sampling_rate}")
        if self.sampling_rate < SMALLEST_RATE:
            raise Mistake(f"sampling_rate: expected at least {SMALLEST_RATE:g}, got {self.sampling_rate}")
        if not (_is_number(self.noise_multiplier) and 0 < self.noise_multiplier < math.inf):
            raise Mistake(f"noise_multiplier: expected a finite number > 0, got {self.noise_multiplier}")
        if not 1 / MOST_NOISE <= self.noise_multiplier <= MOST_NOISE:
            raise Mistake(f"noise_multiplier: expected a number from {1 / MOST_NOISE:g} to {MOST_NOISE:g}, "
                          f"got {self.noise_multiplier}")  # fmt: skip
        if self.sampling_rate < 1 and self.noise_multiplier < SMALLEST_NOISE:
            raise Mistake(f"noise_multiplier: expected at least {SMALLEST_NOISE} with sampling, "
                          f"got {self.noise_multiplier}")  # fmt: skip
        if isinstance(self.steps, bool) or not isinstance(self.steps, Integral) or self.steps < 1:
            raise Mistake(f"steps: expected a whole number >= 1, got {_short(self.steps)}")
        if self.steps > _COUNTABLE:
            raise Mistake(f"steps: expected at most 2^53, got {_short(self.steps)}")


_Segments = tuple[Segment, ...]


def composed(segments: Iterable[Segment], times: int = 1) -> tuple[Segment, ...]:
    """Add up what was released: steps of one sampling rate and noise become one segment.

    This is the one place where releases are composed: those of a site's rounds, of the trainings of a run, and of the
    trainings of a tournament.

    Args:
        segments: What was released, in any order.
        times: How many such trainings there were.

    Returns:
        The merged segments, sorted.

    Raises:
        Mistake: There are more steps than can be counted.
    """
    steps: Counter[tuple[float, float]] = Counter()
    for segment in segments:
        steps[segment.sampling_rate, segment.noise_multiplier] += times * segment.steps

    return tuple(Segment(rate, noise, count) for (rate, noise), count in sorted(steps.items()))


@dataclass(frozen=True)
class Guarantee:
    """A complete statement of what was or will be spent; an epsilon without the rest means nothing.

    Attributes:
        epsilon: An upper bound.
        delta: What may be added to e^epsilon times a probability. The privacy loss exceeds epsilon with a probability
            that may be somewhat larger.
        neighbours: Between which data sets it holds.
        accountant: How it was computed.
    """

    epsilon: float
    delta: float
    neighbours: Neighbours
    accountant: str = ACCOUNTANT


def guarantee(segments: Iterable[Segment], delta: float, neighbours: Neighbours = "add-or-remove-one") -> Guarantee:
    """Return what segments guarantee together; see ``epsilon``."""
    return Guarantee(epsilon(segments, delta, neighbours), delta, neighbours)


def epsilon(segments: Iterable[Segment], delta: float, neighbours: Neighbours = "add-or-remove-one") -> float:
    """Return an upper bound on the epsilon of all segments composed; 0 if there are none, infinity above ``HOPELESS``.

    Rounds, restarts and sites compose alike. For a person with one record at each of several sites, pass what all of
    these sites released.

    Args:
        segments: What was released. Their order doesn't matter.
        delta: From 1e-12 to below 1.
        neighbours: The relation. ``replace-one`` is the costlier one: two rows differ.

    Raises:
        Mistake: A value is out of its range, or there are more than ``MOST_STEPS`` sampled steps.
    """
    _check_delta(delta)
    _check_neighbours(neighbours)
    merged = composed(segments)
    sampled = sum(segment.steps for segment in merged if segment.sampling_rate < 1)
    if sampled > MOST_STEPS:
        raise Mistake(f"steps: expected at most {MOST_STEPS} with sampling, got {sampled}")
    return _epsilon(merged, delta, neighbours)


def profile(segments: Iterable[Segment], epsilons: Sequence[float]) -> list[float]:
    """Return an upper bound on delta for each epsilon, ascending: the whole trade-off of add or remove one."""
    released = tuple(segments)
    if all(segment.sampling_rate == 1 for segment in released):
        mu = _shift(released, "add-or-remove-one")
        return [math.exp(_gaussian_log_delta(mu, epsilon)) for epsilon in epsilons]
    from dp_accounting.pld import PLDAccountant

    coarse = PLDAccountant(_relation("add-or-remove-one"), value_discretization_interval=1e-3)
    accountant = _composed(coarse, released)
    return [float(delta) for delta in accountant.get_delta(epsilons)]  # type: ignore[union-attr]


@lru_cache(maxsize=4096)
def _epsilon(segments: tuple[Segment, ...], delta: float, neighbours: Neighbours) -> float:
    if not segments:
        return 0.0
    if all(segment.sampling_rate == 1 for segment in segments):
        return _gaussian_epsilon(_shift(segments, neighbours), delta)

    question = {
        "asked": "epsilon",
        "segments": [[float(s.sampling_rate), float(s.noise_multiplier), int(s.steps)] for s in segments],
        "delta": float(delta),
        "neighbours": neighbours,
    }
    answer = kept(question)
    if answer is None:
        answer = _least_bound(segments, delta, neighbours, _pld_bound, (_INTERVAL, _FINE_INTERVAL))
        keep(question, answer)
    return answer


class _Pld(Protocol):
    """The epsilon of segments by privacy loss distributions, discretised."""

    def __call__(self, segments: _Segments, delta: float, neighbours: Neighbours, interval: float, /) -> float:
        """Return it."""
        ...


def _least_bound(
    segments: _Segments, delta: float, neighbours: Neighbours, pld: _Pld, intervals: tuple[float, float]
) -> float:
    """Return the least of the bounds on the epsilon of sampled segments; infinity where it is hopeless.

    Args:
        segments: One at least, not all at a sampling rate of 1.
        delta: In (0, 1).
        neighbours: The relation.
        pld: What composes privacy loss distributions.
        intervals: Its interval, and that for a small epsilon.
    """
    if _is_hopeless(segments, delta):
        return math.inf

    bounds = [pld(segments, delta, neighbours, intervals[0])]
    if bounds[0] < _SMALL:
        bounds.append(pld(segments, delta, neighbours, intervals[1]))
    many = sum(segment.steps for segment in segments) >= _MANY
    if neighbours == "add-or-remove-one" and many and min(s.noise_multiplier for s in segments) < _RENYI_NOISE:
        from dp_accounting.rdp import RdpAccountant

        bounds.append(_bound(RdpAccountant(_ORDERS), segments, delta))
    return min(bounds)


def _pld_bound(segments: _Segments, delta: float, neighbours: Neighbours, interval: float) -> float:
    """Return dp-accounting's bound."""
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(_relation(neighbours), value_discretization_interval=interval)
    return _bound(accountant, segments, delta)


def _pld_estimate(segments: _Segments, delta: float, neighbours: Neighbours, interval: float) -> float:
    """Return about the same for one segment, faster."""
    (one,) = segments
    replaces = neighbours == "replace-one"
    return estimated_epsilon(one.sampling_rate, one.noise_multiplier, one.steps, delta, replaces, interval)


def _is_hopeless(segments: tuple[Segment, ...], delta: float) -> bool:
    """Whether epsilon is beyond all use, found out where PLD might not come to an end."""
    least = min(s.noise_multiplier for s in segments)
    if sum(segment.steps for segment in segments) < 1000 and least > 0.5:
        return False
    if least >= _RENYI_NOISE:  # MOST_STEPS of them come to less than one step of noise 3
        return False
    from dp_accounting.rdp import RdpAccountant

    return _bound(RdpAccountant(_ORDERS), segments, delta) > HOPELESS


def _relation(neighbours: Neighbours) -> dp_accounting.NeighboringRelation:
    """Return a relation as the accountants call it."""
    from dp_accounting import NeighboringRelation

    names = {"add-or-remove-one": "ADD_OR_REMOVE_ONE", "replace-one": "REPLACE_ONE"}
    return NeighboringRelation[names[neighbours]]


def _bound(accountant: dp_accounting.PrivacyAccountant, segments: tuple[Segment, ...], delta: float) -> float:
    return float(_composed(accountant, segments).get_epsilon(delta))


def _composed(
    accountant: dp_accounting.PrivacyAccountant, segments: tuple[Segment, ...]
) -> dp_accounting.PrivacyAccountant:
    import dp_accounting

    for segment in segments:
        noise = dp_accounting.GaussianDpEvent(segment.noise_multiplier)
        accountant.compose(dp_accounting.PoissonSampledDpEvent(segment.sampling_rate, noise), segment.steps)
    return accountant


@lru_cache(maxsize=256)
def noise_multiplier(
    target: float, sampling_rate: float, steps: int, delta: float, neighbours: Neighbours = "add-or-remove-one"
) -> float:
    """Return the least noise multiplier (to 4 digits, rounded up) whose epsilon is at most ``target``.

    Never less than ``SMALLEST_NOISE`` where rows are sampled.

    Raises:
        Mistake: The target is not a number > 0 and at most ``HOPELESS``, or no noise up to 1e6 reaches it.
    """
    if not (_is_number(target) and 0 < target < math.inf):
        raise Mistake(f"epsilon: expected a finite number > 0, got {target}")
    if target > HOPELESS:
        raise Mistake(f"epsilon: expected at most {HOPELESS:g}, above which nothing is promised, got {target:g}")
    _check_neighbours(neighbours)

    Segment(sampling_rate, 1.0, steps)  # raises a Mistake before the first guess divides by any of them
    _check_delta(delta)

    question = {
        "asked": "noise multiplier",
        "target": float(target),
        "sampling rate": float(sampling_rate),
        "steps": int(steps),
        "delta": float(delta),
        "neighbours": neighbours,
    }

    def exact(noise: float) -> float:
        return epsilon((Segment(sampling_rate, noise, steps),), delta, neighbours)

    least = SMALLEST_NOISE if sampling_rate < 1 else 1e-4
    answer = kept(question)
    if answer is not None and least <= answer <= LARGEST_NOISE and exact(answer) <= target:
        return answer

    @cache
    def estimated(noise: float) -> float:
        if sampling_rate == 1:
            return exact(noise)
        intervals = _intervals_to_search(target, steps)
        return _least_bound((Segment(sampling_rate, noise, steps),), delta, neighbours, _pld_estimate, intervals)

    guess = _guess(target, sampling_rate, steps, delta, neighbours)
    answer = least_noise(exact, estimated, target, guess, least)
    keep(question, answer)
    return answer


def _intervals_to_search(target: float, steps: int) -> tuple[float, float]:
    """Return the intervals of the estimate: ten times as wide as the bound's where rounding doesn't add up."""
    if steps > _FEW or target < 2 * _SMALL:
        return _INTERVAL, _INTERVAL
    return _COARSE_INTERVAL, _INTERVAL


def _guess(target: float, sampling_rate: float, steps: int, delta: float, neighbours: Neighbours) -> float:
    """Return roughly the right noise: the central limit of many steps is one Gaussian step with shift mu."""
    from scipy.optimize import root_scalar

    mu = root_scalar(lambda mu: _gaussian_epsilon(mu, delta) - target, bracket=(1e-9, 1e3)).root
    return _SENSITIVITY[neighbours] / math.sqrt(math.log1p((mu / sampling_rate) ** 2 / steps))


def _short(count: Any) -> str:  # noqa: ANN401  what a caller may pass in spite of the types
    """Return a number of steps as it fits into a line."""
    if isinstance(count, int) and abs(count) >= 10**20:
        return "a number of more than 20 digits"
    return str(count)


def _is_number(value: Any) -> bool:  # noqa: ANN401  what a caller may pass in spite of the types
    return isinstance(value, Real) and not isinstance(value, bool)


def _check_neighbours(neighbours: str) -> None:
    if neighbours not in get_args(Neighbours):
        raise Mistake(f"neighbours: expected {' or '.join(get_args(Neighbours))}, got {neighbours!r}")


def _check_delta(delta: float) -> None:
    if not _is_number(delta) or not SMALLEST_DELTA <= delta < 1:
        raise Mistake(f"delta: expected a number from {SMALLEST_DELTA:g} to below 1, got {delta}")


def _shift(segments: tuple[Segment, ...], neighbours: Neighbours) -> float:
    """Return the composed mechanism's mu: how far neighbours' outputs lie apart, in standard deviations."""
    return _SENSITIVITY[neighbours] * math.sqrt(sum(s.steps / s.noise_multiplier**2 for s in segments))


def _gaussian_epsilon(mu: float, delta: float) -> float:
    def log_delta(eps: float) -> float:
        return _gaussian_log_delta(mu, eps)

    if log_delta(0.0) <= math.log(delta):
        return 0.0
    high = 1.0
    while log_delta(high) > math.log(delta):
        high *= 2
    from scipy.optimize import root_scalar

    return root_scalar(lambda eps: log_delta(eps) - math.log(delta), bracket=(0.0, high), xtol=1e-12).root


def _gaussian_log_delta(mu: float, eps: float) -> float:
    """Return log(Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu))."""
    from scipy.special import log_ndtr

    first, second = log_ndtr(mu / 2 - eps / mu), eps + log_ndtr(-mu / 2 - eps / mu)
    return first + math.log1p(-math.exp(second - first)) if second < first else -math.inf
