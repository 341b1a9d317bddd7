"""What a real site allows: its policy, a TOML file beside its data that no server can change.

A site trusts nothing that a server says of privacy. It reads what is asked for, and refuses what its policy does not
allow before any row is used.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from fedsim.mistakes import Mistake
from fedsim.privacy.accounting import Neighbours
from fedsim.privacy.unit import Place
from fedsim.privacy.units import unit_of
from fedsim.scenario.reading import read_toml
from fedsim.scenario.schema import Scenario

NAME = "site-policy.toml"
_PRIVATE_AT_THE_SITE = (Place.IN_STEPS, Place.ON_UPDATES)
"""Where the noise is added to all that leaves the site, by the site itself."""


class Refused(PermissionError):
    """The site does not do what it was asked for; the text may leave, it tells nothing of its rows."""


class Policy(BaseModel):
    """A site's policy.

    Attributes:
        units: The privacy units under which it trains, of those whose noise the site adds itself.
        epsilon: The most that all private trainings together may spend.
        delta: At which delta that is.
        relation: Between which tables that is; ``replace-one`` also covers ``add-or-remove-one``.
        smallest_noise: The least noise multiplier.
        fewest_sites: The least number of sites that a training has.
        rng: Which randomness: ``secure`` noise is drawn by the site, and nobody can repeat it. ``reproducible`` noise
            follows from the server's seed, so that the server can subtract it.
        strategies: The strategies whose rules the site follows, by name.
        most_trainings: How many trainings it ever begins.
        most_rounds: How many rounds one of them has at most.
        most_steps: How many steps one of these rounds has at most.
        plain: Whether the exact model may leave, which epsilon does not cover.
        evaluation: Whether exact figures of a model on the site's own rows may leave, and the number of these rows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    units: list[str]
    epsilon: Annotated[FiniteFloat, Field(gt=0)]
    delta: Annotated[FiniteFloat, Field(gt=0, lt=1)]
    relation: Neighbours = "add-or-remove-one"
    smallest_noise: Annotated[FiniteFloat, Field(gt=0)]
    fewest_sites: Annotated[int, Field(ge=1)] = 2
    rng: Literal["secure", "reproducible"] = "secure"
    strategies: Annotated[list[str], Field(min_length=1)]
    most_trainings: Annotated[int, Field(ge=1)] = 100
    most_rounds: Annotated[int, Field(ge=1)] = 1000
    most_steps: Annotated[int, Field(ge=1)] = 1000
    plain: bool = False
    evaluation: bool = False

    @model_validator(mode="after")
    def _units_protect_from_the_server(self) -> "Policy":
        for name in self.units:
            if name == "none" or unit_of(name).place not in _PRIVATE_AT_THE_SITE:
                raise ValueError(f"units: expected record or local, whose noise the site adds itself, got {name!r}")
            if unit_of(name).persons:
                reason = "files of a real site don't say whose rows are whose"
                raise ValueError(f"units: expected record or local, since {reason}, got {name!r}")
        return self

    @model_validator(mode="after")
    def _figures_are_of_plain_trainings(self) -> "Policy":
        if self.evaluation and not self.plain:
            raise ValueError("evaluation: expected plain = true beside it: exact figures need no less trust")
        return self


def is_private_at_the_site(scenario: Scenario) -> bool:
    """Whether all that leaves a site has noise that the site itself added."""
    return unit_of(scenario.privacy.unit).place in _PRIVATE_AT_THE_SITE


def read_policy(path: Path) -> Policy:
    """Read a policy.

    Raises:
        Mistake: There is none, or it can't be meant; the message has a line for each fault.
    """
    try:
        _, values = read_toml(path)
    except OSError as error:
        raise Mistake(f"{path}: expected the site's policy, got {error.strerror}; without one nothing leaves") from None
    try:
        return Policy.model_validate(values)
    except ValidationError as error:
        lines = []
        for fault in error.errors():
            place = ".".join(map(str, fault["loc"]))
            message = fault["msg"].removeprefix("Value error, ")
            lines.append(f"{path}: {place}: {message}" if place else f"{path}: {message}")
        raise Mistake("\n".join(lines)) from None


def faults_of(policy: Policy, scenario: Scenario, noise: float | None) -> Iterator[str]:
    """Yield what a policy does not allow of a training.

    Args:
        policy: The policy.
        scenario: The scenario, as the server tells it.
        noise: The noise multiplier that the server asks for; None if it asks for none.
    """
    name = scenario.privacy.unit
    place = unit_of(name).place
    if scenario.strategy.name not in policy.strategies:
        yield f"strategy: expected one of {', '.join(policy.strategies)}, got {scenario.strategy.name}"
    sites = len(scenario.deployment.sites)
    if sites < policy.fewest_sites:
        yield f"deployment.sites: expected at least {policy.fewest_sites}, got {sites}"
    training = scenario.training
    if training.rounds > policy.most_rounds:
        yield f"training.rounds: expected at most {policy.most_rounds}, got {training.rounds}"
    if training.local_steps > policy.most_steps:
        yield f"training.local_steps: expected at most {policy.most_steps}, got {training.local_steps}"
    if place not in _PRIVATE_AT_THE_SITE:
        if not policy.plain:
            what = "no noise" if place is Place.NOWHERE else f"the exact model (privacy.unit = {name!r})"
            yield f"expected noise that the site adds itself, the server asks for {what}"
        return

    if name not in policy.units:
        yield f"privacy.unit: expected {' or '.join(policy.units) or 'none, so no training'}, got {name}"
    if noise is None or not noise >= policy.smallest_noise:
        got = "none" if noise is None else f"{noise:g}"
        yield f"noise multiplier: expected at least {policy.smallest_noise:g}, got {got}"
    if policy.rng == "secure" and scenario.privacy.rng != "secure":
        yield "privacy.rng: expected 'secure', got 'reproducible': the server could subtract such noise"
