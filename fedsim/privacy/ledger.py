"""The ledger: what each site released, at which noise, and the epsilon that follows."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from fedsim.privacy.accounting import Neighbours, Segment, epsilon


@dataclass(frozen=True)
class Mechanism:
    """What one site did to its rows before an update left it: steps of DP-SGD.

    Attributes:
        sampling_rate: The probability with which each row joined a step (Poisson sampling), in (0, 1].
        noise_multiplier: The standard deviation of the Gaussian noise on each step's sum, over ``clip``.
        clip: The largest Euclidean norm one row's gradient has in that sum.
        expected_batch: The public number every noisy sum was divided by.
        steps: How many noisy sums were computed.

    Raises:
        Mistake: A value is out of its range.
    """

    sampling_rate: float
    noise_multiplier: float
    clip: float
    expected_batch: float
    steps: int

    def __post_init__(self) -> None:
        self.segment()

    def segment(self) -> Segment:
        """Return what the accountant needs to know.

        Raises:
            Mistake: A value is out of its range.
        """
        return Segment(self.sampling_rate, self.noise_multiplier, self.steps)


@dataclass(frozen=True)
class Entry:
    """One release of one site."""

    site: str
    round: int
    mechanism: Mechanism


Spent = tuple[Segment, ...]
"""Releases merged by sampling rate and noise."""


@lru_cache(maxsize=4096)
def _added(spent: Spent, mechanism: Mechanism) -> Spent:
    steps = Counter({(one.sampling_rate, one.noise_multiplier): one.steps for one in spent})
    steps[mechanism.sampling_rate, mechanism.noise_multiplier] += mechanism.steps
    return tuple(Segment(rate, noise, count) for (rate, noise), count in sorted(steps.items()))


class Ledger:
    """The append-only record of one training's releases. Each site has an epsilon of its own.

    The unit is the record: the guarantee is for one row of one site, against everyone who sees all that the site sent.
    Its epsilon is that of ``trainings`` such trainings together, of which this is one.
    """

    def __init__(
        self, delta: float, neighbours: Neighbours, entries: tuple[Entry, ...] = (), trainings: int = 1
    ) -> None:
        self.delta = delta
        self.neighbours: Neighbours = neighbours
        self.trainings = trainings
        self._entries: list[Entry] = []
        self._rounds: Counter[str] = Counter()
        self._spent: dict[str, Spent] = {}
        for entry in entries:
            self.charge(entry.site, entry.round, entry.mechanism)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries, oldest first."""
        return tuple(self._entries)

    def charge(self, site: str, round_number: int, mechanism: Mechanism) -> None:
        """Write down a release."""
        self._entries.append(Entry(site, round_number, mechanism))
        self._rounds[site] += 1
        self._spent[site] = _added(self.spent(site), mechanism)

    def rounds(self, site: str) -> int:
        """Return how many releases a site has made."""
        return self._rounds[site]

    def spent(self, site: str) -> Spent:
        """Return all a site has released, as what matters to its epsilon."""
        return self._spent.get(site, ())

    def epsilon(self, site: str) -> float:
        """Return the epsilon of all a site has released."""
        return self._epsilon(self.spent(site))

    def epsilon_of(self, spent: Spent, planned: Mechanism) -> float:
        """Return the epsilon of what was released and what is about to be."""
        return self._epsilon([*spent, planned.segment()])

    def _epsilon(self, segments: Iterable[Segment]) -> float:
        together = [replace(one, steps=self.trainings * one.steps) for one in segments]
        return epsilon(together, self.delta, self.neighbours)

    def as_json(self) -> dict[str, Any]:
        """Return {"epsilon": {site: value}, "entries": [...]}."""
        return {
            "epsilon": {site: self.epsilon(site) for site in sorted(self._spent)},
            "entries": [asdict(entry) for entry in self._entries],
        }
