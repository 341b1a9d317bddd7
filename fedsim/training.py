"""Training of one site: a few steps of SGD on Poisson batches, or of DP-SGD with Opacus.

The sampling rate, the denominator of every step, the number of steps and the noise are the scenario's, public values.
None of them follows from how many rows the site has: otherwise the update would tell (PrivacyEngine's would).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from fedsim.federation import Examples, Federation, Site
from fedsim.functional import outputs_with
from fedsim.loading import task_of
from fedsim.local_rule import LocalRule, Part, Parts, Plain
from fedsim.losses import LOSSES, RowLosses
from fedsim.mistakes import Mistake
from fedsim.privacy.ledger import Mechanism
from fedsim.privacy.norms import keep_float32_whole
from fedsim.randomness import Random, Words, choose, global_seed, kind_of, torch_seed
from fedsim.rows_alone import draws, some_rows
from fedsim.scenario import Optimizer, Scenario
from fedsim.strategy import State

if TYPE_CHECKING:
    from opacus import GradSampleModule

_tried: WeakSet[nn.Module] = WeakSet()  # models of which Opacus was seen to find the gradients of rows


@dataclass(frozen=True)
class Noise:
    """Clip every row's gradient to ``clip`` and add Gaussian noise of ``multiplier * clip`` to each step's sum."""

    clip: float
    multiplier: float


@dataclass(frozen=True)
class Plan:
    """What one site does in one round. ``expected_batch`` divides every step's sum of gradients."""

    steps: int
    sampling_rate: float
    expected_batch: float
    optimizer: Optimizer
    noise: Noise | None


@dataclass(frozen=True)
class Streams:
    """The randomness of one site in one round; ``layers`` is the seed of layers that draw, such as dropout."""

    batches: Words
    noise: Words
    layers: int = 0

    @classmethod
    def of(cls, scenario: Scenario, seed: int, arm: str, site: str, round_number: int) -> Streams:
        """Return the streams by name, or new ones that nobody can know if ``privacy.rng`` is ``secure``.

        By name: without privacy, arms and variants of a scenario share batches, for a fair comparison. No two releases
        share noise: its name holds all that shapes the release, or two runs that differ in epsilon alone could be
        subtracted. Nor do they share batches where records are protected: several trainings are composed as if each had
        drawn its own, and a row that is in the same steps of all of them would be hidden less.

        Secure: the noise, who is in a batch (which amplification by sampling presumes secret), and what layers draw,
        since one row more moves the others' places in a batch. Where whole sites are protected, no promise rests on how
        a site trains, so that stays by name; their noise is drawn elsewhere (``whole_sites.noise_words``).
        """
        if scenario.privacy.rng == "secure" and scenario.privacy.unit == "record":
            return cls(Words.unknown(), Words.unknown(), int(Words.unknown().draw(1)[0]))
        own = (scenario.release, arm) if scenario.privacy.unit == "record" else ()
        return cls(
            batches=Words.of(seed, "batches", *own, site, round_number),
            noise=Words.of(seed, "noise", scenario.release, arm, site, round_number),
            layers=torch_seed(seed, "layers", site, round_number),
        )

    @property
    def kind(self) -> Random:
        """What the randomness of a release is: secure only if both its noise and its batches are."""
        return kind_of(self.noise, self.batches)


@dataclass(frozen=True)
class Work:
    """One site's task in one round.

    Attributes:
        model: The architecture; its own parameters don't count and don't change.
        start: The parameters to start from, float32 (params,), in the order of the model's ``parameters()``.
        examples: The site's rows.
        plan: What to do.
        streams: The randomness for it.
        losses: What is minimized.
        rule: The client half of the strategy; here it corrects gradients.
        memory: What the rule needs for that, each (params,).
        follow: Whether to say where every step led.
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

    def again(self) -> Work:
        """Return this work with its streams at their start."""
        fresh = replace(self.streams, batches=self.streams.batches.again(), noise=self.streams.noise.again())
        return replace(self, streams=fresh)


@dataclass(frozen=True)
class Done:
    """What came of a work.

    Attributes:
        parameters: Where it led, (params,).
        mechanism: What was done to the rows, or None if that was not private.
        path: Where each of its steps led, (params,) each, of a work to follow.
    """

    parameters: Tensor
    mechanism: Mechanism | None
    path: tuple[Tensor, ...] = ()


def expected_batch(scenario: Scenario, site: str) -> float:
    """Return a site's expected batch, which also is its public weight in the aggregation."""
    declared = scenario.training.expected_batch
    return declared[site] if isinstance(declared, dict) else float(declared)


