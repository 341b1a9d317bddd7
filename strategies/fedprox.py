"""FedProx: averaging, with sites that are held near the global model.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated Optimization in Heterogeneous Networks", MLSys 2020,
https://arxiv.org/abs/1812.06127, Algorithm 2.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedsim.strategy import LocalRule, Parts, State, Strategy, check, mean_delta


@dataclass(frozen=True)
class FedProx(Strategy):
    """``mu`` >= 0: the weight of half the squared distance to the global model in each site's loss."""

    mean_only: ClassVar = True
    mu: float = 0.1

    def __post_init__(self) -> None:
        check(self, mu="[0, inf)")

    def local_rule(self) -> "Proximal":
        """Return what the sites do."""
        return Proximal(self.mu)

    def aggregate(self, center: Tensor, updates: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the weighted mean, as FedAvg does."""
        return center + mean_delta(center, updates, weights), state


@dataclass(frozen=True)
class Proximal(LocalRule):
    """Adds the gradient of ``mu / 2 |w - center|^2``."""

    mu: float

    def begin(self, center: Tensor, kept: State, parts: Parts) -> tuple[Tensor, State]:
        """Start from the global model."""
        return center, {"center": center}

    def correct(self, gradient: Tensor, parameters: Tensor, memory: State, step: int) -> Tensor:
        """Pull towards the global model."""
        return gradient + self.mu * (parameters - memory["center"])
