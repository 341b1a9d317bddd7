"""Median: in every coordinate the median of the sites' models.

Yin, Chen, Kannan, Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018,
https://arxiv.org/abs/1803.01498, Definition 1. Every site counts the same.
"""

from dataclasses import dataclass

from torch import Tensor

from fedsim.strategy import State, Strategy


@dataclass(frozen=True)
class Median(Strategy):
    """The coordinate-wise median. It withstands fewer than half of the sites."""

    def aggregate(self, center: Tensor, updates: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the median over the sites; the mean of the two in the middle when their number is even."""
        return median(updates), state


def median(updates: Tensor) -> Tensor:
    """Return the median of each column of (sites, params), (params,)."""
    sites = len(updates)
    low = updates.kthvalue((sites + 1) // 2, dim=0).values  # (params,)
    if sites % 2:
        return low
    high = updates.kthvalue(sites // 2 + 1, dim=0).values  # (params,)
    return (low + high) / 2
