"""AFL: the model for the worst mixture of sites, whose shares follow the losses.

Mohri, Sivek, Suresh, "Agnostic Federated Learning", ICML 2019, https://arxiv.org/abs/1902.00146, section 4.2
(Stochastic-AFL), with a site's change over its local steps in place of one gradient.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedsim.strategy import State, Strategy, check


@dataclass(frozen=True)
class AFL(Strategy):
    """``gamma`` > 0: the step of the shares up the losses. All sites must answer in every round."""

    reports: ClassVar = ("loss",)
    gamma: float = 0.1

    def __post_init__(self) -> None:
        check(self, gamma="(0, inf)")

    def aggregate(
        self, center: Tensor, updates: Tensor, weights: Tensor, state: State, reports: Mapping[str, Tensor]
    ) -> tuple[Tensor, State]:
        """Return ``center + sum_k share_k delta_k``, and the shares for the next round.

        Raises:
            ValueError: Not the sites of the rounds before.
        """
        shares = state.get("shares", weights / weights.sum())  # (sites,)
        if len(shares) != len(updates):
            raise ValueError(f"AFL: expected updates of all {len(shares)} sites in every round, got {len(updates)}")
        new = center + shares @ (updates - center)
        return new, {"shares": onto_simplex(shares + self.gamma * reports["loss"])}


def onto_simplex(vector: Tensor) -> Tensor:
    """Return the nearest vector of numbers >= 0 that sum to 1 (Wang and Carreira-Perpiñán 2013, Algorithm 1)."""
    falling = vector.sort(descending=True).values
    excess = (falling.cumsum(0) - 1) / torch.arange(1, len(vector) + 1).to(vector)
    return (vector - excess[(falling > excess).sum() - 1]).clamp(min=0.0)
