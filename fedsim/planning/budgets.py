"""From a scenario to the noise of a training, and to what its sites may spend and the ledger they spend it in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from fedsim.data.federation import federate
from fedsim.flower.grid import node_of
from fedsim.flower.rounds import Budget, CentralBudget
from fedsim.flower.secure.shares import share_of
from fedsim.mistakes import Mistake
from fedsim.planning.participation import most_rounds, share_of_sites
from fedsim.planning.whole_sites import central_noise, steps_of_site
from fedsim.privacy.accounting import Segment, noise_multiplier
from fedsim.privacy.ledger import Ledger, Mechanism, OwnUpdate, Party
from fedsim.privacy.noise_shares import NoiseShare
from fedsim.randomness import Random, Words
from fedsim.scenario.schema import Arm, Privacy, Scenario
from fedsim.strategy.make import strategy_of
from fedsim.training.model import best_device
from fedsim.training.work import Plan


def noise_for(scenario: Scenario, seed: int, arm: Arm) -> float:
    """Return an arm's noise multiplier: the scenario's, or the least that keeps every site within its epsilon."""
    privacy = scenario.privacy
    rate, steps = _rate_and_steps(scenario, seed, arm)
    steps *= privacy.tuning.trainings
    if privacy.noise_multiplier is not None:
        Segment(rate, privacy.noise_multiplier, steps)  # raises a Mistake if it can't be accounted
        return privacy.noise_multiplier
    epsilon, delta = _promised(privacy)
    return noise_multiplier(epsilon, rate, steps, delta, privacy.relation)


def _rate_and_steps(scenario: Scenario, seed: int, arm: Arm) -> tuple[float, int]:
    """Return what an arm's privacy costs, but for the noise: the sampling rate, and how many noisy sums there are."""
    names, training = _names(scenario, seed), scenario.training
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
    return 1 if strategy_of(scenario).second_rule() is None else 2


def _promised(privacy: Privacy) -> tuple[float, float]:
    if privacy.epsilon is None or privacy.delta is None:
        raise Mistake("privacy: expected epsilon and delta")
    return privacy.epsilon, privacy.delta


@dataclass(frozen=True)
class Spending:
    """What the sites of one private training may spend, and the ledger they spend it in.

    Attributes:
        scenario: The experiment.
        seed: Of the training.
        arm: Of the training.
        names: The sites.
        noise: The noise multiplier.
        ledger: Where every release is written down.
    """

    scenario: Scenario
    seed: int
    arm: Arm
    names: Sequence[str]
    noise: float
    ledger: Ledger

    @classmethod
    def of(cls, scenario: Scenario, seed: int, arm: Arm, names: Sequence[str]) -> Spending:
        """Open the ledger of a training."""
        privacy = scenario.privacy
        ledger = Ledger(_promised(privacy)[1], privacy.relation, trainings=privacy.tuning.trainings)
        return cls(scenario, seed, arm, names, noise_for(scenario, seed, arm), ledger)

    @property
    def epsilon(self) -> float:
        """The most any site may spend."""
        return _promised(self.scenario.privacy)[0]

    def own(self, planned: Mapping[int, tuple[Party, Plan]], rounds: int) -> Budget:
        """Return the budget of sites that add the noise themselves, to their steps or to their updates.

        Args:
            planned: {node: (site, what it trains in a round)}.
            rounds: The most rounds that any of them is in.
        """
        privacy = self.scenario.privacy
        release = cache(_own_update if privacy.unit == "local" else _planned_mechanism)
        releases = {
            node: (name, release(todo, self.noise, privacy.clip, privacy.rng)) for node, (name, todo) in planned.items()
        }
        return Budget(self.ledger, self.epsilon, releases, rounds)

    def share(self, asked: int, params: int) -> NoiseShare:
        """Return what each of some sites does that are asked in a round, to an update of so many parameters."""
        return share_of(self.scenario, self.noise, params, asked)

    def shared(self, asked: int, params: int) -> Budget:
        """Return the budget of sites that each add such a share of the noise."""
        share = self.share(asked, params)
        planned = {node_of(site): (name, share) for site, name in enumerate(self.names)}
        return Budget(self.ledger, self.epsilon, planned, most_rounds(self.scenario, self.seed, self.names))

    def central(self, joining: Callable[[int], Words]) -> CentralBudget:
        """Return the budget of sites whose noise the server adds, where they join by the words of ``joining``."""
        noise = central_noise(self.scenario, self.seed, self.arm, self.names, self.noise, self.ledger, joining)
        return CentralBudget(noise, self.epsilon, steps_of_site(self.scenario, self.seed, self.names)[1])


def _planned_mechanism(todo: Plan, noise: float, clip: float, rng: Random) -> Mechanism:
    return Mechanism(todo.sampling_rate, noise, clip, todo.expected_batch, todo.steps, rng)


def _own_update(todo: Plan, noise: float, clip: float, rng: Random) -> OwnUpdate:
    return OwnUpdate(noise, clip, rng)
