"""What training minimizes, row by row: the negative log likelihood of each kind of target, or its squared error."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from fedsim.scenario.kinds import Kind

RowLosses = Callable[[Tensor, Tensor], Tensor]
"""From a model's outputs (rows, outputs) and the targets (rows,) to each row's loss (rows,)."""


def binary(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the log loss of logits (rows, 1) against 0 and 1, float32 (rows,)."""
    return functional.binary_cross_entropy_with_logits(outputs.squeeze(1), target, reduction="none")


def classes(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the cross entropy of logits (rows, classes) against class numbers, int64 (rows,)."""
    return functional.cross_entropy(outputs, target, reduction="none")


def number(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the squared error of outputs (rows, 1) against numbers in [-1, 1], float32 (rows,)."""
    return (outputs.squeeze(1) - target).square()


LOSSES: dict[Kind, RowLosses] = {"binary": binary, "classes": classes, "number": number}
