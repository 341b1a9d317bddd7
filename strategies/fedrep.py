"""FedRep: as FedPer, but a site first trains its own last layers, then the shared ones.

Collins, Hassani, Mokhtari, Shakkottai, "Exploiting Shared Representations for Personalized Federated Learning", ICML
2021, https://arxiv.org/abs/2102.07078, Algorithm 1.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedsim.strategy import PrivateLayers, State, Strategy, check, mean_delta


@dataclass(frozen=True)
class FedRep(Strategy):
    """``head_steps`` >= 1 of a round's local steps go to the private parameters, the others to the shared ones."""

    mean_only: ClassVar = True
    private: str = ""
    head_steps: int = 1
    local_steps: int = 2

    def __post_init__(self) -> None:
        check(self, head_steps="whole [1, 1000000]", local_steps="whole [1, 1000000]")
        if self.head_steps >= self.local_steps:
            raise ValueError(
                f"head_steps: expected fewer than the {self.local_steps} local steps, got {self.head_steps}"
            )

    def local_rule(self) -> PrivateLayers:
        """Return what the sites do."""
        return PrivateLayers(self.private or "last", self.head_steps)

    def aggregate(self, center: Tensor, updates: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the weighted mean; private parameters came back as they were sent, so they stay."""
        return center + mean_delta(center, updates, weights), state