def check_expected_batches(scenario: Scenario, federation: Federation) -> None:
    """Make sure that a table of expected batches is for the sites there are.

    Raises:
        Mistake: It names others, or not all.
    """
    declared = scenario.training.expected_batch
    if isinstance(declared, dict) and sorted(declared) != sorted(federation.names):
        raise Mistake(
            f"training.expected_batch: expected one number for each of {', '.join(federation.names)}, "
            f"got them for {', '.join(declared)}"
        )


def plan(scenario: Scenario, expected_batch: float, noise_multiplier: float | None) -> Plan:
    """Return what a site does in each round: privately if there is a noise multiplier."""
    training = scenario.training
    return Plan(
        steps=training.local_steps,
        sampling_rate=training.sampling_rate,
        expected_batch=expected_batch,
        optimizer=training.optimizer,
        noise=None if noise_multiplier is None else Noise(scenario.privacy.clip, noise_multiplier),
    )


def best_device(wanted: str) -> str:
    """Return ``cuda`` or ``cpu``.

    Raises:
        Mistake: CUDA was asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise Mistake("device: expected a CUDA device, found none; use device = 'auto' or 'cpu'")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def new_model(scenario: Scenario, site: Site, seed: int, device: str) -> nn.Module:
    """Return the task's model with initial weights that depend on the seed alone.

    Raises:
        Mistake: The model can't be trained as asked: it has buffers, or a layer that mixes rows (BatchNorm).
    """
    with global_seed(torch_seed(seed, "initial weights")):  # layers draw them from the global generator
        model: nn.Module = task_of(scenario).model(*site.train.inputs.shape[1:])
    for name, layer in model.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) or [*layer.buffers(recurse=False)]:
            raise Mistake(
                f"task: expected layers that treat each row alone and have no buffers, got "
                f"{type(layer).__name__} ({name}); use GroupNorm or LayerNorm in place of BatchNorm"
            )
    return model.to(device)


def losses_of(scenario: Scenario) -> RowLosses:
    """Return the loss of the scenario's task."""
    return LOSSES[task_of(scenario).kind]


def parts_of(model: nn.Module, vector: Tensor) -> dict[str, Tensor]:
    """Return a vector of all parameters (params,) as {name: view of it}."""
    parts = vector.split([value.numel() for value in model.parameters()])
    return {name: part.view(value.shape) for (name, value), part in zip(model.named_parameters(), parts, strict=True)}


def layers_of(model: nn.Module) -> Parts:
    """Return the model's parameters by name, with the kinds of their layers and their places in its vector."""
    kinds = {name: type(layer).__name__ for name, layer in model.named_modules()}
    parts, start = [], 0
    for name, value in model.named_parameters():
        parts.append(Part(name, kinds[name.rpartition(".")[0]], start, start + value.numel()))
        start += value.numel()
    return tuple(parts)


def train(work: Work) -> Done:
    """Do a work: train a copy of its model."""
    model = copy.deepcopy(work.model).train()
    vector_to_parameters(work.start.clone(), model.parameters())  # they become views of it
    mechanism, path = None, []
    with global_seed(work.streams.layers):  # dropout draws from the global generator
        if work.plan.noise is None:
            _train_plainly(work, model, path)
        else:
            model = _with_opacus_layers(model)
            mechanism = _train_privately(work, work.plan.noise, model, path)
    return Done(parameters_to_vector(_in_order_of(work.model, model)).detach(), mechanism, tuple(path))


