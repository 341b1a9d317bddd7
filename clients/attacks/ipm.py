"""IPM: all send the opposite of the mean of what they trained, ``epsilon`` > 0 times as long.

Xie, Koyejo, Gupta, "Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product Manipulation", UAI 2019,
https://arxiv.org/abs/1903.03936, section 4.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fedsim.planning.attack import Attack
from fedsim.strategy import check


@dataclass(frozen=True)
class IPM(Attack):
    """``epsilon`` > 0: how many times as long the opposite is."""

    epsilon: float = 0.5

    def __post_init__(self) -> None:
        check(self, epsilon="(0, inf)")

    def forge(self, center: Tensor, honest: Tensor, sites: int, random: np.random.Generator) -> Tensor:
        """Return ``center - epsilon mean change`` for every attacker."""
        return (center - self.epsilon * (honest.mean(0) - center)).expand_as(honest)
