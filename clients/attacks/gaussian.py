"""Gaussian: send noise of standard deviation ``sigma`` > 0 in each parameter in place of a change.

Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine Learning with Adversaries", NeurIPS 2017, section 6,
https://arxiv.org/abs/1703.02757.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedsim.planning.attack import Attack
from fedsim.strategy import check


@dataclass(frozen=True)
class Gaussian(Attack):
    """``sigma`` > 0: the noise's standard deviation, in units of a parameter."""

    sigma: float = 1.0

    def __post_init__(self) -> None:
        check(self, sigma="(0, inf)")

    def forge(self, center: Tensor, honest: Tensor, sites: int, random: np.random.Generator) -> Tensor:
        """Return the global model plus noise."""
        noise = torch.from_numpy(random.standard_normal(tuple(honest.shape), np.float32)).to(center)
        return center + self.sigma * noise
