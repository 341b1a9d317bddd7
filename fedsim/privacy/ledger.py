"""The ledger: what each site released, at which noise, and the epsilon that follows."""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from enum import Enum
from functools import lru_cache
from typing import Any, ClassVar

from fedsim.mistakes import Mistake
from fedsim.privacy.accounting import Neighbours, Segment, composed, epsilon
from fedsim.randomness import Random, check_random


class Release(ABC):
    """One noisy release: a frozen dataclass that says how it was made, and so what it costs.

    Attributes:
        kind: Its name in files.
        site_may_be_absent: Whether its epsilon is for a site that may be absent. A record of a site then has an epsilon
            of its own: one record more or less replaces the site's update by another one.
        rng: Where its random numbers came from: keys that follow from the seed, or the operating system's.
    """

    kind: ClassVar[str]
    site_may_be_absent: ClassVar[bool]
    rng: Random

    def __init_subclass__(cls) -> None:
        for name in ("kind", "site_may_be_absent"):
            if name not in vars(cls):
                raise TypeError(f"{cls.__name__}: expected a class attribute {name}")

    @abstractmethod
    def segment(self) -> Segment:
        """Return its cost, for the accountant.

        Raises:
            Mistake: A value is out of its range.
        """

    @classmethod
    def has_fields(cls, values: Mapping[str, Any]) -> bool:
        """Return whether some values are its fields, as files have them; those that have a default may be missing."""
        needs_value = {field.name: field.default is MISSING for field in fields(cls)}  # type: ignore[arg-type]
        needed = {name for name, needs in needs_value.items() if needs}
        return needed <= set(values) <= set(needs_value)

    def check_claim(self, planned: "Release") -> None:
        """Make sure that a site can have done this where it was asked to do what was planned.

        A straggler takes fewer steps. A site may say that it added less noise, which costs it more, or more of it. The
        numbers that don't count for epsilon must at least be numbers: they stand in the ledger.

        Raises:
            Mistake: It is not possible.
            ValueError: It is of another kind.
        """
        if type(self) is not type(planned):
            raise ValueError(f"expected a {type(planned).__name__}, got a {type(self).__name__}")


def check_size(name: str, value: Any) -> None:  # noqa: ANN401  what a message may hold
    """Make sure that a number that a site sent is a size.

    Raises:
        Mistake: It is not finite, not above 0, or no number.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and 0 < value < math.inf):
        raise Mistake(f"{name}: expected a finite number > 0, got {value}")


@dataclass(frozen=True)
class Mechanism(Release):
    """Steps of DP-SGD that one site took on its rows before an update left it.

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

    kind: ClassVar[str] = "noisy-steps"
    site_may_be_absent: ClassVar[bool] = False

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
        """Return the cost of its steps.

        Raises:
            Mistake: A value is out of its range.
        """
        return Segment(self.sampling_rate, self.noise_multiplier, self.steps)

    def check_claim(self, planned: Release) -> None:
        """Make sure that a site can have taken these steps where it was asked for those; see ``Release``."""
        super().check_claim(planned)
        most = planned.segment().steps
        if self.steps > most:
            raise Mistake(f"steps: expected at most the {most} that were asked for, got {self.steps}")

        check_size("clip", self.clip)
        check_size("expected_batch", self.expected_batch)


