"""What is claimed for one site: by a scenario before it is run, or by the ledger of a run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedsim.planning.checks import check
from fedsim.planning.noise import asked_of_site, cost_of, noise_for
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

    release: Release
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
    trial = Trial(scenario, scenario.seed, "federated")
    delta = scenario.privacy.delta
    neighbours = scenario.privacy.relation

    attacked = trial.unit.audited(_released(trial))
    segment = attacked.release.segment()
    spent = epsilon([replace(segment, steps=attacked.times * segment.steps)], delta, neighbours)
    return _claim(trial.unit, attacked, spent, delta, neighbours)


def _claim(unit: Unit, attacked: Audited, spent: float, delta: float, neighbours: Neighbours) -> Claim | SiteClaim:
    """Return the claim of a unit: for a record, of a whole training in one go; for a site, of one round."""
    if unit.protects is Protected.SITE:
        return SiteClaim(attacked.release, attacked.times, spent, delta, neighbours)
    if isinstance(attacked.release, Mechanism) and attacked.times == 1:
        return Claim(attacked.release, spent, delta, neighbours)
    raise TypeError(f"expected the steps of a whole training, got {attacked}")


def _released(trial: Trial) -> Sequence[Release]:
    """Return all that the site releases, as planned, that takes part most often."""
    scenario = trial.scenario
    noise = noise_for(scenario, trial.seed, trial.arm, trial.names)
    if trial.unit.place is Place.AT_SERVER:
        rounds = cost_of(scenario, trial.seed, trial.arm, trial.names).releases
        return [central_of(scenario, noise, trial.names).planned(1)] * rounds

    todo = trial.plan(trial.weights[trial.names[0]])
    sites = len(trial.sites_of(1)) if trial.unit.place is Place.IN_SHARES else 1
    asked = asked_of_site(scenario, todo, trial.passes * todo.steps, noise, len(trial.start), sites, rng="reproducible")
    return [trial.unit.release(asked)] * trial.most_rounds


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
    releases = [released_in(entry) for entry in training["entries"] if entry["site"] == site]
    delta = run.ledger["delta"]
    neighbours = run.ledger["neighbours"]
    spent = epsilon([one.segment() for one in releases], delta, neighbours)  # the ledger's may be of several trainings
    unit = unit_of(run.ledger["unit"])
    return _claim(unit, unit.audited(releases), spent, delta, neighbours)
