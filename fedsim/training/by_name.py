"""Unpack the inputs of a row at the door of a model that takes them by name."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedsim.data.inputs import Input


class ByName(nn.Module):
    """A model whose rows are packed, (rows, numbers).

    Args:
        model: Takes its inputs by name: ``forward(image, table)``.
        inputs: The inputs, in the order in which they are packed.
    """

    def __init__(self, model: nn.Module, inputs: Sequence[Input]) -> None:
        super().__init__()
        self.model = model
        self.inputs = tuple(inputs)

    def forward(self, packed: Tensor) -> Tensor:
        """Compute the outputs, (rows, ...)."""
        parts = packed.split([declared.size for declared in self.inputs], 1)
        by_name = {}
        for declared, part in zip(self.inputs, parts, strict=True):
            by_name[declared.name] = _unpacked(declared, part.reshape(len(packed), *declared.shape))
        return self.model(**by_name)

    def made_up(self, count: int) -> Tensor:
        """Make rows to try the model on, (count, numbers), so that nobody's row is used."""
        random = torch.Generator().manual_seed(0)
        parts = []
        for declared in self.inputs:
            if declared.mask:
                part = torch.ones(count, declared.size)
            elif declared.whole is not None:
                part = torch.randint(declared.whole, (count, declared.size), generator=random).float()
            else:
                part = torch.randn(count, declared.size, generator=random)
            parts.append(part)
        return torch.cat(parts, 1)


def _unpacked(declared: Input, values: Tensor) -> Tensor:
    """Return an input in the type that the model takes."""
    if declared.mask:
        return values > 0.5
    if declared.whole is not None:
        # A row of zeros fills batches up, and rounding moves no whole number.
        return values.round().long().clamp(0, declared.whole - 1)
    return values
