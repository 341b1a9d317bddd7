"""FedBN: averaging of all but the normalization layers, which are each site's own.

Li, Jiang, Zhang, Kamp, Dou, "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization", ICLR 2021,
https://arxiv.org/abs/2102.07623, Algorithm 1; with LayerNorm or GroupNorm, since BatchNorm mixes rows.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedsim.strategy import PrivateLayers, State, Strategy, mean_delta


@dataclass(frozen=True)
class FedBN(Strategy):
    """No hyperparameters. The model must have a normalization layer."""

    mean_only: ClassVar = True

    def local_rule(self) -> PrivateLayers:
        """Return what the sites do."""
        return PrivateLayers("norm")

    def aggregate(self, center: Tensor, updates: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the weighted mean; private parameters came back as they were sent, so they stay."""
        return center + mean_delta(center, updates, weights), state
