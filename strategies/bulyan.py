"""Bulyan: Krum again and again to choose models, then the mean of what is near the median in every coordinate.

El Mhamdi, Guerraoui, Rouault, "The Hidden Vulnerability of Distributed Learning in Byzantium", ICML 2018,
https://arxiv.org/abs/1802.07927, section 4.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedsim.strategy import State, Strategy, check
from strategies.krum import least, squared_distances


@dataclass(frozen=True)
class Bulyan(Strategy):
    """``f`` >= 0: how many sites may be malicious. It takes n >= 4 f + 3 sites."""

    f: int = 1

    def __post_init__(self) -> None:
        check(self, f="whole [0, inf)")

    def aggregate(self, center: Tensor, updates: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the mean of the n - 4 f values nearest to the median of n - 2 f chosen updates, in each coordinate.

        Raises:
            ValueError: Fewer than 4 f + 3 updates came.
        """
        n = len(updates)
        f = self.f
        if n < 4 * f + 3:
            raise ValueError(
                f"Bulyan: expected n >= 4 f + 3 = {4 * f + 3} updates for f = {f} malicious ones, got n = {n}"
            )

        deltas = updates - center  # (sites, params)
        chosen = deltas[_choose(squared_distances(deltas), f, n - 2 * f)]  # (n - 2 f, params)
        ranked = chosen.T.sort(dim=1).values  # (params, n - 2 f)
        return center + _mean_near_median(ranked, n - 4 * f).to(center.dtype), state


def _mean_near_median(ranked: Tensor, count: int) -> Tensor:
    """Return the mean of the ``count`` values nearest to each row's median; rows are ascending, (params, chosen).

    They lie side by side, so it is the window whose farther end is nearest.
    """
    chosen = ranked.shape[1]
    middle = (ranked[:, (chosen - 1) // 2] + ranked[:, chosen // 2])[:, None] / 2  # (params, 1)
    low = ranked[:, : chosen - count + 1]  # the ends of every window, (params, windows)
    high = ranked[:, count - 1 :]
    first = torch.maximum(middle - low, high - middle).argmin(1, keepdim=True)  # (params, 1)
    sums = torch.nn.functional.pad(ranked.double().cumsum(1), (1, 0))  # (params, chosen + 1)
    return ((sums.gather(1, first + count) - sums.gather(1, first)) / count)[:, 0]


def _choose(distances: Tensor, f: int, count: int) -> Tensor:
    """Return which rows Krum chooses when it is repeated on those that are left, (count,)."""
    left = torch.arange(len(distances), device=distances.device)
    total = distances.nan_to_num(posinf=0.0).sum(1)  # of the distances to those left, where they are finite
    ranked, order = distances.clone().fill_diagonal_(torch.inf).sort(dim=1)  # of each left, the others, nearest first
    chosen = []
    for _ in range(count):
        best = left[least(ranked[:, : max(1, len(left) - f - 2)].sum(1), total[left])]
        chosen.append(best)
        total -= distances[best].nan_to_num(posinf=0.0)

        # Take it out of the rows, and out of each row's neighbours.
        others = left != best
        stay = order != best
        shape = (len(left), len(left) - 1)
        ranked = ranked[stay].view(shape)[others]
        order = order[stay].view(shape)[others]
        left = left[others]
    return torch.stack(chosen).sort().values
