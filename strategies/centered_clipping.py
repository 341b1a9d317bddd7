"""Centered clipping: the mean of the sites' changes, each clipped around the one of the round before.

Karimireddy, He, Jaggi, "Learning from History for Byzantine Robust Optimization", ICML 2021,
https://arxiv.org/abs/2012.10333, Algorithm 2 and equation 2. The sites' own momentum is left to their optimizer.
"""

from dataclasses import dataclass

from torch import Tensor

from fedsim.strategy import State, Strategy, check, zeros


@dataclass(frozen=True)
class CenteredClipping(Strategy):
    """``tau`` > 0: the largest distance that counts, in units of an update; ``iterations`` >= 1 of clipping."""

    tau: float = 1.0
    iterations: int = 1

    def __post_init__(self) -> None:
        check(self, tau="(0, inf)", iterations="whole [1, 10000]")

    def aggregate(self, center: Tensor, updates: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        """Return ``center + v`` with ``v = v + sum_k weights[k] (delta_k - v) min(1, tau / |delta_k - v|)``."""
        deltas = updates - center  # (sites, params)
        v = zeros(state, "v", center)  # (params,)
        for _ in range(self.iterations):
            around = deltas - v  # (sites, params)
            shrink = (self.tau / around.norm(dim=1)).clamp(max=1.0)  # (sites,)
            v = v + (weights * shrink) @ around
        return center + v, {"v": v}
