"""The work of one site in one round: its plan, its randomness, and its result.

The sampling rate, the denominator of every step, the number of steps and the noise are the
scenario's, public values. None of them follows from the number of the site's rows: otherwise the
update would tell that number, as it does with Opacus' PrivacyEngine.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from fedsim.data.federation import Examples
from fedsim.mistakes import Mistake
from fedsim.privacy.ledger import Mechanism
from fedsim.privacy.unit import Sampled
from fedsim.privacy.units import unit_of
from fedsim.randomness import Random, Words, kind_of, torch_seed
from fedsim.scenario.schedule import optimizer_in
from fedsim.scenario.schema import Optimizer, Precision, Scenario
from fedsim.strategy.contract import State
from fedsim.strategy.local_rule import LocalRule, Plain
from fedsim.training.losses import RowLosses


@dataclass(frozen=True)
class Noise:
    """The clipping norm of a row's gradient, or of the sum of a person's, and the noise on each step's sum.

    The noise is Gaussian, with standard deviation ``multiplier * clip``.
    """

    clip: float
    multiplier: float


@dataclass(frozen=True)
class Plan:
    """The steps of one site in one round.

    ``expected_batch`` divides every step's sum of gradients. ``of_persons`` tells whether steps draw persons, each with
    all rows; with noise the sum of a person's gradients is then clipped as a row's is elsewhere, and ``expected_batch``
    counts persons, so that no setting follows from how many rows anybody has. ``precision`` is that of products, and
    float32 wherever there is noise.
    """

    steps: int
    sampling_rate: float
    expected_batch: float
    optimizer: Optimizer
    noise: Noise | None
    of_persons: bool = False
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.noise and self.precision != "float32":
            raise Mistake(
                f"training.precision: expected 'float32' where gradients are clipped, got {self.precision!r}: a sum "
                "whose numbers are rounded to eight bits may be longer than the clip"
            )


@dataclass(frozen=True)
class Streams:
    """The randomness of one site in one round.

    ``layers`` is the seed of layers that draw random numbers, such as dropout.
    """

    batches: Words
    noise: Words
    layers: int = 0

    @classmethod
    def of(cls, scenario: Scenario, seed: int, arm: str, site: str, round_number: int) -> Streams:
        """Return the streams by name, or secret ones if ``privacy.rng`` is ``secure``.

        By name: without privacy, arms and variants of a scenario share batches, for a fair
        comparison. No two releases share noise. The name of the noise holds all that shapes the
        release; otherwise one could subtract two runs that differ in epsilon alone. Where records
        are protected, releases don't share batches either: the accountant composes several
        trainings as if each had drawn its own, and a row that is in the same steps of all of them
        would be hidden less.

        Secure: the noise, the choice of batches (amplification by sampling presumes that it is
        secret), and the draws of layers, since an additional row moves the places of the others in
        a batch. Where whole sites are protected, no promise rests on how a site trains, so training
        stays by name; their noise is drawn elsewhere (``whole_sites.noise_words``).
        """
        batches_hide_rows = unit_of(scenario.privacy.unit).sampled in (Sampled.ROWS, Sampled.PERSONS)
        if scenario.privacy.rng == "secure" and batches_hide_rows:
            return cls(
                batches=Words.unknown(),
                noise=Words.unknown(),
                layers=int(Words.unknown().draw(1)[0]),
            )

        release = (scenario.release, arm) if batches_hide_rows else ()
        return cls(
            batches=Words.of(seed, "batches", *release, site, round_number),
            noise=Words.of(seed, "noise", scenario.release, arm, site, round_number),
            layers=torch_seed(seed, "layers", site, round_number),
        )

    @property
    def kind(self) -> Random:
        """The kind of randomness of a release: secure only if its noise and its batches are."""
        return kind_of(self.noise, self.batches)


@dataclass(frozen=True)
class Work:
    """The work of one site in one round.

    Attributes:
        model: The architecture; its own parameters don't count and don't change.
        start: The parameters to start from, float32 (params,), in the order of the model's
            ``parameters()``.
        examples: The site's rows.
        plan: The steps.
        streams: The randomness of the steps.
        losses: The loss to minimize.
        rule: The client half of the strategy; here it corrects gradients.
        memory: The rule's memory for that, each (params,).
        follow: Whether to keep the parameters after every step.
        chosen: Which of several models it starts from, where the site had the choice.
    """

    model: nn.Module
    start: Tensor
    examples: Examples
    plan: Plan
    streams: Streams
    losses: RowLosses
    rule: LocalRule = field(default_factory=Plain)
    memory: State = field(default_factory=dict)
    follow: bool = False
    chosen: int | None = None

    @property
    def drawn(self) -> int:
        """How many rows a step draws among, or how many persons.

        Raises:
            Mistake: Steps draw persons, and nothing is known of whose rows these are.
        """
        if not self.plan.of_persons:
            return len(self.examples)
        persons = self.examples.persons
        if persons is None:
            raise Mistake(
                "privacy.unit: expected rows whose persons are known (data.person, or Rows.person of a task), since "
                "steps draw persons"
            )
        return persons

    def again(self) -> Work:
        """Return this work with its streams at their start."""
        batches = self.streams.batches.again()
        noise = self.streams.noise.again()
        return replace(self, streams=replace(self.streams, batches=batches, noise=noise))


@dataclass(frozen=True)
class Done:
    """The result of a work.

    Attributes:
        parameters: The trained parameters, (params,).
        mechanism: The mechanism that protected the rows, or None if training was not private.
        path: The parameters after each step, (params,) each, of a work to follow.
    """

    parameters: Tensor
    mechanism: Mechanism | None
    path: tuple[Tensor, ...] = ()


def plan(
    scenario: Scenario, expected_batch: float, noise_multiplier: float | None, round_number: int | None = None
) -> Plan:
    """Plan the steps of a site in a round: privately if there is a noise multiplier.

    Rounds differ in their learning rate alone, which no release depends on; without the number of one it is the full
    rate.
    """
    optimizer = scenario.training.optimizer
    if round_number is not None:
        optimizer = optimizer_in(scenario.training, round_number)
    noise = None
    if noise_multiplier is not None:
        noise = Noise(scenario.privacy.clip, noise_multiplier)
    return Plan(
        steps=scenario.training.local_steps,
        sampling_rate=scenario.training.sampling_rate,
        expected_batch=expected_batch,
        optimizer=optimizer,
        noise=noise,
        of_persons=unit_of(scenario.privacy.unit).persons,
        precision=scenario.training.precision,
    )
