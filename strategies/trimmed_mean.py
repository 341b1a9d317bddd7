"""Trimmed mean: in every coordinate the mean without the smallest and the largest values.

Yin, Chen, Kannan, Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018,
https://arxiv.org/abs/1803.01498, Definition 2. Every site counts the same.
"""

from dataclasses import dataclass

from torch import Tensor

from fedsim.strategy import State, Strategy, check


@dataclass(frozen=True)
class TrimmedMean(Strategy):
    """``beta`` in [0, 0.5): the share of values that is left out at either end, rounded down to whole sites."""

    beta: float = 0.2

    def __post_init__(self) -> None:
        check(self, beta="[0, 0.5)")

    def aggregate(self, center: Tensor, updates: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the mean over what is left of each coordinate."""
        cut = int(self.beta * len(updates))
        ranked = updates.T.sort(dim=1).values  # (params, sites)
        return ranked[:, cut : len(updates) - cut].mean(1), state
