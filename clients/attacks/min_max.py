"""Min-max: all send the mean of what they trained, moved as far as no honest model is from another.

Shejwalkar, Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for Federated
Learning", NDSS 2021, https://doi.org/10.14722/ndss.2021.24498, section IV-B, against the standard deviation; what
is known are the attackers' own honest models. It takes two attackers.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedsim.planning.attack import Attack


@dataclass(frozen=True)
class MinMax(Attack):
    """No hyperparameters. It takes two attackers."""

    def forge(self, center: Tensor, honest: Tensor, sites: int, random: np.random.Generator) -> Tensor:
        """Return ``mean - gamma std`` with the largest gamma that keeps within the honest models' own distances."""
        mean = honest.mean(0)  # (params,)
        away = -honest.std(0, correction=0)  # (params,)
        limit = torch.cdist(honest, honest).max()

        # gamma lies between low and high, once high is too far.
        low = 0.0
        high = 1.0
        while away.any() and self._farthest(mean + high * away, honest) <= limit:
            low = high
            high = 2 * high

        # Halve the interval that holds it.
        for _ in range(30):
            middle = (low + high) / 2
            if self._farthest(mean + middle * away, honest) <= limit:
                low = middle
            else:
                high = middle
        return (mean + low * away).expand_as(honest)

    def _farthest(self, point: Tensor, honest: Tensor) -> Tensor:
        return (honest - point).norm(dim=1).max()
