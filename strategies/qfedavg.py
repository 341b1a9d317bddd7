"""q-FedAvg: averaging that gives sites with a high loss more weight, so that losses are more alike.

Li, Sanjabi, Beirami, Smith, "Fair Resource Allocation in Federated Learning", ICLR 2020,
https://arxiv.org/abs/1905.10497, Algorithm 2. The sum over sites is weighted; the paper's is not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedsim.strategy import State, Strategy, check


@dataclass(frozen=True)
class QFedAvg(Strategy):
    """``q`` >= 0: 0 is averaging, more is fairer; ``lr`` > 0 is the sites' learning rate, 1 / L in the paper."""

    reports: ClassVar = ("loss",)
    q: float = 0.2
    lr: float = 0.1

    def __post_init__(self) -> None:
        check(self, q="[0, inf)", lr="(0, inf)")

    def aggregate(
        self, center: Tensor, updates: Tensor, weights: Tensor, state: State, reports: Mapping[str, Tensor]
    ) -> tuple[Tensor, State]:
        """Return ``center - sum Delta_k / sum h_k``."""
        loss = reports["loss"].clamp(min=1e-10)  # (sites,): F_k at the center
        gradients = (center - updates) / self.lr  # (sites, params)
        steepness = self.q * loss ** (self.q - 1) * gradients.square().sum(1) + loss**self.q / self.lr  # h_k, (sites,)
        return center - (weights * loss**self.q) @ gradients / (weights @ steepness), state
