"""ALIE: all send the mean of what they trained, moved by just so many standard deviations that it passes.

Baruch, Baruch, Goldberg, "A Little Is Enough: Circumventing Defenses For Distributed Learning", NeurIPS 2019,
https://arxiv.org/abs/1902.06156, Algorithm 3. ``z`` >= 0; 0 for the paper's largest value that hides. It takes two
attackers, or there is no standard deviation.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedsim.planning.attack import Attack
from fedsim.strategy import check


@dataclass(frozen=True)
class ALIE(Attack):
    """``z`` >= 0: how many standard deviations; 0 for the largest number that hides."""

    z: float = 0.0

    def __post_init__(self) -> None:
        check(self, z="[0, inf)")

    def forge(self, center: Tensor, honest: Tensor, sites: int, random: np.random.Generator) -> Tensor:
        """Return ``mean - z std`` for every attacker."""
        spread = honest.std(0, correction=0)  # (params,)
        z = self.z or hidden(sites, len(honest))
        return (honest.mean(0) - z * spread).expand_as(honest)


def hidden(sites: int, attackers: int) -> float:
    """Return the largest z with enough honest sites farther out than z standard deviations to make a majority."""
    supporters = sites // 2 + 1 - attackers
    honest = sites - attackers
    share = 0.5
    if honest:
        share = min(max((honest - supporters) / honest, 0.5), 1 - 1e-6)
    return float(torch.special.ndtri(torch.tensor(share, dtype=torch.float64)))
