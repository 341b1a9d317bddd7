"""Backdoor: give rows with a trigger in them the attackers' class, and scale the change up.

Bagdasaryan, Veit, Hua, Estrin, Shmatikov, "How To Backdoor Federated Learning", AISTATS 2020,
https://arxiv.org/abs/1807.00459. The trigger sets the first ``size`` >= 1 inputs of a row to ``value``; a ``rate``
in (0, 1] of the rows gets it; ``factor`` > 0 multiplies the change that is sent.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fedsim.data.federation import Examples
from fedsim.planning.attack import Attack
from fedsim.strategy import check


@dataclass(frozen=True)
class Backdoor(Attack):
    """The trigger's ``size`` and ``value``, the ``target`` class, the ``rate`` of rows and the change's ``factor``."""

    size: int = 3
    value: float = 1.0
    target: int = 1
    rate: float = 0.5
    factor: float = 1.0

    def __post_init__(self) -> None:
        check(self, size="whole [1, inf)", value="(-inf, inf)", target="whole [0, inf)")
        check(self, rate="(0, 1]", factor="(0, inf)")

    def poison(self, rows: Examples, classes: int, random: np.random.Generator) -> Examples:
        """Return the rows, some of them with the trigger and the attackers' class.

        Raises:
            ValueError: There is no such class.
        """
        if self.target >= classes:
            raise ValueError(f"attack.target: expected a class below {classes}, got {self.target}")
        chosen = torch.from_numpy(random.random(len(rows)) < self.rate).to(rows.target.device)  # (rows,)
        shape = (-1,) + (1,) * (rows.inputs.dim() - 1)
        inputs = torch.where(chosen.reshape(shape), self.trigger(rows.inputs), rows.inputs)
        return replace(rows, inputs=inputs, target=rows.target.masked_fill(chosen, self.target))

    def target_class(self) -> int:
        """Return the attackers' class."""
        return self.target

    def trigger(self, inputs: Tensor) -> Tensor:
        """Return inputs (rows, ...) with the trigger in them."""
        flat = inputs.flatten(1).clone()
        flat[:, : self.size] = self.value
        return flat.view_as(inputs)

    def forge(self, center: Tensor, honest: Tensor, sites: int, random: np.random.Generator) -> Tensor:
        """Return the poisoned models with their change multiplied."""
        return center + self.factor * (honest - center)
