"""Label flip: train on wrong labels, class c as the last class minus c.

Tolpegin, Truex, Gursoy, Liu, "Data Poisoning Attacks Against Federated Learning Systems", ESORICS 2020,
https://arxiv.org/abs/2007.08432; all classes at once.
"""

from dataclasses import dataclass, replace

import numpy as np

from fedsim.data.federation import Examples
from fedsim.planning.attack import Attack


@dataclass(frozen=True)
class LabelFlip(Attack):
    """No hyperparameters. The task must have classes."""

    def poison(self, rows: Examples, classes: int, random: np.random.Generator) -> Examples:
        """Return the rows with their labels turned around."""
        return replace(rows, target=classes - 1 - rows.target)