def new_optimizer(chosen: Optimizer, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """Return the torch optimizer a scenario names."""
    if chosen.name == "adam":
        return torch.optim.Adam(parameters, lr=chosen.lr, weight_decay=chosen.weight_decay, foreach=True)
    return torch.optim.SGD(parameters, lr=chosen.lr, momentum=chosen.momentum, weight_decay=chosen.weight_decay)


def _train_plainly(work: Work, model: nn.Module, path: list[Tensor]) -> None:
    optimizer = new_optimizer(work.plan.optimizer, model.parameters())
    parameters = [*model.parameters()]
    for step, batch in enumerate(poisson_batches(work)):
        optimizer.zero_grad()
        (work.losses(model(batch.inputs), batch.target).sum() / work.plan.expected_batch).backward()
        _correct(work, parameters, step)
        optimizer.step()
        if work.follow:
            path.append(parameters_to_vector(parameters).detach())


def _correct(work: Work, parameters: Sequence[nn.Parameter], step: int) -> None:
    """Let the local rule correct the gradients, parameter by parameter."""
    memory = {name: list(parts_of(work.model, value).values()) for name, value in work.memory.items()}
    with torch.no_grad():
        for place, parameter in enumerate(parameters):
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            own = {name: parts[place] for name, parts in memory.items()}
            parameter.grad = work.rule.correct(gradient, parameter.detach(), own, step)


def _train_privately(work: Work, noise: Noise, model: nn.Module, path: list[Tensor]) -> Mechanism:
    from opacus import GradSampleModule  # takes two seconds: only private runs wait for it

    from fedsim.privacy.optimizer import SiteOptimizer

    keep_float32_whole()
    wrapped = GradSampleModule(model, batch_first=True, loss_reduction="sum")
    parameters = _in_order_of(work.model, model)
    optimizer = new_optimizer(work.plan.optimizer, parameters)
    private = SiteOptimizer(optimizer, noise.multiplier, noise.clip, work.plan.expected_batch, work.streams.noise)
    try:
        if work.model not in _tried and len(work.examples):  # a site without rows has none to try it on
            _check_gradients_of_rows(work, wrapped)
            _tried.add(work.model)
        for step, batch in enumerate(poisson_batches(work)):
            private.zero_grad()
            _backward(work, wrapped, batch.inputs, batch.target)
            private.rows = len(batch)
            if private.pre_step():  # clips, adds noise, divides
                _correct(work, parameters, step)
                private.original_optimizer.step()
            if work.follow:
                path.append(parameters_to_vector(parameters).detach())
    finally:
        wrapped.to_standard_module()
    return private.mechanism(work.plan.sampling_rate, work.streams.kind)


def _backward(work: Work, wrapped: GradSampleModule, inputs: Tensor, target: Tensor) -> None:
    """Let Opacus compute the gradients of rows."""
    with warnings.catch_warnings():  # torch tells Opacus' hooks that the inputs need no gradient: they don't
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        work.losses(wrapped(inputs), target).sum().backward()


def _check_gradients_of_rows(work: Work, wrapped: GradSampleModule) -> None:
    """Make sure that what Opacus takes for the gradient of a row is what autograd gives for that row alone.

    Opacus knows what a layer computes, and takes the first dimension for the rows. A model that draws random numbers is
    not tried, since no row alone draws what it draws beside others.

    Raises:
        Mistake: It is something else: clipping it would bound nothing.
    """
    inputs = some_rows(work.examples, 3)
    target = work.examples.target[:1].expand(len(inputs), *work.examples.target.shape[1:])
    if draws(work.model, inputs):
        return

    _backward(work, wrapped, inputs, target)
    own = dict(wrapped._module.named_parameters())
    of_rows: list[Tensor] = [own[name].grad_sample for name, _ in work.model.named_parameters()]  # pyright: ignore[reportAttributeAccessIssue]
    counts = {len(gradients) for gradients in of_rows}
    if counts != {len(inputs)} and not any(count % len(inputs) for count in counts):
        return  # a layer that sees a row several times is refused in the first step, with the number of rows there

    alike = counts == {len(inputs)}
    for row in range(len(inputs) if alike else 0):
        vector = work.start.clone().requires_grad_()
        outputs = outputs_with(work.model, parts_of(work.model, vector), inputs[row : row + 1])
        (alone,) = torch.autograd.grad(work.losses(outputs, target[row : row + 1]).sum(), vector)
        together = torch.cat([gradients[row].flatten() for gradients in of_rows])
        alike &= torch.allclose(alone, together, rtol=1e-3, atol=1e-5)
    if not alike:
        raise Mistake(
            "task: expected a model of which Opacus finds each row's gradient, since clipping that is what the privacy "
            "of a record rests on; got one for which it finds something else, such as one that moves the dimension of "
            "the rows"
        )


def _with_opacus_layers(module: nn.Module) -> nn.Module:
    """Return a module with Opacus' GRU and LSTM in place of torch's, of which there are no gradients by row."""
    if isinstance(module, nn.GRU | nn.LSTM):
        from opacus.layers import DPGRU, DPLSTM

        same = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
        kind = DPLSTM if isinstance(module, nn.LSTM) else DPGRU
        replacement = kind(**{name: getattr(module, name) for name in same})
        replacement.load_state_dict(module.state_dict())
        return replacement.to(module.weight_ih_l0.device)  # type: ignore[union-attr, arg-type]
    for name, child in module.named_children():
        setattr(module, name, _with_opacus_layers(child))
    return module


def _in_order_of(model: nn.Module, trained: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a trained copy in the order of the model's, which Opacus' layers change."""
    own = dict(trained.named_parameters())
    return [own[name] for name, _ in model.named_parameters()]


def poisson_batches(work: Work) -> Iterator[Examples]:
    """Yield a batch for each step, which every row joins with the sampling rate, on its own; it may be empty."""
    rows = work.examples
    for _ in range(work.plan.steps):
        chosen = choose(work.streams.batches.draw(len(rows)), work.plan.sampling_rate)
        numbers = torch.from_numpy(chosen.nonzero()[0]).to(rows.target.device)
        yield Examples(rows.inputs[numbers], rows.target[numbers])
