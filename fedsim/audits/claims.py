"""Privacy claims for one site: by a scenario before it is run, or by the ledger of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from fedsim.planning.checks import check
from fedsim.planning.noise import cost_of, noise_for
from fedsim.planning.participation import joining_of
from fedsim.planning.trial import Trial
from fedsim.planning.whole_sites import central_noise
from fedsim.privacy.accounting import Neighbours, Segment, epsilon
from fedsim.privacy.central import CentralNoise
from fedsim.privacy.ledger import Ledger, Mechanism, Release
from fedsim.privacy.unit import Audited, Place, Protected, Unit
from fedsim.privacy.units import released_in, unit_of
from fedsim.results.run_directory import Run
from fedsim.scenario.schema import Scenario

RECORDS = (Place.NOWHERE, Place.IN_STEPS)
"""Where the noise of trainings is added whose records are attacked."""
SITES = (Place.AT_SERVER, Place.ON_UPDATES, Place.IN_SHARES)
"""Where the noise of trainings is added whose sites are attacked."""


@dataclass(frozen=True)
class Claim:
    """The privacy claimed for each record of a site, or for each person with all records there.

    Attributes:
        mechanism: The noisy steps of one whole training.
        epsilon: The epsilon claimed for it.
        delta: The delta claimed with it.
        neighbours: The neighbouring relation.
        protects: The thing whose presence is hidden.
    """

    mechanism: Mechanism
    epsilon: float
    delta: float
    neighbours: Neighbours
    protects: Literal["record", "person"] = "record"

    @property
    def segment(self) -> Segment:
        """All steps together, for the accountant."""
        return self.mechanism.segment()


@dataclass(frozen=True)
class SiteClaim:
    """The privacy claimed for a whole site.

    Attributes:
        release: The mechanism that a round puts the site's update through.
        rounds: How many rounds a site takes part in at most.
        epsilon: The epsilon claimed for all of them.
        delta: The delta claimed with it.
        neighbours: The neighbouring relation.
    """

    release: Release
    rounds: int
    epsilon: float
    delta: float
    neighbours: Neighbours

    @property
    def protects(self) -> Literal["site"]:
        """The thing whose presence is hidden."""
        return "site"

    @property
    def segment(self) -> Segment:
        """All rounds together, for the accountant."""
        return replace(self.release.segment(), steps=self.rounds)


AnyClaim = Claim | SiteClaim


def claim_of(scenario: Scenario) -> AnyClaim | None:
    """Compute the claim of a scenario; None if it promises no privacy.

    Raises:
        Mistake: The scenario can't be run.
    """
    check(scenario)
    if not scenario.private or scenario.privacy.delta is None:
        return None
    trial = Trial(scenario, scenario.seed, "federated")
    delta = scenario.privacy.delta
    neighbours = scenario.privacy.relation

    attacked = trial.unit.audited(_released(trial))
    segment = attacked.release.segment()
    spent = epsilon([replace(segment, steps=attacked.times * segment.steps)], delta, neighbours)
    return _claim(trial.unit, attacked, spent, delta, neighbours)


def _claim(unit: Unit, attacked: Audited, spent: float, delta: float, neighbours: Neighbours) -> Claim | SiteClaim:
    """Return the claim of a unit: for a record or a person, of a whole training; for a site, of one round."""
    if unit.protects is Protected.SITE:
        return SiteClaim(attacked.release, attacked.times, spent, delta, neighbours)
    if isinstance(attacked.release, Mechanism) and attacked.times == 1:
        protects = "person" if unit.protects is Protected.PERSON else "record"
        return Claim(attacked.release, spent, delta, neighbours, protects)
    raise TypeError(f"expected the steps of a whole training, got {attacked}")


def _released(trial: Trial) -> Sequence[Release]:
    """Return all that the site releases, as planned, that takes part most often."""
    scenario = trial.scenario
    noise = noise_for(scenario, trial.seed, trial.arm, trial.names)
    if trial.unit.place is Place.AT_SERVER:
        rounds = cost_of(scenario, trial.seed, trial.arm, trial.names).releases
        return [central_of(scenario, noise, trial.names).planned(1)] * rounds

    todo = trial.plan(trial.weights[trial.names[0]])
    asked = trial.asked(todo, noise, rng="reproducible")
    return [trial.unit.release(asked)] * trial.most_rounds


def place_of(scenario: Scenario, claim: AnyClaim | None) -> Place:
    """Return the place of the noise that a claim rests on; nowhere without a claim."""
    return unit_of(scenario.privacy.unit).place if claim else Place.NOWHERE


def central_of(scenario: Scenario, noise_multiplier: float, names: Sequence[str]) -> CentralNoise:
    """Build the server's noise mechanism, with a ledger of its own."""
    ledger = Ledger(scenario.privacy.delta or 0.0, scenario.privacy.relation)
    joining = joining_of(scenario, scenario.seed)
    return central_noise(scenario, scenario.seed, "federated", names, noise_multiplier, ledger, joining)


def claim_in(run: Run) -> AnyClaim | None:
    """Read the claim of a run from its ledger, for the site that spent the most; None if nothing was released.

    The claim is that of a federated training, if there was one. Rounds of one site that were not alike can't be audited
    as one training; the site's first mechanism stands for all. Where tuning is charged, the ledger's epsilon is that of
    all trainings together, and the claim is the epsilon of the one training that is attacked.
    """
    trainings = [training for training in run.ledger["trainings"] if training["entries"]]
    federated = [training for training in trainings if training["arm"] == "federated"]
    candidates = federated or trainings
    if not candidates:
        return None
    training = max(candidates, key=_most_spent)
    site = max(training["epsilon"], key=training["epsilon"].get)
    releases = [released_in(entry) for entry in training["entries"] if entry["site"] == site]

    # The ledger's own epsilon may be that of several trainings, so it is computed again for this one.
    delta = run.ledger["delta"]
    neighbours = run.ledger["neighbours"]
    spent = epsilon([release.segment() for release in releases], delta, neighbours)
    unit = unit_of(run.ledger["unit"])
    return _claim(unit, unit.audited(releases), spent, delta, neighbours)


def _most_spent(training: Mapping[str, Any]) -> float:
    return max(training["epsilon"].values())
