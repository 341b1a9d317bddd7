"""FedAvgM: averaging with momentum on the server.

Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification", 2019,
https://arxiv.org/abs/1909.06335, section 4.3.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedsim.strategy import State, Strategy, check, mean_delta, zeros


@dataclass(frozen=True)
class FedAvgM(Strategy):
    """Momentum ``beta`` in [0, 1), server learning rate ``eta`` > 0."""

    mean_only: ClassVar = True
    beta: float = 0.9
    eta: float = 1.0

    def __post_init__(self) -> None:
        check(self, beta="[0, 1)", eta="(0, inf)")

    def aggregate(self, center: Tensor, updates: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        """Return ``center + eta v`` with ``v = beta v + mean delta``."""
        v = self.beta * zeros(state, "v", center) + mean_delta(center, updates, weights)  # (params,)
        return center + self.eta * v, {"v": v}
