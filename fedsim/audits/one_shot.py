"""Epsilon estimated from one training with random canaries.

Andrew, Kairouz, Oh, Oprea, McMahan, Suriyakumar 2023, "One-shot empirical privacy estimation for federated learning",
https://arxiv.org/abs/2302.03098, Algorithm 2. It is an estimate, never a bound: it may lie above the truth.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import root_scalar
from scipy.stats import norm
from torch import Tensor, nn

from fedsim.data.federation import Examples
from fedsim.randomness import Words, stream
from fedsim.scenario.schema import Optimizer
from fedsim.training.losses import binary
from fedsim.training.work import Done, Plan, Streams, Work

TrainAll = Callable[[Sequence[Work]], list[Done]]
_SMALL_STEP = 1e-6  # so that no canary's gradient falls below the clip
_LOUD = 1000.0  # a canary's gradient over the clip
_GRID = np.linspace(-40, 40, 80_001)  # standard deviations over which densities are compared


@dataclass(frozen=True)
class OneShot:
    """What random canaries suggest.

    Attributes:
        estimate: Epsilon for one who sees the sum of all that was released, such as the final model; no bound.
        canaries: How many took part.
        size: Parameters of the model they were put into.
    """

    estimate: float
    canaries: int
    size: int


def estimate(canaries: Tensor, released: Tensor, delta: float) -> OneShot:
    """Estimate epsilon from what was released and the canaries that took part.

    A canary that took no part would have a cosine with the release of mean 0 and variance 1 / size: that distribution
    is known, and the one of those that did is fitted.

    Args:
        canaries: Random unit vectors, (canaries, size).
        released: The sum they went into, with noise, (size,).
        delta: The mechanism's.
    """
    size = len(released)
    cosines = (canaries @ (released / released.norm())).double().numpy() * np.sqrt(size)
    return OneShot(between(float(cosines.mean()), float(cosines.std(ddof=1)), delta), len(canaries), size)


def records(todo: Plan, delta: float, canaries: int, size: int, seed: int, train_all: TrainAll) -> OneShot:
    """Train a linear model once on records whose clipped gradients are random directions.

    The plan's sampling, noise, clip and steps are used; the estimate is for one who sees the final model only.
    """
    if todo.noise is None:
        raise ValueError("expected a private plan")
    directions = directions_of(canaries, size, seed)
    rows = Examples(_LOUD * todo.noise.clip * directions, torch.ones(canaries))
    model = nn.Linear(size, 1, bias=False)
    gentle = replace(todo, optimizer=Optimizer(lr=_SMALL_STEP / _LOUD))
    streams = Streams(Words.of(seed, "one-shot batches"), Words.of(seed, "one-shot noise"))
    (done,) = train_all([Work(model, torch.zeros(size), rows, gentle, streams, binary)])
    return estimate(directions, done.parameters, delta)


def directions_of(canaries: int, size: int, seed: int) -> Tensor:
    """Return random unit vectors, float32 (canaries, size)."""
    drawn = torch.from_numpy(stream(seed, "one-shot canaries").standard_normal((canaries, size), np.float32))
    return drawn / drawn.norm(dim=1, keepdim=True)


def between(mean: float, deviation: float, delta: float) -> float:
    """Return the least epsilon for which N(0, 1) and N(mean, deviation^2) are (epsilon, delta) close, both ways."""
    without, with_it = norm.logpdf(_GRID), norm.logpdf(_GRID, mean, deviation)
    step = _GRID[1] - _GRID[0]

    def excess(epsilon: float) -> float:
        above = [
            np.maximum(0, np.exp(one) - np.exp(np.minimum(epsilon + other, 700))).sum() * step
            for one, other in ((with_it, without), (without, with_it))
        ]
        return max(above) - delta

    return float(root_scalar(excess, bracket=(0.0, 600.0)).root) if excess(0.0) > 0 else 0.0
