"""What an audit attacks: a scenario's training, and each attack put to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from fedsim import engines
from fedsim.audits import canaries, inversion, membership, one_shot, site_property, source
from fedsim.audits.claims import Claim
from fedsim.data.federation import Examples, Federation, Site, federate
from fedsim.data.loading import task_of
from fedsim.randomness import stream
from fedsim.scenario.kinds import Kind
from fedsim.scenario.schema import Scenario
from fedsim.training.losses import RowLosses
from fedsim.training.model import losses_of, new_model
from fedsim.training.work import Noise, Plan, plan

Training = Literal["plain", "private"]
_MOST_ROWS = 1000  # that are attacked
_MOST_SITES = 20  # whose records and properties are guessed
_INVERTED = 20  # records that are rebuilt
_OF_EACH = 100  # site: records whose source is guessed
_NUMBERS = 4e8  # of noise that all trainings with a canary may draw: a minute, or less


@dataclass(frozen=True)
class Effort:
    """How much an audit tries.

    Attributes:
        trials: Trainings with the canary, and as many without; fewer where a training is long and the model large.
        canaries: Canaries in one training.
        directions: Canaries of the one-shot estimate.
        size: Parameters of the model they are put into.
        shadows: Shadow models, an even number.
        seed: Of the audit.
    """

    trials: int = 2000
    canaries: int = 1000
    directions: int = 1000
    size: int = 20_000
    shadows: int = 64
    seed: int = 0


@dataclass(frozen=True)
class Target:
    """What is attacked.

    Attributes:
        scenario: The experiment.
        effort: How much is tried.
        tell: Called with the name of each attack before it starts.
        federation: The sites.
        model: The architecture.
        start: What the first round starts from, (params,).
        rows: Those whose membership and content are attacked.
        whole: A whole training of the first site, in one go.
    """

    scenario: Scenario
    effort: Effort
    tell: Callable[[str], None]
    federation: Federation
    model: nn.Module
    start: Tensor
    rows: Examples
    whole: Mapping[Training, Plan]

    @classmethod
    def of(cls, scenario: Scenario, claim: Claim | None, effort: Effort, tell: Callable[[str], None]) -> Target:
        """Prepare what is attacked of a scenario."""
        federation = federate(scenario, scenario.seed)
        model = new_model(scenario, federation.sites[0], scenario.seed, "cpu")
        start, rows = parameters_to_vector(model.parameters()).detach(), _some_rows(federation, effort.seed)
        return cls(scenario, effort, tell, federation, model, start, rows, plans(scenario, claim))

    @property
    def losses(self) -> RowLosses:
        """What is minimized."""
        return losses_of(self.scenario)

    @property
    def train_all(self) -> membership.TrainAll:
        """The engine's training."""
        return engines.load("serial" if self.scenario.engine == "serial" else "cohort").train_all

    def bounds(self, claim: Claim) -> dict[str, Any]:
        """Return the fields of an audit that hold bounds on epsilon and the estimate."""
        todo, effort, train_all = self.whole["private"], self.effort, self.train_all
        trials = min(effort.trials, max(100, int(_NUMBERS / (2 * todo.steps * len(self.start)))))
        self.tell("a canary, in or out")
        paired = canaries.paired(
            self.model, self.start, self.losses, self.federation.sites[0].train, todo, claim.delta, trials,
            effort.seed, train_all,
        )  # fmt: skip
        self.tell("canaries in one run")
        one_run = canaries.one_run(todo, claim.delta, effort.canaries, effort.seed, train_all)
        shot = one_shot.records(todo, claim.delta, effort.directions, effort.size, effort.seed, train_all)
        return {"paired": paired, "one_run": one_run, "one_shot": shot}

    def members(self, kind: Training) -> dict[str, membership.Membership]:
        """Tell who was in it."""
        self.tell("who was in it")
        todo = self.whole[kind]
        half = replace(todo, expected_batch=max(1.0, todo.sampling_rate * len(self.rows) / 2))
        return membership.attack(
            self.model, self.start, self.losses, self.rows, half, self.effort.shadows, self.effort.seed, self.train_all
        )

    def rebuilt(self, kind: Training) -> dict[str, inversion.Inversion]:
        """Rebuild records from the update of one, and from that of a round."""
        if not self.rows.inputs.is_floating_point():
            return {}
        self.tell("records rebuilt")
        few, seed = inversion.some(self.rows, _INVERTED, self.effort.seed), self.effort.seed
        noise = self.whole[kind].noise
        found = inversion.invert(self.model, self.start, self.losses, few, noise, seed, self.train_all)
        pairs = [(site.train, self.round_of(kind, site)) for site in self.sites]
        usual = inversion.from_a_round(self.model, self.start, self.losses, pairs, seed, self.train_all)
        return found | ({"round": usual} if usual else {})

    def source_of(self, kind: Training) -> source.Source | None:
        """Name the sites that records are at; None if there is one site only."""
        if len(self.sites) < 2:
            return None
        self.tell("at which site")
        return source.attack(
            self.model, self.start, self.losses, [site.train for site in self.sites],
            [self.round_of(kind, site) for site in self.sites], self.scenario.training.rounds, _OF_EACH,
            self.effort.seed, self.train_all,
        )  # fmt: skip

    def property_of(self, kind: Training) -> site_property.Property | None:
        """Read off each site's update what share of its rows has an outcome."""
        self.tell("what a site is like")
        own = _joined([part for site in self.sites for part in (site.validation, site.test)])
        return site_property.attack(
            self.model, self.start, self.losses,
            [(site.train, self.round_of(kind, site)) for site in self.sites], own,
            _property_of(task_of(self.scenario).kind, own.target), self.effort.shadows, self.effort.seed,
            self.train_all,
        )  # fmt: skip

    @property
    def sites(self) -> Sequence[Site]:
        """The first sites."""
        return [self.federation.sites[number] for number in range(min(_MOST_SITES, len(self.federation.sites)))]

    def round_of(self, kind: Training, site: Site) -> Plan:
        """Return what a site does in one round."""
        noise = self.whole[kind].noise
        return plan(self.scenario, self.scenario.expected_batch(site.name), noise and noise.multiplier)


