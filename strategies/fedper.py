"""FedPer: averaging of the first layers; the last ones are each site's own and never leave it.

Arivazhagan, Aggarwal, Singh, Choudhary, "Federated Learning with Personalization Layers", 2019,
https://arxiv.org/abs/1912.00818, Algorithms 1 and 2.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedsim.strategy import PrivateLayers, State, Strategy, mean_delta


@dataclass(frozen=True)
class FedPer(Strategy):
    """``private``: names of the private parameters, with ``*``, e.g. ``*bias``; by default those of the last layer."""

    mean_only: ClassVar = True
    private: str = ""

    def local_rule(self) -> PrivateLayers:
        """Return what the sites do."""
        return PrivateLayers(self.private or "last")

    def aggregate(self, center: Tensor, updates: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the weighted mean; private parameters came back as they were sent, so they stay."""
        return center + mean_delta(center, updates, weights), state
