"""Privacy claims for one site: by a scenario before it is run, or by the ledger of a run.

The names of the privacy units stand here and nowhere else in the audits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from fedsim.data.federation import Federation, federate
from fedsim.experiments.experiment import check
from fedsim.flower.secure.shares import share_of
from fedsim.planning.budgets import noise_for, passes_of
from fedsim.planning.participation import joining_of, most_rounds, sites_of_round
from fedsim.planning.whole_sites import central_noise, steps_of_site
from fedsim.privacy.accounting import Neighbours, Segment, epsilon
from fedsim.privacy.central import CentralNoise
from fedsim.privacy.ledger import Ledger, Mechanism, OwnUpdate, SiteUpdate, to_release
from fedsim.privacy.noise_shares import NoiseShare
from fedsim.results.run_directory import Run
from fedsim.scenario.schema import Scenario
from fedsim.training.model import new_model

NONE = "none"  # no privacy at all
RECORD = "record"
CLIENT = "client"
LOCAL = "local"
DISTRIBUTED = "distributed"

RECORDS = (NONE, RECORD)
"""Units of trainings whose records are attacked."""
SITES = (CLIENT, LOCAL, DISTRIBUTED)
"""Units of trainings whose sites are attacked."""
UNITS = (*RECORDS, *SITES)

Release = SiteUpdate | OwnUpdate | NoiseShare
_UNIT_OF_RELEASE: Mapping[type[Release], str] = {
    SiteUpdate: CLIENT,
    OwnUpdate: LOCAL,
    NoiseShare: DISTRIBUTED,
}


@dataclass(frozen=True)
class Claim:
    """The privacy claimed for each record of a site.

    Attributes:
        mechanism: The noisy steps of one whole training.
        epsilon: The epsilon claimed for it.
        delta: The delta claimed with it.
        neighbours: The neighbouring relation.
    """

    mechanism: Mechanism
    epsilon: float
    delta: float
    neighbours: Neighbours

    @property
    def unit(self) -> str:
        """The privacy unit."""
        return RECORD

    @property
    def protects(self) -> Literal["record", "site"]:
        """The thing whose presence is hidden."""
        return "record"

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
    def unit(self) -> str:
        """The privacy unit."""
        return _UNIT_OF_RELEASE[type(self.release)]

    @property
    def protects(self) -> Literal["record", "site"]:
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
    federation = federate(scenario, scenario.seed)
    if scenario.privacy.unit == RECORD:
        return _claim_for_records(scenario, federation)
    return _claim_for_sites(scenario, federation)


def _claim_for_records(scenario: Scenario, federation: Federation) -> Claim:
    privacy = scenario.privacy
    delta = privacy.delta or 0.0
    rounds = most_rounds(scenario, scenario.seed, federation.names)
    mechanism = Mechanism(
        sampling_rate=scenario.training.sampling_rate,
        noise_multiplier=noise_for(scenario, scenario.seed, "federated"),
        clip=privacy.clip,
        expected_batch=scenario.expected_batch(federation.names[0]),
        steps=rounds * scenario.training.local_steps * passes_of(scenario),
    )
    spent = epsilon([mechanism.segment()], delta, privacy.neighbours)
    return Claim(mechanism, spent, delta, privacy.neighbours)


def _claim_for_sites(scenario: Scenario, federation: Federation) -> SiteClaim:
    mechanism_of = _MECHANISM_OF_UNIT.get(scenario.privacy.unit)
    if mechanism_of is None:
        known = ", ".join(UNITS)
        raise ValueError(f"privacy.unit: expected one of {known}, got {scenario.privacy.unit!r}")
    noise = noise_for(scenario, scenario.seed, "federated")
    release, rounds = mechanism_of(scenario, federation, noise)
    delta = scenario.privacy.delta or 0.0
    claim = SiteClaim(release, rounds, 0.0, delta, scenario.privacy.relation)
    return replace(claim, epsilon=epsilon([claim.segment], delta, claim.neighbours))


def _by_the_server(scenario: Scenario, federation: Federation, noise: float) -> tuple[Release, int]:
    names = federation.names
    release = central_of(scenario, noise, names).planned(1)
    _, rounds = steps_of_site(scenario, scenario.seed, names)
    return release, rounds


def _by_the_site(scenario: Scenario, federation: Federation, noise: float) -> tuple[Release, int]:
    rounds = most_rounds(scenario, scenario.seed, federation.names)
    return OwnUpdate(noise, scenario.privacy.clip), rounds


def _in_shares(scenario: Scenario, federation: Federation, noise: float) -> tuple[Release, int]:
    model = new_model(scenario, federation.sites[0], scenario.seed, "cpu")
    params = sum(parameter.numel() for parameter in model.parameters())
    asked = sites_of_round(scenario, scenario.seed, federation.names, 1)
    release = share_of(scenario, noise, params, len(asked))
    return release, most_rounds(scenario, scenario.seed, federation.names)


_MECHANISM_OF_UNIT: Mapping[str, Callable[[Scenario, Federation, float], tuple[Release, int]]] = {
    CLIENT: _by_the_server,
    LOCAL: _by_the_site,
    DISTRIBUTED: _in_shares,
}


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
    releases = [to_release(entry["mechanism"]) for entry in training["entries"] if entry["site"] == site]

    # The ledger's own epsilon may be that of several trainings, so it is computed again for this one.
    delta = run.ledger["delta"]
    neighbours = run.ledger["neighbours"]
    spent = epsilon([release.segment() for release in releases], delta, neighbours)

    first = releases[0]
    if not isinstance(first, Mechanism):
        return SiteClaim(first, len(releases), spent, delta, neighbours)
    steps = sum(release.steps for release in releases if isinstance(release, Mechanism))
    return Claim(replace(first, steps=steps), spent, delta, neighbours)


def _most_spent(training: Mapping[str, Any]) -> float:
    return max(training["epsilon"].values())