def plans(scenario: Scenario, claim: Claim | None) -> dict[Training, Plan]:
    """Return a whole training in one go, without privacy and, if it is claimed, with."""
    training = scenario.training
    steps = claim.mechanism.steps if claim else training.rounds * training.local_steps
    batch = claim.mechanism.expected_batch if claim else scenario.expected_batch(federate(scenario, 0).names[0])
    plain = Plan(steps, training.sampling_rate, batch, training.optimizer, None)
    if not claim:
        return {"plain": plain}
    did = claim.mechanism
    private = replace(plain, sampling_rate=did.sampling_rate, noise=Noise(did.clip, did.noise_multiplier))
    return {"plain": plain, "private": private}


def property_in_words(kind: Kind) -> str:
    """Return which share of a site's rows the property attack is after."""
    return {
        "binary": "the share of positive outcomes",
        "classes": "the share of the most common class",
        "number": "the share above the median",
    }[kind]


def _property_of(kind: Kind, seen: Tensor) -> Callable[[Tensor], Tensor]:
    """Return what tells which rows have the property, given the targets the attacker has."""
    if not len(seen):
        return lambda target: target > 0
    wanted = seen.mode().values if kind == "classes" else seen.median()
    return {
        "binary": lambda target: target == 1,
        "classes": lambda target: target == wanted,
        "number": lambda target: target > wanted,
    }[kind]


def _some_rows(federation: Federation, seed: int) -> Examples:
    """Return rows of all parts of the first sites, at most so many, in random order."""
    parts: list[Examples] = []
    for site in federation.sites:
        parts += [site.train, site.validation, site.test]
        if sum(map(len, parts)) >= _MOST_ROWS:
            break
    rows = _joined(parts)
    chosen = torch.from_numpy(stream(seed, "audited rows").permutation(len(rows))[:_MOST_ROWS])
    return Examples(rows.inputs[chosen], rows.target[chosen])


def _joined(parts: Sequence[Examples]) -> Examples:
    return Examples(*(torch.cat([getattr(part, name) for part in parts]) for name in ("inputs", "target")))
