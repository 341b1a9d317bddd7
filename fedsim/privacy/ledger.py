"""The ledger: what each site released, at which noise, and the epsilon that follows."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from enum import Enum
from functools import lru_cache
from typing import Any

from fedsim.mistakes import Mistake
from fedsim.privacy.accounting import Neighbours, Segment, epsilon
from fedsim.privacy.noise_shares import NoiseShare
from fedsim.randomness import Random, check_random


@dataclass(frozen=True)
class Mechanism:
    """What one site did to its rows before an update left it: steps of DP-SGD.

    Attributes:
        sampling_rate: The probability with which each row joined a step (Poisson sampling), in (0, 1].
        noise_multiplier: The standard deviation of the Gaussian noise on each step's sum, over ``clip``.
        clip: The largest Euclidean norm one row's gradient has in that sum.
        expected_batch: The public number every noisy sum was divided by.
        steps: How many noisy sums were computed.
        rng: Where noise and batches came from: keys that follow from the seed, or the operating system's.

    Raises:
        Mistake: A value is out of its range.
    """

    sampling_rate: float
    noise_multiplier: float
    clip: float
    expected_batch: float
    steps: int
    rng: Random = "reproducible"

    def __post_init__(self) -> None:
        self.segment()
        check_random(self.rng)

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
        bit_noise: The standard deviation of the noise on the sum of the sites' bits, each plus or minus one half, by
            which the clip moves; None where it does not.
        band: The noise is correlated over this many rounds, in which no site took part twice; 1 if it is independent.
        rng: Where the noise came from and, of a sampling rate below 1, who joined: keys that follow from the seed, or
            the operating system's.

    Raises:
        Mistake: A value is out of its range.
    """

    sampling_rate: float
    noise_multiplier: float
    clip: float
    heaviest: float
    denominator: float
    bit_noise: float | None = None
    band: int = 1
    rng: Random = "reproducible"

    def __post_init__(self) -> None:
        self.segment()
        check_random(self.rng)

    def segment(self) -> Segment:
        """Return what the accountant needs to know: one step, whose rows are the sites; bits and sum together.

        Raises:
            Mistake: A value is out of its range.
        """
        alone = Segment(self.sampling_rate, self.noise_multiplier, 1)
        if self.bit_noise is None:
            return alone
        bits = Segment(self.sampling_rate, 2 * self.bit_noise, 1)  # one site moves the bits' sum by one half
        return replace(alone, noise_multiplier=(alone.noise_multiplier**-2 + bits.noise_multiplier**-2) ** -0.5)


@dataclass(frozen=True)
class OwnUpdate:
    """What one site did to its update before it left: clipped it and added noise.

    Attributes:
        noise_multiplier: The standard deviation of the Gaussian noise, over ``clip``.
        clip: The largest Euclidean norm of the update.
        rng: Where the noise came from: a key that follows from the seed, or the operating system's.

    Raises:
        Mistake: A value is out of its range.
    """

    noise_multiplier: float
    clip: float
    rng: Random = "reproducible"

    def __post_init__(self) -> None:
        self.segment()
        check_random(self.rng)

    def segment(self) -> Segment:
        """Return what the accountant needs to know; nobody else's update hides this one.

        Raises:
            Mistake: A value is out of its range.
        """
        return Segment(1.0, self.noise_multiplier, 1)


Release = Mechanism | SiteUpdate | OwnUpdate | NoiseShare
"""What a release is: what was done before it, and so what it costs."""


def to_release(values: Mapping[str, Any]) -> Release:
    """Return a release from its fields, as ``as_json`` wrote them; those that have a default may be missing.

    Raises:
        ValueError: It is no kind of release.
    """
    for kind in (Mechanism, SiteUpdate, OwnUpdate, NoiseShare):
        known = {one.name: one.default is MISSING for one in fields(kind)}
        if {name for name, needed in known.items() if needed} <= set(values) <= set(known):
            return kind(**values)
    raise ValueError(f"expected a release, got the fields {sorted(values)}")


class Together(Enum):
    """Charge several sites by one entry. A member equals no string, so that no site's name is taken for it."""

    POOL = "pooled"
    EACH_SITE = "each site"


POOL = Together.POOL
"""The rows of all sites together, which the centralized arm trains on."""

EACH_SITE = Together.EACH_SITE
"""Every site alike, where sites join a round on their own: also those that did not join."""

Party = str | Together
"""Who is charged: a site by its name, or several together."""


