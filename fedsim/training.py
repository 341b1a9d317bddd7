"""Training of one site: a few steps of SGD on Poisson batches, or of DP-SGD with Opacus.

The sampling rate, the denominator of every step, the number of steps and the noise are the scenario's, public values.
None of them follows from how many rows the site has: otherwise the update would tell (PrivacyEngine's would).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsim import catalog
from fedsim.federation import Examples, Federation, Site
from fedsim.mistakes import Mistake
from fedsim.privacy.ledger import Mechanism
from fedsim.randomness import global_seed, stream, torch_seed
from fedsim.scenario import Optimizer, Scenario


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

    batches: np.random.Generator
    noise: np.random.Generator
    layers: int = 0

    @classmethod
    def of(cls, scenario: Scenario, seed: int, arm: str, site: str, round_number: int) -> Streams:
        """Return the streams by name.

        Arms and variants of a scenario share batches, for a fair comparison. No two releases share noise: its name
        holds all that shapes the release, or two runs that differ in epsilon alone could be subtracted.
        """
        release = scenario.model_dump_json(include={"task", "partition", "split", "training", "strategy", "privacy"})
        return cls(
            batches=stream(seed, "batches", site, round_number),
            noise=stream(seed, "noise", release, arm, site, round_number),
            layers=torch_seed(seed, "layers", site, round_number),
        )


@dataclass(frozen=True)
class Work:
    """One site's task in one round: the model that came, the site's rows, what to do, and the randomness for it."""

    model: nn.Module
    examples: Examples
    plan: Plan
    streams: Streams


def expected_batches(scenario: Scenario, federation: Federation) -> dict[str, float]:
    """Return {site: expected batch}, which also is the site's public weight in the aggregation.

    Raises:
        Mistake: The scenario's table names other sites than there are.
    """
    declared = scenario.training.expected_batch
    names = [site.name for site in federation.sites]
    if isinstance(declared, dict):
        if sorted(declared) != sorted(names):
            raise Mistake(
                f"training.expected_batch: expected one number for each of {', '.join(names)}, "
                f"got them for {', '.join(declared)}"
            )
        return dict(declared)
    return dict.fromkeys(names, float(declared))


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


def check_rows_are_alone(model: nn.Module, examples: Examples) -> None:
    """Make sure that a row's output does not depend on the rows beside it; without that, clipping bounds nothing.

    Raises:
        Mistake: It does depend on them, or the model can't take a batch of no rows.
    """
    random = torch.Generator().manual_seed(0)
    shape = examples.inputs.shape[1:]
    if examples.inputs.is_floating_point():
        rows = torch.randn(4, *shape, generator=random).to(examples.inputs)
    else:
        rows = examples.inputs[:4]
    model.eval()
    with torch.no_grad():
        together, alone = model(rows), [model(rows[index : index + 1]) for index in range(len(rows))]
        try:
            model(rows[:0])
        except Exception as error:
            raise Mistake(f"task: expected a model that takes a batch of no rows, got {error}") from None
    if len(rows) and not torch.allclose(together, torch.cat(alone), rtol=1e-4, atol=1e-5):
        raise Mistake(
            "task: expected a model whose output for a row depends on that row alone, got one that mixes rows"
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
        model: nn.Module = catalog.load("tasks", scenario.task).model(site.train.inputs.shape[1])
    for name, layer in model.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) or [*layer.buffers(recurse=False)]:
            raise Mistake(
                f"task {scenario.task}: expected layers that treat each row alone and have no buffers, got "
                f"{type(layer).__name__} ({name}); use GroupNorm or LayerNorm in place of BatchNorm"
            )
    return model.to(device)


def train(work: Work) -> Mechanism | None:
    """Train a work's model in place. Return what was done to the rows, or None if that was not private."""
    optimizer = new_optimizer(work.plan.optimizer, work.model.parameters())
    work.model.train()
    with global_seed(work.streams.layers):  # dropout draws from the global generator
        if work.plan.noise is None:
            _train_plainly(work, optimizer)
            return None
        return _train_privately(work, work.plan.noise, optimizer)


def new_optimizer(chosen: Optimizer, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """Return the torch optimizer a scenario names."""
    if chosen.name == "adam":
        return torch.optim.Adam(parameters, lr=chosen.lr, weight_decay=chosen.weight_decay)
    return torch.optim.SGD(parameters, lr=chosen.lr, momentum=chosen.momentum, weight_decay=chosen.weight_decay)


def _train_plainly(work: Work, optimizer: torch.optim.Optimizer) -> None:
    for _ in range(work.plan.steps):
        optimizer.zero_grad()
        batch = poisson_batch(work.examples, work.plan.sampling_rate, work.streams.batches)
        (_summed_loss(work.model, batch) / work.plan.expected_batch).backward()
        optimizer.step()


def _train_privately(work: Work, noise: Noise, optimizer: torch.optim.Optimizer) -> Mechanism:
    from opacus import GradSampleModule  # takes two seconds: only private runs wait for it

    from fedsim.privacy.optimizer import SiteOptimizer

    wrapped = GradSampleModule(work.model, batch_first=True, loss_reduction="sum")
    private = SiteOptimizer(optimizer, noise.multiplier, noise.clip, work.plan.expected_batch, work.streams.noise)
    try:
        for _ in range(work.plan.steps):
            private.zero_grad()
            batch = poisson_batch(work.examples, work.plan.sampling_rate, work.streams.batches)
            with warnings.catch_warnings():  # torch tells Opacus' hooks that the inputs need no gradient: they don't
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                _summed_loss(wrapped, batch).backward()
            private.rows = len(batch)
            private.step()
    finally:
        wrapped.to_standard_module()
    return private.mechanism(work.plan.sampling_rate)


def poisson_batch(examples: Examples, rate: float, batches: np.random.Generator) -> Examples:
    """Return a batch every row joins with probability ``rate``, on its own; it may be empty."""
    chosen = torch.from_numpy(batches.random(len(examples)) < rate).to(examples.target.device)
    return Examples(examples.inputs[chosen], examples.target[chosen])


def _summed_loss(model: nn.Module, batch: Examples) -> Tensor:
    logits = model(batch.inputs).squeeze(1)
    return functional.binary_cross_entropy_with_logits(logits, batch.target, reduction="sum")
