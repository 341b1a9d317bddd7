"""What is claimed for one site: by a scenario before it is run, or by the ledger of a run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedsim.data.federation import Federation, federate
from fedsim.flower.secure.shares import share_of
from fedsim.planning.budgets import noise_for, passes_of
from fedsim.planning.checks import check
from fedsim.planning.participation import joining_of, most_rounds, sites_of_round
from fedsim.planning.whole_sites import central_noise, steps_of_site
from fedsim.privacy.accounting import Neighbours, Segment, epsilon
from fedsim.privacy.central import CentralNoise
from fedsim.privacy.ledger import Ledger, Mechanism, OwnUpdate, SiteUpdate, to_release
from fedsim.privacy.noise_shares import NoiseShare
from fedsim.results.run_directory import Run
from fedsim.scenario.schema import Scenario
from fedsim.training.model import new_model


@dataclass(frozen=True)
class Claim:
    """What one site does to its rows in a whole training, and the epsilon that is claimed for it."""

    mechanism: Mechanism
    epsilon: float
    delta: float
    neighbours: Neighbours


@dataclass(frozen=True)
class SiteClaim:
    """What is done in one round to a whole site's update, in how many rounds, and the epsilon that is claimed."""

    release: SiteUpdate | OwnUpdate | NoiseShare
    rounds: int
    epsilon: float
    delta: float
    neighbours: Neighbours

    @property
    def segment(self) -> Segment:
        """All rounds together, for the accountant."""
        return replace(self.release.segment(), steps=self.rounds)


def claim_of(scenario: Scenario) -> Claim | SiteClaim | None:
    """Return what a scenario claims for each site; None if it promises no privacy.

    Raises:
        Mistake: It can't be run.
    """
    check(scenario)
    if not scenario.private or scenario.privacy.delta is None:
        return None
    federation = federate(scenario, scenario.seed)
    if scenario.privacy.unit != "record":
        return _of_whole_sites(scenario, federation)
    rounds = most_rounds(scenario, scenario.seed, federation.names)
    mechanism = Mechanism(
        scenario.training.sampling_rate,
        noise_for(scenario, scenario.seed, "federated"),
        scenario.privacy.clip,
        scenario.expected_batch(federation.names[0]),
        rounds * scenario.training.local_steps * passes_of(scenario),
    )
    delta, neighbours = scenario.privacy.delta, scenario.privacy.neighbours
    return Claim(mechanism, epsilon([mechanism.segment()], delta, neighbours), delta, neighbours)


def _of_whole_sites(scenario: Scenario, federation: Federation) -> SiteClaim:
    seed, names, delta = scenario.seed, federation.names, scenario.privacy.delta or 0.0
    noise = noise_for(scenario, seed, "federated")
    if scenario.privacy.unit == "client":
        release, rounds = central_of(scenario, noise, names).planned(1), steps_of_site(scenario, seed, names)[1]
    else:
        release, rounds = OwnUpdate(noise, scenario.privacy.clip), most_rounds(scenario, seed, names)
    if scenario.privacy.unit == "distributed":
        params = sum(value.numel() for value in new_model(scenario, federation.sites[0], seed, "cpu").parameters())
        release = share_of(scenario, noise, params, len(sites_of_round(scenario, seed, names, 1)))
    claim = SiteClaim(release, rounds, 0.0, delta, scenario.privacy.relation)
    return replace(claim, epsilon=epsilon([claim.segment], delta, claim.neighbours))


def central_of(scenario: Scenario, noise_multiplier: float, names: Sequence[str]) -> CentralNoise:
    """Return what adds noise at the server, with a ledger of its own."""
    ledger = Ledger(scenario.privacy.delta or 0.0, scenario.privacy.relation)
    joining = joining_of(scenario, scenario.seed)
    return central_noise(scenario, scenario.seed, "federated", names, noise_multiplier, ledger, joining)


def claim_in(run: Run) -> Claim | SiteClaim | None:
    """Return what a run's ledger claims for the site that spent the most; None if nothing was released under privacy.

    Of a federated training, if there was one. Rounds of one site that were not alike can't be audited as one training;
    the site's first mechanism stands for all. Where tuning is charged, the ledger's epsilon is that of all trainings
    together, and the claim is what it comes to for the one that is attacked.
    """
    released = [one for one in run.ledger["trainings"] if one["entries"]]
    own = [one for one in released if one["arm"] == "federated"] or released
    if not own:
        return None
    training = max(own, key=lambda one: max(one["epsilon"].values()))
    site = max(training["epsilon"], key=training["epsilon"].get)
    releases = [to_release(entry["mechanism"]) for entry in training["entries"] if entry["site"] == site]
    delta, neighbours = run.ledger["delta"], run.ledger["neighbours"]
    spent = epsilon([one.segment() for one in releases], delta, neighbours)  # the ledger's may be of several trainings
    first, rest = releases[0], (spent, delta, neighbours)
    if not isinstance(first, Mechanism):
        return SiteClaim(first, len(releases), *rest)
    return Claim(replace(first, steps=sum(one.steps for one in releases if isinstance(one, Mechanism))), *rest)
