"""The contract of a privacy unit: whom a guarantee protects, and how. Each unit is a file in ``fedsim/privacy/units``.

A unit knows no scenario and no site. It holds numbers, text and pure functions, and the rooms above ask it: which
neighbours it can claim, where the noise is added, what a site does to an update, what a training costs, what a
statement says, and which mechanism an audit attacks. No room tells units apart by their names.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, ClassVar, Protocol

import numpy as np
from torch import Tensor

from fedsim.privacy.accounting import Neighbours
from fedsim.privacy.ledger import Mechanism, Release
from fedsim.privacy.promise import Pairs, Promise, Training
from fedsim.randomness import Random, Words


class Protected(Enum):
    """Whom a guarantee protects."""

    NOBODY = "nobody"
    RECORD = "record"
    PERSON = "person"
    SITE = "site"


class Place(Enum):
    """Where the noise is added. The rooms above have code for each place."""

    NOWHERE = "nowhere"
    IN_STEPS = "in the steps of a site's training: DP-SGD, by ``training`` and ``engines``"
    ON_UPDATES = "on a site's update before it is sent, by ``noised``"
    IN_SHARES = "on a site's update under masks, each site a share, by ``noisy_share``"
    AT_SERVER = "on the sum of the sites' updates, by ``at_server``"


class Sampled(Enum):
    """Whose random choice makes the guarantee stronger (amplification by sampling), and so must be unknown."""

    NOTHING = "nothing"
    ROWS = "rows"
    PERSONS = "persons, each with all rows"
    SITES = "sites"


class Exposure(Protocol):
    """How often a row and a site are used in one training: public numbers, from which the cost follows."""

    @property
    def row_rate(self) -> float:
        """The probability with which a row joins a step (Poisson sampling), or a person with all rows."""
        ...

    @property
    def joining_rate(self) -> float | None:
        """The probability with which each site joins a round on its own; None if sites are chosen otherwise."""
        ...

    @property
    def rounds(self) -> int:
        """How many rounds there are."""
        ...

    @property
    def most_rounds(self) -> int:
        """In how many of them the site takes part that is chosen most often."""
        ...

    @property
    def steps(self) -> int:
        """How many steps a site takes in a round."""
        ...


@dataclass(frozen=True)
class Cost:
    """The cost of a training, but for the noise: the sampling rate, and the number of noisy releases."""

    sampling_rate: float
    releases: int


@dataclass(frozen=True)
class Asked:
    """What one site is asked to do in a round; all of it is public.

    Attributes:
        noise_multiplier: The standard deviation of the noise, over the sensitivity.
        clip: The largest norm of a row's gradient, of the sum of a person's, or of an update.
        rng: Where random numbers are to come from.
        sampling_rate: The probability with which each row joins a step, or each person.
        expected_batch: The number that each step's sum is divided by.
        steps: How many steps the site takes.
        params: How many numbers an update has.
        sites: How many sites are asked in the round.
        drop_outs: How many of them may be missing from the sum.
        colluding: How many may tell others their share of the noise.
    """

    noise_multiplier: float
    clip: float
    rng: Random
    sampling_rate: float
    expected_batch: float
    steps: int
    params: int
    sites: int
    drop_outs: int
    colluding: int


@dataclass(frozen=True)
class Audited:
    """The mechanism that an audit attacks: one release, and how often it is repeated for whom it protects."""

    release: Release
    times: int


def steps_together(releases: Sequence[Release]) -> Audited:
    """Return all noisy steps of a training in one go; rounds that were not alike count as the first was.

    Raises:
        TypeError: A release is something else.
    """
    first = releases[0]
    if not isinstance(first, Mechanism):
        raise TypeError(f"expected steps of DP-SGD, got a {type(first).__name__}")

    steps = sum(release.segment().steps for release in releases)
    return Audited(replace(first, steps=steps), times=1)


_HOOKS = {
    Place.NOWHERE: (),
    Place.IN_STEPS: ("release",),
    Place.ON_UPDATES: ("release", "noised"),
    Place.IN_SHARES: ("release", "noisy_share"),
    Place.AT_SERVER: ("at_server",),
}
"""{place: the methods that the rooms above call where the noise is added there}."""


class Unit(ABC):
    """One privacy unit.

    ``neighbours``, ``arms``, ``settings`` and ``needs`` are written as literals: ``fedsim.scenario.unit_facts`` reads
    them from the source, so that reading a scenario imports no mathematics.

    Attributes:
        neighbours: The relations that it can hold between; the first one holds where a scenario asks for another.
        arms: The arms in which it has a meaning. None: it promises nothing.
        settings: Pairs of a setting of a scenario that only this unit has a use for, and why.
        needs: Pairs of a setting of a scenario that it can't do without, and why.
        protects: Whom the guarantee protects.
        place: Where the noise is added.
        sampled: Whose random choice is claimed to hide them.
        releases: The kinds of releases that it writes into the ledger.
        promise: The words of the statement.
        persons: Whether it must be known whose rows are whose (``data.person``, ``Rows.person``): steps then draw
            persons and bound the sum of each one's rows. A literal, too; it may be left out.
        forbids: Pairs of a setting of a scenario that can't stand beside it, and why. Likewise.
    """

    neighbours: ClassVar[tuple[Neighbours, ...]]
    arms: ClassVar[tuple[str, ...]]
    settings: ClassVar[tuple[tuple[str, str], ...]]
    needs: ClassVar[tuple[tuple[str, str], ...]]
    protects: ClassVar[Protected]
    place: ClassVar[Place]
    sampled: ClassVar[Sampled]
    releases: ClassVar[tuple[type[Release], ...]]
    promise: ClassVar[Promise]
    persons: ClassVar[bool] = False
    forbids: ClassVar[tuple[tuple[str, str], ...]] = ()

    def __init_subclass__(cls) -> None:
        missing = [name for name in Unit.__annotations__ if name not in vars(cls) and not hasattr(Unit, name)]
        if missing:
            raise TypeError(f"{cls.__name__}: expected the class attributes {', '.join(missing)}")

        hooks = [hook for hook in _HOOKS[cls.place] if getattr(cls, hook) is getattr(Unit, hook)]
        if hooks:
            raise TypeError(f"{cls.__name__}: expected the methods {', '.join(hooks)}, as its place is {cls.place}")

    @abstractmethod
    def cost(self, exposure: Exposure) -> Cost:
        """Return the cost of a training, but for the noise."""

    @abstractmethod
    def done(self, trainings: Sequence[Training]) -> Pairs:
        """Tell in a statement how the noise was added, from the ledger's entries."""

    @abstractmethod
    def audited(self, releases: Sequence[Release]) -> Audited:
        """Return the mechanism that an audit attacks, given all that one site releases in a training."""

    def in_one_line(self, trainings: Sequence[Training]) -> str:
        """Tell the same of a further arm in one line; ``done`` in a row, if a unit has no shorter way."""
        return "; ".join(f"{term.lower()}: {text}" for term, text in self.done(trainings))

    def release(self, asked: Asked) -> Release:
        """Return what a site is to do in a round, as it is charged.

        Raises:
            NotImplementedError: The sites add no noise.
        """
        raise NotImplementedError(f"{type(self).__name__}: no site adds noise")

    def noised(self, center: Tensor, update: Tensor, did: Any, words: Words) -> Tensor:  # noqa: ANN401  its own release
        """Clip a site's change of the model and add noise to it; return the model that may leave, float32 (params,).

        Args:
            center: The model that was sent to the site, (params,).
            update: The model it trained, (params,).
            did: What is done, as the ledger gets it.
            words: The randomness; no two updates share any.

        Raises:
            NotImplementedError: The noise is not added to updates.
        """
        raise NotImplementedError(f"{type(self).__name__}: no noise is added to updates")

    def noisy_share(self, change: Tensor, weight: float, did: Any, words: Words) -> np.ndarray:  # noqa: ANN401
        """Clip a site's change of the model and add its share of the noise; return what is masked, float64 (params,).

        Args:
            change: What training changed, (params,).
            weight: How much the site counts, from 0 to 1, public.
            did: What is done, as the ledger gets it.
            words: The site's random words for this round.

        Raises:
            NotImplementedError: Sites add no shares.
        """
        raise NotImplementedError(f"{type(self).__name__}: sites add no shares of the noise")

    def at_server(self, **settings: Any) -> Any:  # noqa: ANN401  see fedsim.privacy.central
        """Build the server's noise mechanism; the settings are the fields of ``CentralNoise``.

        Raises:
            NotImplementedError: The server adds no noise.
        """
        raise NotImplementedError(f"{type(self).__name__}: the server adds no noise")
