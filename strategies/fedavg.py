"""FedAvg: the weighted mean of the sites' models.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-Efficient Learning of Deep Networks from Decentralized
Data", AISTATS 2017, https://arxiv.org/abs/1602.05629, Algorithm 1.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedsim.strategy import State, Strategy, mean_delta


@dataclass(frozen=True)
class FedAvg(Strategy):
    """Federated averaging. No hyperparameters on the server: local steps and learning rate are the scenario's."""

    mean_only: ClassVar = True

    def aggregate(self, center: Tensor, updates: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        """Return ``center + sum_k weights[k] (updates[k] - center)``, the weighted mean when the weights sum to 1."""
        return center + mean_delta(center, updates, weights), state
