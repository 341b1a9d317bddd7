"""Sign flip: send the opposite of the honest change, ``factor`` > 0 times as long.

Li, Xu, Chen, Giannakis, Ling, "RSA: Byzantine-Robust Stochastic Aggregation Methods for Distributed Learning", AAAI
2019, https://arxiv.org/abs/1811.03761.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fedsim.planning.attack import Attack
from fedsim.strategy import check


@dataclass(frozen=True)
class SignFlip(Attack):
    """``factor`` > 0: how many times as long the opposite is."""

    factor: float = 1.0

    def __post_init__(self) -> None:
        check(self, factor="(0, inf)")

    def forge(self, center: Tensor, honest: Tensor, sites: int, random: np.random.Generator) -> Tensor:
        """Return ``center - factor (honest - center)``."""
        return center - self.factor * (honest - center)
