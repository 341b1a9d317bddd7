"""From a scenario to the noise of a training: the least that keeps every site within its epsilon.

The privacy unit computes the cost; this room tells it how often a row and a site are used.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fedsim.data.federation import federate
from fedsim.mistakes import Mistake
from fedsim.planning.participation import most_rounds, share_of_sites
from fedsim.privacy.accounting import Segment, noise_multiplier
from fedsim.privacy.unit import Asked, Cost
from fedsim.privacy.units import unit_of
from fedsim.randomness import Random
from fedsim.scenario.schema import Arm, Privacy, Scenario
from fedsim.strategy.make import strategy_of
from fedsim.training.model import best_device
from fedsim.training.work import Plan


def noise_for(scenario: Scenario, seed: int, arm: Arm, names: Sequence[str] | None = None) -> float:
    """Return an arm's noise multiplier: the scenario's, or the least that keeps every site within its epsilon.

    Args:
        scenario: The experiment.
        seed: Of the training.
        arm: Of the training.
        names: The sites, where they are known already.
    """
    privacy = scenario.privacy
    sites = _names(scenario, seed) if names is None else names
    cost = cost_of(scenario, seed, arm, sites)
    releases = cost.releases * privacy.tuning.trainings
    if privacy.noise_multiplier is not None:
        Segment(cost.sampling_rate, privacy.noise_multiplier, releases)  # raises a Mistake if it can't be accounted
        return privacy.noise_multiplier

    epsilon, delta = promised(privacy)
    return noise_multiplier(epsilon, cost.sampling_rate, releases, delta, privacy.relation)


def cost_of(scenario: Scenario, seed: int, arm: Arm, names: Sequence[str]) -> Cost:
    """Return the privacy cost of an arm, but for the noise: the sampling rate, and the number of noisy releases."""
    return unit_of(scenario.privacy.unit).cost(TrainingExposure(scenario, seed, arm, names))


@dataclass(frozen=True)
class TrainingExposure:
    """How often a row and a site are used in one training; see ``fedsim.privacy.unit.Exposure``."""

    scenario: Scenario
    seed: int
    arm: Arm
    names: Sequence[str]

    @property
    def row_rate(self) -> float:
        """The probability with which a row joins a step; the pool has the rows of a round's sites only."""
        rate = self.scenario.training.sampling_rate
        if self.arm == "centralized":
            return rate * share_of_sites(self.scenario, self.names)
        return rate

    @property
    def joining_rate(self) -> float | None:
        """The probability with which each site joins a round on its own; None if sites are chosen otherwise."""
        return self.scenario.training.participation.joining_rate

    @property
    def rounds(self) -> int:
        """How many rounds there are."""
        return self.scenario.training.rounds

    @property
    def most_rounds(self) -> int:
        """In how many of them the site takes part that is chosen most often; the pool is in all."""
        if self.arm == "centralized":
            return self.rounds
        return most_rounds(self.scenario, self.seed, self.names)

    @property
    def steps(self) -> int:
        """How many steps a site takes in a round."""
        return self.scenario.training.local_steps * passes_of(self.scenario, self.arm)


def asked_of_site(
    scenario: Scenario,
    todo: Plan,
    steps: int,
    noise: float,
    params: int,
    sites: int = 1,
    rng: Random | None = None,
) -> Asked:
    """Describe the task of one site in a round, as the privacy unit needs to know it.

    Args:
        scenario: The experiment.
        todo: The plan of the site's training.
        steps: The number of steps in all its trainings of the round.
        noise: The noise multiplier.
        params: The number of parameters in an update.
        sites: The number of sites that are asked in a round under masks.
        rng: The kind of randomness; by default the scenario's.
    """
    secure = scenario.secure_aggregation
    return Asked(
        noise_multiplier=noise,
        clip=scenario.privacy.clip,
        rng=rng or scenario.privacy.rng,
        sampling_rate=todo.sampling_rate,
        expected_batch=todo.expected_batch,
        steps=steps,
        params=params,
        sites=sites,
        drop_outs=secure.drop_outs or 0,
        colluding=secure.colluding,
    )


def _names(scenario: Scenario, seed: int) -> Sequence[str]:
    return federate(scenario, seed, best_device(scenario.device)).names


def passes_of(scenario: Scenario, arm: Arm) -> int:
    """Return how often a site trains in a round: twice where the strategy has a second rule.

    The other arms have no strategy: sites train once.
    """
    if arm != "federated" or strategy_of(scenario).second_rule() is None:
        return 1
    return 2


def promised(privacy: Privacy) -> tuple[float, float]:
    """Return the epsilon and the delta that a scenario promises."""
    if privacy.epsilon is None or privacy.delta is None:
        raise Mistake("privacy: expected epsilon and delta")
    return privacy.epsilon, privacy.delta
