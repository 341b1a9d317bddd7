"""From a scenario to the noise of a training: the least that keeps every site within its epsilon."""

from collections.abc import Sequence

from fedsim.data.federation import federate
from fedsim.mistakes import Mistake
from fedsim.planning.participation import most_rounds, share_of_sites
from fedsim.planning.whole_sites import steps_of_site
from fedsim.privacy.accounting import Segment, noise_multiplier
from fedsim.scenario.schema import Arm, Privacy, Scenario
from fedsim.strategy.make import strategy_of
from fedsim.training.model import best_device


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
    rate, steps = _rate_and_steps(scenario, seed, arm, sites)
    steps *= privacy.tuning.trainings
    if privacy.noise_multiplier is not None:
        Segment(rate, privacy.noise_multiplier, steps)  # raises a Mistake if it can't be accounted
        return privacy.noise_multiplier
    epsilon, delta = promised(privacy)
    return noise_multiplier(epsilon, rate, steps, delta, privacy.relation)


def _rate_and_steps(scenario: Scenario, seed: int, arm: Arm, names: Sequence[str]) -> tuple[float, int]:
    """Return the sampling rate of an arm and the number of its noisy sums: its privacy cost, but for the noise."""
    training = scenario.training
    if scenario.privacy.unit == "client":
        return steps_of_site(scenario, seed, names)
    if scenario.privacy.unit in ("local", "distributed"):
        return 1.0, most_rounds(scenario, seed, names)
    if arm == "centralized":
        return training.sampling_rate * share_of_sites(scenario, names), training.rounds * training.local_steps
    passes = passes_of(scenario) if arm == "federated" else 1
    return training.sampling_rate, most_rounds(scenario, seed, names) * training.local_steps * passes


def _names(scenario: Scenario, seed: int) -> Sequence[str]:
    return federate(scenario, seed, best_device(scenario.device)).names


def passes_of(scenario: Scenario) -> int:
    """Return how often a site trains in a round: twice where the strategy has a second rule."""
    return 1 + hasattr(strategy_of(scenario), "second_rule")


def promised(privacy: Privacy) -> tuple[float, float]:
    """Return the epsilon and the delta that a scenario promises."""
    if privacy.epsilon is None or privacy.delta is None:
        raise Mistake("privacy: expected epsilon and delta")
    return privacy.epsilon, privacy.delta