def check_claim(claim: Release, planned: Release) -> None:
    """Make sure that what a site says it did is possible, given what it was asked to do.

    A straggler takes fewer steps. A site may say that it added less noise, which costs it more, or more of it. The
    numbers that don't count for epsilon must at least be numbers: they stand in the ledger.

    Raises:
        Mistake: It is not possible.
        ValueError: It is of another kind.
    """
    if type(claim) is not type(planned):
        raise ValueError(f"expected a {type(planned).__name__}, got a {type(claim).__name__}")
    for one in fields(claim):
        value, told = getattr(claim, one.name), getattr(planned, one.name)
        if one.name == "steps" and value > told:
            raise Mistake(f"steps: expected at most the {told} that were asked for, got {value}")
        if one.name in ("clip", "expected_batch") and not _is_size(value):
            raise Mistake(f"{one.name}: expected a finite number > 0, got {value}")
        if one.name in ("params", "drop_outs", "colluding") and value != told:
            raise Mistake(f"{one.name}: expected {told}, got {value}")
        if one.name == "asked" and (type(value) is not int or value > _MOST_SITES):
            raise Mistake(f"asked: expected a whole number up to {_MOST_SITES}, got {value}")


_MOST_SITES = 2**31


def _is_size(value: Any) -> bool:  # noqa: ANN401  what a message may hold
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


@dataclass(frozen=True)
class Entry:
    """One release of one site, or of several together."""

    site: Party
    round: int
    mechanism: Release


SITES = "sites"
"""What a file says of a ledger that charges each site by its name."""

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
    all of that; of the unit local, it is for all rows of the site together. Of the unit client, an entry is a round's
    model: the guarantee is for a whole site, against everyone who sees the models. Of the unit distributed, an entry is
    what a site sent under masks: the guarantee is for that site, against everyone who sees the sums. Its epsilon is
    that of ``trainings`` such trainings together, of which this is one.
    """

    def __init__(
        self, delta: float, neighbours: Neighbours, entries: tuple[Entry, ...] = (), trainings: int = 1
    ) -> None:
        self.delta = delta
        self.neighbours: Neighbours = neighbours
        self.trainings = trainings
        self._entries: list[Entry] = []
        self._charged = SITES
        self._rounds: Counter[Party] = Counter()
        self._spent: dict[Party, Spent] = {}
        for entry in entries:
            self.charge(entry.site, entry.round, entry.mechanism)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries, oldest first."""
        return tuple(self._entries)

    def charge(self, site: Party, round_number: int, mechanism: Release) -> None:
        """Write down a release.

        Raises:
            ValueError: Several sites are charged together in a ledger that charges another party, too: in a file the
                two could not be told apart.
        """
        charged = site.value if isinstance(site, Together) else SITES
        if self._entries and charged != self._charged:
            raise ValueError(f"expected one kind of party in a ledger, got {charged} beside {self._charged}")
        self._charged = charged
        self._entries.append(Entry(site, round_number, mechanism))
        self._rounds[site] += 1
        self._spent[site] = _added(self.spent(site), mechanism.segment())

    def rounds(self, site: Party) -> int:
        """Return how many releases a site has made."""
        return self._rounds[site]

    def spent(self, site: Party) -> Spent:
        """Return all a site has released, as what matters to its epsilon."""
        return self._spent.get(site, ())

    def epsilon(self, site: Party) -> float:
        """Return the epsilon of all a site has released."""
        return self._epsilon(self.spent(site), self.neighbours)

    def epsilon_of(self, spent: Spent, planned: Release, times: int = 1) -> float:
        """Return the epsilon of what was released and what is about to be, some times over."""
        one = planned.segment()
        return self._epsilon([*spent, replace(one, steps=times * one.steps)], self.neighbours)

    def record_epsilon(self, site: Party) -> float:
        """Return the epsilon of one row of a site, where releases are of the unit client.

        One row more or less changes its site's update into another one, so the update counts as replaced.
        """
        return self._epsilon(self.spent(site), "replace-one")

    def _epsilon(self, segments: Iterable[Segment], neighbours: Neighbours) -> float:
        together = [replace(one, steps=self.trainings * one.steps) for one in segments]
        return epsilon(together, self.delta, neighbours)

    def as_json(self) -> dict[str, Any]:
        """Return {"charged": who, "epsilon": {site: value}, "entries": [...]}; of whole sites, "record_epsilon" too.

        Charged are ``sites``, each by its name, or one of ``Together``; then its value stands in a site's place.
        """
        sites = sorted(self._spent, key=_written)
        whole = any(isinstance(entry.mechanism, SiteUpdate | NoiseShare) for entry in self._entries)
        return {
            "charged": self._charged,
            "epsilon": {_written(site): self.epsilon(site) for site in sites},
            **({"record_epsilon": {_written(site): self.record_epsilon(site) for site in sites}} if whole else {}),
            "entries": [asdict(entry) | {"site": _written(entry.site)} for entry in self._entries],
        }


def _written(party: Party) -> str:
    """Return a party as files have it; ``charged`` beside it says whether it is a site."""
    return party.value if isinstance(party, Together) else party


def charged_together(training: Mapping[str, Any]) -> bool:
    """Return whether the entries of one training, as ``as_json`` wrote it, stand for several sites together.

    Files of earlier versions do not say who is charged: there the centralized arm charges the pool, and the others'
    entries count as those of a site of that name, which comes to the same epsilon.
    """
    if "charged" in training:
        return training["charged"] != SITES
    return training["arm"] == "centralized"
