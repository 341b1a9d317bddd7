"""FedNova: averaging of each site's change per step, so that a site that takes more steps does not count for more.

Wang, Liu, Liang, Joshi, Poor, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization",
NeurIPS 2020, https://arxiv.org/abs/2007.07481, Algorithm 1, for plain SGD, where ``|a_i|_1`` is the number of steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedsim.strategy import State, Strategy


@dataclass(frozen=True)
class FedNova(Strategy):
    """No hyperparameters. Where all sites take the same steps it is FedAvg; see ``faults.straggler``."""

    reports: ClassVar = ("steps",)
    plain_sgd: ClassVar = True

    def aggregate(
        self, center: Tensor, updates: Tensor, weights: Tensor, state: State, reports: Mapping[str, Tensor]
    ) -> tuple[Tensor, State]:
        """Return ``center + tau_eff sum_k weights[k] delta_k / tau_k`` with ``tau_eff`` the mean number of steps."""
        steps = reports["steps"]  # (sites,)
        effective = (weights @ steps) / weights.sum()
        return center + effective * ((weights / steps) @ (updates - center)), state
