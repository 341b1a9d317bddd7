"""The losses that training minimizes: negative log likelihoods, or the squared error."""

from typing import Protocol

from torch import Tensor
from torch.nn import functional

from fedsim.scenario.kinds import Kind


class RowLosses(Protocol):
    """A loss function that keeps rows apart."""

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return each row's loss, (rows,).

        The outputs are a model's, (rows, outputs), and the targets (rows,).
        """
        ...


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
