"""RFA: the geometric median of the sites' models, the point with the least sum of distances to them.

Pillutla, Kakade, Harchaoui, "Robust Aggregation for Federated Learning", IEEE Transactions on Signal Processing 70,
2022, https://arxiv.org/abs/1912.13445, Algorithm 2 (smoothed Weiszfeld).
"""

from dataclasses import dataclass

from torch import Tensor

from fedsim.strategy import State, Strategy, check


@dataclass(frozen=True)
class GeometricMedian(Strategy):
    """``iterations`` >= 1 of Weiszfeld's method; ``nu`` > 0: the least distance that counts, in units of an update."""

    iterations: int = 20
    nu: float = 1e-6

    def __post_init__(self) -> None:
        check(self, iterations="whole [1, 10000]", nu="(0, inf)")

    def aggregate(self, center: Tensor, updates: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the point that the iterations reach from the weighted mean."""
        shares = weights / weights.sum()  # (sites,)
        deltas = updates - center  # (sites, params)
        point = shares @ deltas  # (params,)
        for _ in range(self.iterations):
            distances = (deltas - point).norm(dim=1).clamp(min=self.nu)  # (sites,)
            pull = shares / distances
            point = (pull / pull.sum()) @ deltas
        return center + point, state
