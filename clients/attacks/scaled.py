"""Scaled: send the honest change ``factor`` > 0 times as long, so that one site decides.

Bagdasaryan, Veit, Hua, Estrin, Shmatikov, "How To Backdoor Federated Learning", AISTATS 2020,
https://arxiv.org/abs/1807.00459, equation 3 (model replacement), without the backdoor.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fedsim.planning.attack import Attack
from fedsim.strategy import check


@dataclass(frozen=True)
class Scaled(Attack):
    """``factor`` > 0: how many times as long the change is."""

    factor: float = 10.0

    def __post_init__(self) -> None:
        check(self, factor="(0, inf)")

    def forge(self, center: Tensor, honest: Tensor, sites: int, random: np.random.Generator) -> Tensor:
        """Return ``center + factor (honest - center)``."""
        return center + self.factor * (honest - center)
