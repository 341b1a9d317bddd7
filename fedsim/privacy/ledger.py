"""The ledger: what each site released, at which noise, and the epsilon that follows."""

from collections import Counter
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from fedsim.privacy.accounting import Neighbours, Segment, epsilon
from fedsim.privacy.noise_shares import NoiseShare


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
class SiteUpdate:
    """What the server did to the sites' updates before a round's model left it: a noisy sum of clipped updates.

    Attributes:
        sampling_rate: The probability with which each site joined the round on its own, in (0, 1]; 1 where the round's
            sites were chosen otherwise, since nothing is claimed from that.
        noise_multiplier: The standard deviation of the Gaussian noise on the sum, over ``clip``.
        clip: The largest Euclidean norm a site's update has in that sum.
        heaviest: The largest public weight of a site; each update counted by its own site's weight over this.
        denominator: The public number the noisy sum was divided by.

    Raises:
        Mistake: A value is out of its range.
    """

    sampling_rate: float
    noise_multiplier: float
    clip: float
    heaviest: float
    denominator: float

    def __post_init__(self) -> None:
        self.segment()

    def segment(self) -> Segment:
        """Return what the accountant needs to know: one step, whose rows are the sites.

        Raises:
            Mistake: A value is out of its range.
        """
        return Segment(self.sampling_rate, self.noise_multiplier, 1)


Released = Mechanism | SiteUpdate | NoiseShare
"""What a release is: what was done before it, and so what it costs."""


@dataclass(frozen=True)
class Entry:
    """One release of one site, or of ``EACH_SITE``."""

    site: str
    round: int
    mechanism: Released


EACH_SITE = "each site"
"""Who is charged where sites join a round on their own: all alike, whether or not they joined."""

Spent = tuple[Segment, ...]
"""Releases merged by sampling rate and noise."""


@lru_cache(maxsize=4096)
def _added(spent: Spent, released: Segment) -> Spent:
    steps = Counter({(one.sampling_rate, one.noise_multiplier): one.steps for one in spent})
    steps[released.sampling_rate, released.noise_multiplier] += released.steps
    return tuple(Segment(rate, noise, count) for (rate, noise), count in sorted(steps.items()))


class Ledger:
    """The append-only record of one training's releases. Each site has an epsilon of its own.

    Of the unit record, an entry is what a site sent: the guarantee is for one of its rows, against everyone who sees
    all of that. Of the unit client, an entry is a round's model: the guarantee is for a whole site, against everyone
    who sees the models. Of the unit distributed, an entry is what a site sent under masks: the guarantee is for that
    site, against everyone who sees the sums.
    """

    def __init__(self, delta: float, neighbours: Neighbours, entries: tuple[Entry, ...] = ()) -> None:
        self.delta = delta
        self.neighbours: Neighbours = neighbours
        self._entries: list[Entry] = []
        self._rounds: Counter[str] = Counter()
        self._spent: dict[str, Spent] = {}
        for entry in entries:
            self.charge(entry.site, entry.round, entry.mechanism)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries, oldest first."""
        return tuple(self._entries)

    def charge(self, site: str, round_number: int, mechanism: Released) -> None:
        """Write down a release."""
        self._entries.append(Entry(site, round_number, mechanism))
        self._rounds[site] += 1
        self._spent[site] = _added(self.spent(site), mechanism.segment())

    def rounds(self, site: str) -> int:
        """Return how many releases a site has made."""
        return self._rounds[site]

    def spent(self, site: str) -> Spent:
        """Return all a site has released, as what matters to its epsilon."""
        return self._spent.get(site, ())

    def epsilon(self, site: str) -> float:
        """Return the epsilon of all a site has released."""
        return epsilon(self.spent(site), self.delta, self.neighbours)

    def epsilon_of(self, spent: Spent, planned: Released, times: int = 1) -> float:
        """Return the epsilon of what was released and what is about to be, some times over."""
        one = planned.segment()
        return epsilon([*spent, replace(one, steps=times * one.steps)], self.delta, self.neighbours)

    def record_epsilon(self, site: str) -> float:
        """Return the epsilon of one row of a site, where releases are of the unit client.

        One row more or less changes its site's update into another one, so the update counts as replaced.
        """
        return epsilon(self.spent(site), self.delta, "replace-one")

    def as_json(self) -> dict[str, Any]:
        """Return {"epsilon": {site: value}, "entries": [...]}, of the unit client with "record_epsilon" too."""
        sites = sorted(self._spent)
        whole = any(isinstance(entry.mechanism, SiteUpdate | NoiseShare) for entry in self._entries)
        return {
            "epsilon": {site: self.epsilon(site) for site in sites},
            **({"record_epsilon": {site: self.record_epsilon(site) for site in sites}} if whole else {}),
            "entries": [asdict(entry) for entry in self._entries],
        }
