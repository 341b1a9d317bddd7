"""Ditto: averaging, and beside it a model for each site that is held near the global one.

Li, Hu, Beirami, Smith, "Ditto: Fair and Robust Federated Learning Through Personalization", ICML 2021,
https://arxiv.org/abs/2012.04221, Algorithm 1. The personal model takes as many steps in a round as the global one, from
batches of its own.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedsim.strategy import Parts, Personal, State, Strategy, check, mean_delta


@dataclass(frozen=True)
class Ditto(Strategy):
    """``lambda_`` >= 0: how strongly the personal model is held near the global one; 0 is each site alone."""

    mean_only: ClassVar = True
    lambda_: float = 0.1

    def __post_init__(self) -> None:
        check(self, lambda_="[0, inf)")

    def second_rule(self) -> "Beside":
        """Return what the sites do for their own, in steps of its own."""
        return Beside(self.lambda_)

    def aggregate(self, center: Tensor, updates: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the weighted mean, as FedAvg does."""
        return center + mean_delta(center, updates, weights), state


@dataclass(frozen=True)
class Beside(Personal):
    """Adds the gradient of ``lambda / 2 |v - center|^2`` to the personal model's steps."""

    lambda_: float

    def begin(self, center: Tensor, kept: State, parts: Parts) -> tuple[Tensor, State]:
        """Go on from the personal model."""
        return kept.get("personal", center), {"center": center}

    def correct(self, gradient: Tensor, parameters: Tensor, memory: State, step: int) -> Tensor:
        """Pull towards the global model."""
        return gradient + self.lambda_ * (parameters - memory["center"])

    def finish(self, parameters: Tensor, memory: State, steps: int) -> tuple[Tensor, State]:
        """Keep the personal model."""
        return memory["center"], {"personal": parameters}

    def personal(self, center: Tensor, kept: State) -> Tensor:
        """Return the personal model."""
        return kept.get("personal", center)
