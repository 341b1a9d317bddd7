"""SCAFFOLD: averaging, with steps corrected by how a site's gradients differ from everybody's.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning",
ICML 2020, https://arxiv.org/abs/1910.06378, Algorithm 1, option II.

A site's ``c_i+ - c_i`` is ``-c - (y_i - x) / (K lr)``, which the server can compute itself: a site sends its model and
nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedsim.strategy import LocalRule, Parts, State, Strategy, check, zeros


@dataclass(frozen=True)
class Scaffold(Strategy):
    """SCAFFOLD's server.

    ``eta`` > 0 is the server's learning rate, ``lr`` the sites', and ``participation`` in (0, 1] the share of all
    sites' weight that a round's sites have; the adapter sets it anew in each round. Then ``c`` is always the mean of
    all ``c_i``, each by its share of all weight, and the weighted optimum is where nothing moves any more, whoever is
    asked.
    """

    reports: ClassVar = ("steps",)
    tells: ClassVar = ("c",)
    plain_sgd: ClassVar = True
    eta: float = 1.0
    lr: float = 0.1
    participation: float = 1.0

    def __post_init__(self) -> None:
        check(self, eta="(0, inf)", lr="(0, inf)", participation="(0, 1]")

    def local_rule(self) -> "ControlVariate":
        """Return what the sites do."""
        return ControlVariate(self.lr)

    def aggregate(
        self, center: Tensor, updates: Tensor, weights: Tensor, state: State, reports: Mapping[str, Tensor]
    ) -> tuple[Tensor, State]:
        """Return ``center + eta mean delta``, and c moved by the mean change of the sites' control variates."""
        deltas = updates - center  # (sites, params)
        c = zeros(state, "c", center)  # (params,)
        per_step = (weights / (reports["steps"] * self.lr)) @ deltas  # (params,)

        # participation * weights[k] is site k's share of all weight: c += sum_k p_k (c_k+ - c_k).
        moved = self.participation * (weights.sum() * c + per_step)
        return center + self.eta * (weights @ deltas), {"c": c - moved}


@dataclass(frozen=True)
class ControlVariate(LocalRule):
    """A site's own control variate c_i is kept; the server tells c."""

    lr: float

    def begin(self, center: Tensor, kept: State, parts: Parts) -> tuple[Tensor, State]:
        """Start from the global model."""
        return center, {"center": center, "own": zeros(kept, "own", center), "c": zeros(kept, "c", center)}

    def correct(self, gradient: Tensor, parameters: Tensor, memory: State, step: int) -> Tensor:
        """Step along ``g - c_i + c``."""
        return gradient - memory["own"] + memory["c"]

    def finish(self, parameters: Tensor, memory: State, steps: int) -> tuple[Tensor, State]:
        """Send all, keep ``c_i - c + (x - y) / (K lr)``."""
        mean_gradient = (memory["center"] - parameters) / (steps * self.lr)
        return parameters, {"own": memory["own"] - memory["c"] + mean_gradient}
