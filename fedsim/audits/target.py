"""The target of an audit: one training, with everything an attacker may know of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from fedsim import engines
from fedsim.audits.claims import AnyClaim, Claim, SiteClaim, place_of
from fedsim.data.federation import Examples, Federation, federate
from fedsim.data.loading import task_of
from fedsim.privacy.unit import Place
from fedsim.randomness import stream
from fedsim.scenario.kinds import Kind
from fedsim.scenario.schema import Scenario
from fedsim.strategy.trainable import vector_of
from fedsim.training.losses import RowLosses
from fedsim.training.model import losses_of, new_model
from fedsim.training.work import Done, Noise, Plan, Work, plan

Training = Literal["plain", "private"]
"""The same training without the scenario's noise and with it."""
TRAININGS: tuple[Training, ...] = ("plain", "private")

_MOST_ROWS = 1000  # rows under attack
_MOST_SITES = 20  # sites whose records and properties are guessed


class TrainAll(Protocol):
    """An engine's training function."""

    def __call__(self, works: Sequence[Work], /) -> list[Done]:
        """Train all works, each on its own; return the results in the same order."""
        ...


@dataclass(frozen=True)
class Effort:
    """How much an audit tries.

    Attributes:
        trials: Trainings with the canary, and as many without; fewer where a training is long and the model large.
        canaries: Canaries in one training.
        directions: Canaries of the one-shot estimate.
        size: Parameters of the model that these are put into.
        shadows: Shadow models, an even number.
        seed: Of the audit; all its randomness follows from it.
        real_record: Whether pictures of one's own rows show a real record; else a made-up one is rebuilt for them.
    """

    trials: int = 2000
    canaries: int = 1000
    directions: int = 1000
    size: int = 20_000
    shadows: int = 64
    seed: int = 0
    real_record: bool = False


@dataclass(frozen=True)
class TargetSite:
    """A site under attack.

    Attributes:
        rows: Its training rows.
        plan: Its training in one round.
    """

    rows: Examples
    plan: Plan


@dataclass(frozen=True)
class Target:
    """One training under attack.

    Attributes:
        scenario: The experiment.
        federation: All its sites.
        training: With the scenario's noise or without.
        claim: The privacy claimed for the private training; None if there is none.
        effort: How much to try.
        model: The architecture.
        start: The parameters that the first round starts from, (params,).
        losses: The loss of each row.
        train_all: The engine's training function.
        plan: A whole training of one site in one go. Its noise is None without record-level privacy.
        rows: Records whose membership and content are attacked.
        sites: The first sites, with their training in one round.
        known: The attacker's own rows, like those of the sites, but none of their training rows.
        kind: The kind of outcome.
    """

    scenario: Scenario
    federation: Federation
    training: Training
    claim: AnyClaim | None
    effort: Effort
    model: nn.Module
    start: Tensor
    losses: RowLosses
    train_all: TrainAll
    plan: Plan
    rows: Examples
    sites: Sequence[TargetSite]
    known: Examples
    kind: Kind

    @property
    def place(self) -> Place:
        """The place of the noise that the claim rests on."""
        return place_of(self.scenario, self.claim)

    @property
    def promised(self) -> AnyClaim | None:
        """The claim that this training must keep: none without noise."""
        return self.claim if self.training == "private" else None

    @property
    def record_claim(self) -> Claim:
        """The claim for a record.

        Raises:
            ValueError: There is none.
        """
        if not isinstance(self.claim, Claim):
            raise ValueError(f"expected a claim for records, got {self.claim}")
        return self.claim

    @property
    def site_claim(self) -> SiteClaim:
        """The claim for a whole site.

        Raises:
            ValueError: There is none.
        """
        if not isinstance(self.claim, SiteClaim):
            raise ValueError(f"expected a claim for whole sites, got {self.claim}")
        return self.claim

    @property
    def noise(self) -> Noise:
        """The noise on the steps of a private training.

        Raises:
            ValueError: The training has none.
        """
        if self.plan.noise is None:
            raise ValueError("expected a private plan")
        return self.plan.noise

    @property
    def seed(self) -> int:
        """The seed of the audit."""
        return self.effort.seed


def targets_of(
    scenario: Scenario, claim: AnyClaim | None, effort: Effort, trainings: Sequence[Training] = TRAININGS
) -> list[Target]:
    """Prepare the trainings of a scenario for attacks: those asked for that there are."""
    federation = federate(scenario, scenario.seed)
    model = new_model(scenario, federation.sites[0], scenario.seed, "cpu")
    start = vector_of(model)
    engine = engines.load("serial" if scenario.engine == "serial" else "cohort")
    rows = _some_rows(federation, effort.seed)

    first_sites = [federation.sites[number] for number in range(min(_MOST_SITES, len(federation.sites)))]
    own_rows = joined([part for site in first_sites for part in (site.validation, site.test)])

    targets = []
    for training, whole in plans(scenario, claim).items():
        if training not in trainings:
            continue
        noise_multiplier = whole.noise.multiplier if whole.noise else None
        sites = []
        for site in first_sites:
            expected_batch = scenario.expected_batch(site.name)
            sites.append(TargetSite(site.train, plan(scenario, expected_batch, noise_multiplier)))
        targets.append(
            Target(
                scenario=scenario,
                federation=federation,
                training=training,
                claim=claim,
                effort=effort,
                model=model,
                start=start,
                losses=losses_of(scenario),
                train_all=engine.train_all,
                plan=whole,
                rows=rows,
                sites=tuple(sites),
                known=own_rows,
                kind=task_of(scenario).kind,
            )
        )
    return targets


def plans(scenario: Scenario, claim: AnyClaim | None) -> dict[Training, Plan]:
    """Plan a whole training of one site in one go, without privacy and, if it is claimed, with.

    Where whole sites are protected, a site trains without noise either way: noise comes to its update.
    """
    training = scenario.training
    record_claim = claim if isinstance(claim, Claim) else None
    if record_claim:
        steps = record_claim.mechanism.steps
        expected_batch = record_claim.mechanism.expected_batch
    else:
        steps = training.rounds * training.local_steps
        expected_batch = scenario.expected_batch(federate(scenario, 0).names[0])
    plain = Plan(steps, training.sampling_rate, expected_batch, training.optimizer, None)
    if claim is None:
        return {"plain": plain}
    if record_claim is None:
        return {"plain": plain, "private": plain}
    mechanism = record_claim.mechanism
    noise = Noise(mechanism.clip, mechanism.noise_multiplier)
    return {"plain": plain, "private": replace(plain, sampling_rate=mechanism.sampling_rate, noise=noise)}


def joined(parts: Sequence[Examples]) -> Examples:
    """Concatenate rows."""
    return Examples(
        inputs=torch.cat([part.inputs for part in parts]),
        target=torch.cat([part.target for part in parts]),
    )


def _some_rows(federation: Federation, seed: int) -> Examples:
    """Choose rows of all parts of the first sites, in random order."""
    parts: list[Examples] = []
    for site in federation.sites:
        parts += [site.train, site.validation, site.test]
        if sum(map(len, parts)) >= _MOST_ROWS:
            break
    rows = joined(parts)
    chosen = torch.from_numpy(stream(seed, "audited rows").permutation(len(rows))[:_MOST_ROWS])
    return Examples(rows.inputs[chosen], rows.target[chosen])
