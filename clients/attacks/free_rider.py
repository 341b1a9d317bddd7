"""Free rider: send the global model back, plus noise of ``sigma`` >= 0 to hide that nothing was trained.

Fraboni, Vidal, Lorenzi, "Free-rider Attacks on Model Aggregation in Federated Learning", AISTATS 2021,
https://arxiv.org/abs/2006.11901, section 3.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedsim.planning.attack import Attack
from fedsim.strategy import check


@dataclass(frozen=True)
class FreeRider(Attack):
    """``sigma`` >= 0: the standard deviation of the disguise, in units of a parameter."""

    sigma: float = 0.0

    def __post_init__(self) -> None:
        check(self, sigma="[0, inf)")

    def forge(self, center: Tensor, honest: Tensor, sites: int, random: np.random.Generator) -> Tensor:
        """Return the global model, disguised."""
        noise = torch.from_numpy(random.standard_normal(tuple(honest.shape), np.float32)).to(center)
        return center + self.sigma * noise
