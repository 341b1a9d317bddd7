"""FedAdam: the mean change of the sites' models as a gradient for Adam on the server.

Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan, "Adaptive Federated Optimization", ICLR 2021,
https://arxiv.org/abs/2003.00295, Algorithm 2 (FedAdam): no bias correction, the second moment starts at tau^2.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedsim.strategy import State, Strategy, check, mean_delta, zeros


@dataclass(frozen=True)
class FedAdam(Strategy):
    """Server learning rate ``eta`` > 0, decay of the moments in [0, 1), degree of adaptivity ``tau`` > 0."""

    mean_only: ClassVar = True
    eta: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        check(self, eta="(0, inf)", beta_1="[0, 1)", beta_2="[0, 1)", tau="(0, inf)")

    def aggregate(self, center: Tensor, updates: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        """Return ``center + eta m / (sqrt(v) + tau)``."""
        delta = mean_delta(center, updates, weights)  # (params,)
        m = self.beta_1 * zeros(state, "m", center) + (1 - self.beta_1) * delta
        v = self.beta_2 * state.get("v", torch.full_like(center, self.tau**2)) + (1 - self.beta_2) * delta**2
        return center + self.eta * m / (v.sqrt() + self.tau), {"m": m, "v": v}
