"""Training of one site: a few steps of SGD on Poisson batches, or of DP-SGD with Opacus.

The sampling rate, the denominator of every step, the number of steps and the noise are the scenario's, public values.
None of them follows from how many rows the site has: otherwise the update would tell (PrivacyEngine's would).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsim import catalog
from fedsim.federation import Examples, Federation, Site
from fedsim.mistakes import Mistake
from fedsim.privacy.ledger import Mechanism
from fedsim.randomness import stream, torch_seed
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
    """The randomness of one site in one round."""

    batches: np.random.Generator
    noise: np.random.Generator

    @classmethod
    def of(cls, seed: int, arm: str, site: str, round_number: int) -> Streams:
        """Return the streams by name. Arms share batches, for a fair comparison; no two releases share noise."""
        return cls(
            batches=stream(seed, "batches", site, round_number),
            noise=stream(seed, "noise", arm, site, round_number),
        )


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
    with torch.random.fork_rng(devices=[]):  # layers draw their initial weights from the global generator
        torch.manual_seed(torch_seed(seed, "initial weights"))
        model: nn.Module = catalog.load("tasks", scenario.task).model(site.train.inputs.shape[1])
    buffers = [name for name, _ in model.named_buffers()]
    if buffers:
        raise Mistake(
            f"task {scenario.task}: expected a model without buffers, got {', '.join(buffers)}; "
            "use GroupNorm or LayerNorm in place of BatchNorm"
        )
    return model.to(device)


def train(model: nn.Module, examples: Examples, todo: Plan, streams: Streams) -> Mechanism | None:
    """Train a model in place. Return what was done to the rows, or None if that was not private."""
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    settings = {"lr": todo.optimizer.lr, "weight_decay": todo.optimizer.weight_decay}
    if todo.optimizer.name == "sgd":
        settings["momentum"] = todo.optimizer.momentum
    optimizer = kinds[todo.optimizer.name](model.parameters(), **settings)
    if todo.noise is None:
        _train_plainly(model, optimizer, examples, todo, streams.batches)
        return None
    return _train_privately(model, optimizer, examples, todo, todo.noise, streams)


def _train_plainly(
    model: nn.Module, optimizer: torch.optim.Optimizer, examples: Examples, todo: Plan, batches: np.random.Generator
) -> None:
    for _ in range(todo.steps):
        optimizer.zero_grad()
        batch = poisson_batch(examples, todo.sampling_rate, batches)
        (_summed_loss(model, batch) / todo.expected_batch).backward()
        optimizer.step()


def _train_privately(
    model: nn.Module, optimizer: torch.optim.Optimizer, examples: Examples, todo: Plan, noise: Noise, streams: Streams
) -> Mechanism:
    from opacus import GradSampleModule  # takes two seconds: only private runs wait for it

    from fedsim.privacy.optimizer import SiteOptimizer

    wrapped = GradSampleModule(model, batch_first=True, loss_reduction="sum")
    private = SiteOptimizer(optimizer, noise.multiplier, noise.clip, todo.expected_batch, streams.noise)
    try:
        for _ in range(todo.steps):
            private.zero_grad()
            batch = poisson_batch(examples, todo.sampling_rate, streams.batches)
            with warnings.catch_warnings():  # torch tells Opacus' hooks that the inputs need no gradient: they don't
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                _summed_loss(wrapped, batch).backward()
            private.step()
    finally:
        wrapped.to_standard_module()
    return private.mechanism(todo.sampling_rate)


def poisson_batch(examples: Examples, rate: float, batches: np.random.Generator) -> Examples:
    """Return a batch every row joins with probability ``rate``, on its own; it may be empty."""
    chosen = torch.from_numpy(batches.random(len(examples)) < rate).to(examples.target.device)
    return Examples(examples.inputs[chosen], examples.target[chosen])


def _summed_loss(model: nn.Module, batch: Examples) -> Tensor:
    logits = model(batch.inputs).squeeze(1)
    return functional.binary_cross_entropy_with_logits(logits, batch.target, reduction="sum")
