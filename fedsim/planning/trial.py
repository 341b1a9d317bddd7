"""One training of an experiment: a scenario, a seed and an arm, with all that follows from the three.

Everything here is public and known before training. Who reads the same three values finds the same sites, rows, first
model, rounds and noise, whether it is the server, a site, an audit or a check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from fedsim.data.federation import Federation, federate
from fedsim.data.loading import task_of
from fedsim.data.real_sites import OwnRows, federate_real_sites
from fedsim.data.task import Task
from fedsim.planning.noise import asked_of_site, noise_for, passes_of
from fedsim.planning.participation import (
    arrivals_of,
    chosen_sites,
    joined,
    joining_of,
    most_rounds,
    share_of_sites,
    time_of_slowest,
)
from fedsim.privacy.unit import Asked, Place, Unit
from fedsim.privacy.units import unit_of
from fedsim.randomness import Random, Words, stream
from fedsim.scenario.schema import Arm, Privacy, Scenario
from fedsim.strategy.arrivals import Arrivals
from fedsim.strategy.contract import Strategy
from fedsim.strategy.make import in_round, strategy_of
from fedsim.strategy.trainable import vector_of
from fedsim.training.losses import RowLosses
from fedsim.training.model import architecture_of, best_device, losses_of, new_model, parts_of
from fedsim.training.rows_alone import check_rows_are_alone
from fedsim.training.work import Plan, Streams, plan


@dataclass(frozen=True, eq=False)
class Trial:
    """A training by its three coordinates.

    Attributes:
        scenario: The experiment; without privacy for a training without noise, see ``without_noise``.
        seed: The seed of the training.
        arm: The arm.
        own: Where sites keep their rows to themselves, the one whose rows are here; None at their server.
    """

    scenario: Scenario
    seed: int
    arm: Arm
    own: OwnRows | None = None

    @cached_property
    def unit(self) -> Unit:
        """The privacy unit: whom the training protects, and how.

        Raises:
            Mistake: There is no such unit.
        """
        return unit_of(self.scenario.privacy.unit)

    @property
    def private(self) -> bool:
        """Whether the training is private."""
        return self.scenario.private

    @cached_property
    def device(self) -> str:
        """The device, ``cuda`` or ``cpu``."""
        return best_device(self.scenario.device)

    @cached_property
    def task(self) -> Task:
        """The task."""
        return task_of(self.scenario)

    @cached_property
    def federation(self) -> Federation:
        """All sites with their rows, split under this seed; of real sites none but its own has any."""
        if self.scenario.deployment.sites:
            return federate_real_sites(self.scenario, self.seed, self.device, self.own)
        alone = self.arm == "local"
        return federate(self.scenario, self.seed, self.device, alone)

    @cached_property
    def tested(self) -> Federation:
        """The sites on whose rows models are judged: all, or as many as are asked for, drawn at random.

        They are the same in all arms and under all seeds.
        """
        most = self.scenario.evaluation.most_sites
        if len(self.names) <= most:
            return self.federation
        drawn = stream(self.scenario.seed, "tested sites").choice(len(self.names), most, replace=False, shuffle=False)
        return self.federation.some(sorted(map(int, drawn)))

    @cached_property
    def judged(self) -> Federation:
        """The sites on whose validation rows rounds are judged, where one is chosen: those declared public, or all."""
        stopping = self.scenario.training.stopping
        if stopping is None or stopping.public_sites is None:
            return self.tested
        return self.federation.some([self.names.index(name) for name in sorted(stopping.public_sites)])

    @property
    def names(self) -> Sequence[str]:
        """The names of all sites, sorted."""
        return self.federation.names

    @cached_property
    def model(self) -> nn.Module:
        """The architecture, with its first weights.

        Raises:
            Mistake: The model can't be trained as asked.
        """
        if self.unit.place is Place.IN_STEPS:
            check_rows_are_alone(self.untried_model, self.federation.sites[0].train, architecture_of(self.scenario))
        return self.untried_model

    @cached_property
    def untried_model(self) -> nn.Module:
        """The same, before it is tried whether it can protect a record; for checks that list all faults."""
        return new_model(self.scenario, self.federation.sites[0], self.seed, self.device)

    @cached_property
    def start(self) -> Tensor:
        """The first weights that are trained, (params,)."""
        return vector_of(self.model)

    @cached_property
    def losses(self) -> RowLosses:
        """The loss of each row."""
        return losses_of(self.scenario)

    def parts(self, vector: Tensor) -> dict[str, Tensor]:
        """Return a model's vector (params,) as {name: parameter}.

        They are a copy: the last digits of products depend on where in memory a vector begins, and a row of a stack
        begins elsewhere than the same row that was read from a file.
        """
        return parts_of(self.model, vector.to(self.device, copy=True))

    @cached_property
    def strategy(self) -> Strategy:
        """The strategy, with its hyperparameters."""
        return strategy_of(self.scenario, len(self.names))

    def strategy_in(self, round_number: int) -> Strategy:
        """Return the strategy with the sites' learning rate in a round; before the first one, as it is."""
        return in_round(self.strategy, self.scenario, round_number) if round_number else self.strategy

    @cached_property
    def passes(self) -> int:
        """How often a site trains in a round."""
        return passes_of(self.scenario, self.arm)

    # Who takes part.

    @cached_property
    def arrivals(self) -> Arrivals | None:
        """When sites answer to a strategy that does not wait for all of them; None for others."""
        return arrivals_of(self.scenario, self.seed, len(self.names))

    @cached_property
    def joining(self) -> Callable[[int], Words]:
        """From the number of a round to the random words by which sites join it on their own.

        It is one drawing for the whole training: who is asked and what that is worth rest on the same words.
        """
        return joining_of(self.scenario, self.seed)

    def sites_of(self, round_number: int) -> list[int]:
        """Return the numbers of a round's sites, ascending."""
        return chosen_sites(self.scenario, self.seed, self.names, round_number, self.joining, self.arrivals)

    def joined(self, round_number: int) -> Sequence[int]:
        """Return the numbers of the sites that have joined by a round."""
        return joined(self.scenario, self.names, round_number)

    @cached_property
    def share_of_sites(self) -> float:
        """The share of the sites that takes part in a round, or is expected to."""
        return share_of_sites(self.scenario, self.names)

    @cached_property
    def most_rounds(self) -> int:
        """The most rounds that any site takes part in."""
        return most_rounds(self.scenario, self.seed, self.names)

    def time_after(self, round_number: int, asked: Sequence[int], before: float) -> float:
        """Return the virtual time after a round: a buffer's, or when the slowest of its sites is done.

        Args:
            round_number: The number of the round, from 1 on.
            asked: The numbers of the sites that were asked.
            before: The time after the round before.
        """
        if self.arrivals:
            return self.arrivals.flush(round_number).time
        return before + time_of_slowest(self.scenario, self.seed, len(self.names), asked)

    # What the sites do.

    @cached_property
    def noise(self) -> float | None:
        """The noise multiplier; None without privacy."""
        return noise_for(self.scenario, self.seed, self.arm, self.names) if self.private else None

    @cached_property
    def sites_in_a_sum(self) -> int:
        """The number of sites that share the noise of a round's sum; 1 where each release has its own."""
        return len(self.sites_of(1)) if self.unit.place is Place.IN_SHARES else 1

    @cached_property
    def weights(self) -> Mapping[str, float]:
        """{site: expected batch}: the denominator of its steps, and its public weight."""
        return self.scenario.expected_batches(self.names)

    def plan(self, expected_batch: float, round_number: int | None = None) -> Plan:
        """Return the plan of a site in a round, private if the training is; see ``training.work.plan``."""
        return plan(self.scenario, expected_batch, self.noise, round_number)

    def asked(
        self,
        todo: Plan,
        multiplier: float,
        sites: int | None = None,
        rng: Random | None = None,
    ) -> Asked:
        """Describe the task of a site in a round, in all its trainings, as the privacy unit needs it.

        Args:
            todo: The plan of one training of the site.
            multiplier: The noise multiplier.
            sites: The number of sites that share the noise of a sum; by default ``sites_in_a_sum``.
            rng: The kind of randomness; by default the scenario's.
        """
        if sites is None:
            sites = self.sites_in_a_sum
        steps = self.passes * todo.steps
        return asked_of_site(self.scenario, todo, steps, multiplier, len(self.start), sites, rng)

    def streams(self, site: str, round_number: int) -> Streams:
        """Return the randomness of a site in a round."""
        return Streams.of(self.scenario, self.seed, self.arm, site, round_number)


def without_noise(scenario: Scenario) -> Scenario:
    """Return the scenario of the trainings without noise: a site that is told of privacy does not answer without."""
    secure = scenario.secure_aggregation.model_copy(update={"colluding": 0})
    return scenario.model_copy(update={"privacy": Privacy(), "secure_aggregation": secure})
