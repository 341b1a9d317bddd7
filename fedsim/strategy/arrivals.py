"""When sites that are not in step finish: virtual time, for strategies that don't wait for everybody.

Time is counted in what a training takes a typical site. Who is how fast, and who begins next, follows from the seed
alone: a schedule is public, and the same for every engine.
"""

import heapq
from bisect import insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fedsim.randomness import stream


def durations(seed: int, sites: int, spread: float) -> np.ndarray:
    """Return what a training takes each site, (sites,), > 0: log-normal, the median 1.

    Args:
        seed: The seed of the run.
        sites: How many sites there are.
        spread: The standard deviation of the logarithm, >= 0.
    """
    return np.exp(spread * stream(seed, "durations").standard_normal(sites))


@dataclass(frozen=True)
class Flush:
    """A server step: the buffer is full.

    Attributes:
        number: Which one, from 1 on; it makes version ``number`` of the model, from version ``number - 1``.
        time: When.
        begun: {site whose answer is in the buffer: the version it began with}, by site.
        in_use: The versions with which those began that are still at work.
    """

    number: int
    time: float
    begun: Mapping[int, int]
    in_use: frozenset[int]

    def staleness(self, site: int) -> int:
        """Return how many server steps there were between the site's beginning and its answer."""
        return self.number - 1 - self.begun[site]


@dataclass(frozen=True)
class Arrivals:
    """Sites begin with the newest model, work, and answer into a buffer; when it holds ``k`` answers, it is flushed.

    As soon as a site has answered, another begins in its place, drawn uniformly from those that are neither at work nor
    in the buffer; if there is none, the place is free until the flush. So no site is in a buffer twice. Answers that
    come at one instant are taken in the order of the sites' numbers, before others begin.

    Attributes:
        seed: The seed of the run.
        sites: How many sites there are.
        k: How many answers make a server step, in [1, sites].
        concurrency: How many sites are at work at once, in [1, sites].
        spread: Of the sites' durations.

    Raises:
        ValueError: ``k`` or ``concurrency`` is not in its range.
    """

    seed: int
    sites: int
    k: int
    concurrency: int
    spread: float

    def __post_init__(self) -> None:
        for name, value in (("k", self.k), ("concurrency", self.concurrency)):
            if not 1 <= value <= self.sites:
                raise ValueError(f"{name}: expected a number from 1 to the {self.sites} sites there are, got {value}")

    def flush(self, number: int) -> Flush:
        """Return a server step by its number, from 1 on; the steps up to it are kept."""
        while len(self._known) < number:
            self._known.append(next(self._more))
        return self._known[number - 1]

    @cached_property
    def _known(self) -> list[Flush]:
        """The steps that were simulated, from the first on."""
        return []

    @cached_property
    def _more(self) -> Iterator[Flush]:
        """The steps after those that are known."""
        takes = durations(self.seed, self.sites, self.spread)
        return _simulate(self, takes.tolist())


def _simulate(chosen: Arrivals, takes: Sequence[float]) -> Iterator[Flush]:
    """Yield the server steps, one after another, from how long a training takes each site."""
    random = stream(chosen.seed, "arrivals")
    free = list(range(chosen.sites))  # ascending
    working: list[tuple[float, int]] = []  # a heap of (when it answers, site)
    version = 0
    now = 0.0
    began: dict[int, int] = {}
    buffer: dict[int, int] = {}

    while True:
        # Others begin, once all have been taken that answered at this instant.
        if not working or working[0][0] > now:
            while free and len(working) < chosen.concurrency:
                site = free.pop(int(random.integers(len(free))))
                began[site] = version
                heapq.heappush(working, (now + takes[site], site))

        now, site = heapq.heappop(working)
        buffer[site] = began.pop(site)

        if len(buffer) == chosen.k:
            version += 1
            yield Flush(version, now, dict(sorted(buffer.items())), frozenset(began.values()))
            for site in buffer:
                insort(free, site)
            buffer = {}
