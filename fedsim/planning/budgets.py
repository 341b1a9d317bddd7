"""What the sites of a private training may spend, and the ledger they spend it in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from fedsim.flower.grid import node_of
from fedsim.flower.rounds import Budget, CentralBudget
from fedsim.flower.secure.shares import share_of
from fedsim.planning.noise import promised
from fedsim.planning.trial import Trial
from fedsim.planning.whole_sites import central_noise, steps_of_site
from fedsim.privacy.ledger import Ledger, Mechanism, OwnUpdate, Party
from fedsim.privacy.noise_shares import NoiseShare
from fedsim.randomness import Random
from fedsim.training.work import Plan


@dataclass(frozen=True)
class Spending:
    """What the sites of one private training may spend, and the ledger they spend it in.

    Attributes:
        trial: The training.
        noise: Its noise multiplier.
        ledger: Where every release is written down.
    """

    trial: Trial
    noise: float
    ledger: Ledger

    @classmethod
    def of(cls, trial: Trial) -> Spending:
        """Open the ledger of a training.

        Raises:
            ValueError: The training is not private.
        """
        if trial.noise is None:
            raise ValueError(f"expected a private training, got the {trial.arm} arm without noise")
        privacy = trial.scenario.privacy
        _, delta = promised(privacy)
        ledger = Ledger(delta, privacy.relation, trainings=privacy.tuning.trainings)
        return cls(trial, trial.noise, ledger)

    @property
    def epsilon(self) -> float:
        """The most any site may spend."""
        return promised(self.trial.scenario.privacy)[0]

    def own(self, planned: Mapping[int, tuple[Party, Plan]], rounds: int) -> Budget:
        """Return the budget of sites that add the noise themselves, to their steps or to their updates.

        Args:
            planned: {node: (site, what it trains in a round)}.
            rounds: The most rounds that any of them is in.
        """
        privacy = self.trial.scenario.privacy
        release = cache(_own_update if privacy.unit == "local" else _planned_mechanism)
        releases = {
            node: (name, release(todo, self.noise, privacy.clip, privacy.rng)) for node, (name, todo) in planned.items()
        }
        return Budget(self.ledger, self.epsilon, releases, rounds)

    def share(self, asked: int, params: int) -> NoiseShare:
        """Return what each of some sites does that are asked in a round, to an update of so many parameters."""
        return share_of(self.trial.scenario, self.noise, params, asked)

    def shared(self, asked: int, params: int) -> Budget:
        """Return the budget of sites that each add such a share of the noise."""
        share = self.share(asked, params)
        planned = {node_of(site): (name, share) for site, name in enumerate(self.trial.names)}
        return Budget(self.ledger, self.epsilon, planned, self.trial.most_rounds)

    def central(self) -> CentralBudget:
        """Return the budget of sites whose noise the server adds."""
        trial = self.trial
        noise = central_noise(
            trial.scenario, trial.seed, trial.arm, trial.names, self.noise, self.ledger, trial.joining
        )
        _, rounds = steps_of_site(trial.scenario, trial.seed, trial.names)
        return CentralBudget(noise, self.epsilon, rounds)


def _planned_mechanism(todo: Plan, noise: float, clip: float, rng: Random) -> Mechanism:
    return Mechanism(todo.sampling_rate, noise, clip, todo.expected_batch, todo.steps, rng)


def _own_update(todo: Plan, noise: float, clip: float, rng: Random) -> OwnUpdate:
    return OwnUpdate(noise, clip, rng)