@dataclass(frozen=True)
class SiteUpdate(Release):
    """A noisy sum of the sites' clipped updates, made by the server before a round's model left it.

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

    kind: ClassVar[str] = "noisy-sum"
    site_may_be_absent: ClassVar[bool] = True

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
        """Return the cost of one step, whose rows are the sites; bits and sum together.

        Raises:
            Mistake: A value is out of its range.
        """
        alone = Segment(self.sampling_rate, self.noise_multiplier, 1)
        if self.bit_noise is None:
            return alone

        bits = Segment(self.sampling_rate, 2 * self.bit_noise, 1)  # one site moves the bits' sum by one half
        return replace(alone, noise_multiplier=(alone.noise_multiplier**-2 + bits.noise_multiplier**-2) ** -0.5)


@dataclass(frozen=True)
class OwnUpdate(Release):
    """One site's update, which it clipped and added noise to before it left.

    Attributes:
        noise_multiplier: The standard deviation of the Gaussian noise, over ``clip``.
        clip: The largest Euclidean norm of the update.
        rng: Where the noise came from: a key that follows from the seed, or the operating system's.

    Raises:
        Mistake: A value is out of its range.
    """

    kind: ClassVar[str] = "noisy-update"
    site_may_be_absent: ClassVar[bool] = False

    noise_multiplier: float
    clip: float
    rng: Random = "reproducible"

    def __post_init__(self) -> None:
        self.segment()
        check_random(self.rng)

    def segment(self) -> Segment:
        """Return the cost of one step in which nothing is sampled: nobody else's update hides this one.

        Raises:
            Mistake: A value is out of its range.
        """
        return Segment(1.0, self.noise_multiplier, 1)

    def check_claim(self, planned: Release) -> None:
        """Make sure that a site can have sent this update where it was asked for that; see ``Release``."""
        super().check_claim(planned)
        check_size("clip", self.clip)


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


@dataclass(frozen=True)
class Entry:
    """One release of one site, or of several together."""

    site: Party
    round: int
    mechanism: Release

    def as_json(self) -> dict[str, Any]:
        """Return {"site": name, "round": number, "kind": of the release, "mechanism": its fields}."""
        return {
            "site": _written(self.site),
            "round": self.round,
            "kind": self.mechanism.kind,
            "mechanism": asdict(self.mechanism),  # type: ignore[call-overload]  every release is a dataclass
        }


SITES = "sites"
"""The word in files for a ledger that charges each site by its name."""

Spent = tuple[Segment, ...]
"""Releases merged by sampling rate and noise; see ``composed``."""


@lru_cache(maxsize=4096)
def _added(spent: Spent, released: Segment) -> Spent:
    return composed((*spent, released))


class Ledger:
    """The append-only record of one training's releases. Each site has an epsilon of its own.

    Whom an entry's epsilon protects, and from whom, says the privacy unit: see ``fedsim.privacy.units``. The epsilon is
    that of ``trainings`` such trainings together, of which this is one.
    """

    def __init__(
        self, delta: float, neighbours: Neighbours, entries: tuple[Entry, ...] = (), trainings: int = 1
    ) -> None:
        self.delta = delta
        self.neighbours: Neighbours = neighbours
        self.trainings = trainings
        self._entries: list[Entry] = []
        self._releases: dict[Release, Release] = {}
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
        same = self._releases.setdefault(mechanism, mechanism)  # one object for thousands of rounds
        self._entries.append(Entry(site, round_number, same))
        self._rounds[site] += 1
        self._spent[site] = _added(self.spent(site), mechanism.segment())

    def rounds(self, site: Party) -> int:
        """Return how many releases a site has made."""
        return self._rounds[site]

    def spent(self, site: Party) -> Spent:
        """Return all that a site has released, as it counts for epsilon."""
        return self._spent.get(site, ())

    def all_spent(self) -> frozenset[Spent]:
        """Return what the sites have released, each as ``spent`` has it; those that released alike count once."""
        return frozenset(self._spent.values())

    def epsilon(self, site: Party) -> float:
        """Return the epsilon of all that a site has released."""
        return self._epsilon(self.spent(site), self.neighbours)

    def epsilon_of(self, spent: Spent, planned: Release, times: int = 1) -> float:
        """Return the epsilon of past releases together with a planned one, some times over."""
        next_release = planned.segment()
        future = replace(next_release, steps=times * next_release.steps)
        return self._epsilon([*spent, future], self.neighbours)

    def record_epsilon(self, site: Party) -> float:
        """Return the epsilon of one row of a site, where releases are made for a site that may be absent.

        One row more or less changes its site's update into another one, so the update counts as replaced.
        """
        return self._epsilon(self.spent(site), "replace-one")

    def _epsilon(self, segments: Iterable[Segment], neighbours: Neighbours) -> float:
        of_all_trainings = composed(segments, times=self.trainings)
        return epsilon(of_all_trainings, self.delta, neighbours)

    def as_json(self) -> dict[str, Any]:
        """Return {"charged": who, "epsilon": {site: value}, "entries": [...]}; of whole sites, "record_epsilon" too.

        Charged are ``sites``, each by its name, or one of ``Together``; then its value stands in a site's place.
        """
        sites = sorted(self._spent, key=_written)
        values: dict[str, Any] = {
            "charged": self._charged,
            "epsilon": {_written(site): self.epsilon(site) for site in sites},
        }
        if any(entry.mechanism.site_may_be_absent for entry in self._entries):
            values["record_epsilon"] = {_written(site): self.record_epsilon(site) for site in sites}

        values["entries"] = [entry.as_json() for entry in self._entries]
        return values


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
