"""Epsilon estimated from one training with random canaries.

Andrew, Kairouz, Oh, Oprea, McMahan, Suriyakumar 2023, "One-shot empirical privacy estimation for federated learning",
https://arxiv.org/abs/2302.03098, Algorithm 2. It is an estimate, never a bound: it may lie above the truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import root_scalar
from scipy.stats import norm
from torch import Tensor

from fedsim import figures
from fedsim.audits.finding import Measured, Row
from fedsim.randomness import stream

_GRID = np.linspace(-40, 40, 80_001)  # standard deviations over which densities are compared
_MOST = 600.0  # epsilon that can be found


@dataclass(frozen=True)
class OneShot:
    """The estimate by random canaries.

    Attributes:
        estimate: Epsilon against an attacker who sees the sum of all releases, such as the final model; no bound.
        canaries: How many took part.
        size: Parameters of the model they were put into.
    """

    estimate: float
    canaries: int
    size: int

    def measured(self, claimed: float) -> tuple[Measured, ...]:
        """Return the estimate for a finding; it has no interval, so it refutes nothing."""
        return (Measured("final model only", "epsilon", self.estimate, limit=claimed),)

    @property
    def words(self) -> tuple[str, ...]:
        """The estimate for a terminal."""
        return (f"epsilon about {figures.estimated_epsilon(self.estimate)}, no bound; {self.canaries} canaries",)

    @property
    def rows(self) -> tuple[Row, ...]:
        """The estimate for the story's table."""
        hint = "one training with random canaries; no bound"
        return (Row("Estimated, final model only", hint, f"about {figures.estimated_epsilon(self.estimate)}"),)


def estimate(canaries: Tensor, released: Tensor, delta: float) -> OneShot:
    """Estimate epsilon from a release and the canaries that took part.

    A canary that took no part would have a cosine with the release of mean 0 and variance 1 / size: that distribution
    is known, and the distribution for the canaries that took part is fitted.

    Args:
        canaries: Random unit vectors, (canaries, size).
        released: The sum they went into, with noise, (size,).
        delta: The mechanism's.
    """
    size = len(released)
    direction = released / released.norm()
    cosines = (canaries @ direction).double().numpy() * np.sqrt(size)
    epsilon = between(float(cosines.mean()), float(cosines.std(ddof=1)), delta)
    return OneShot(epsilon, len(canaries), size)


def directions_of(canaries: int, size: int, seed: int) -> Tensor:
    """Draw random unit vectors, float32 (canaries, size)."""
    drawn = torch.from_numpy(stream(seed, "one-shot canaries").standard_normal((canaries, size), np.float32))
    return drawn / drawn.norm(dim=1, keepdim=True)


def between(mean: float, deviation: float, delta: float) -> float:
    """Return the least epsilon for which N(0, 1) and N(mean, deviation^2) are (epsilon, delta) close, both ways."""
    without = norm.logpdf(_GRID)
    with_canary = norm.logpdf(_GRID, mean, deviation)
    step = _GRID[1] - _GRID[0]

    def excess(epsilon: float, density: np.ndarray, other: np.ndarray) -> float:
        """Integrate density - e^epsilon x other where it is positive."""
        return np.maximum(0, np.exp(density) - np.exp(np.minimum(epsilon + other, 700))).sum() * step

    def worst(epsilon: float) -> float:
        return max(excess(epsilon, with_canary, without), excess(epsilon, without, with_canary)) - delta

    if worst(0.0) <= 0:
        return 0.0
    return float(root_scalar(worst, bracket=(0.0, _MOST)).root)
