"""Norm bound: the mean of the sites' changes, each clipped to a norm.

Sun, Kairouz, Suresh, McMahan, "Can You Really Backdoor Federated Learning?", 2019, https://arxiv.org/abs/1911.07963,
section 4 (norm thresholding), without its noise.
"""

from dataclasses import dataclass

from torch import Tensor

from fedsim.strategy import State, Strategy, check


@dataclass(frozen=True)
class NormBound(Strategy):
    """``bound`` > 0: the largest norm of one site's change, in units of an update."""

    bound: float = 1.0

    def __post_init__(self) -> None:
        check(self, bound="(0, inf)")

    def aggregate(self, center: Tensor, updates: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        """Return ``center + sum_k weights[k] delta_k min(1, bound / |delta_k|)``."""
        deltas = updates - center  # (sites, params)
        shrink = (self.bound / deltas.norm(dim=1)).clamp(max=1.0)  # (sites,)
        return center + (weights * shrink) @ deltas, state
