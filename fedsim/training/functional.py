"""Running a model with other parameters than its own."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call


def outputs_with(model: nn.Module, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Run a model with the given parameters in place of its own, which stay as they are.

    Where a model uses a layer twice, ``torch.func.functional_call`` alone does not restore the
    layer's parameters: it swaps them once for each of the layer's names. Here each layer is given
    its parameters once.

    Args:
        model: The architecture.
        parameters: {name: value} for names of ``model.named_parameters()``; frozen parameters may be left out.
        inputs: Rows, (rows, ...).

    Returns:
        The outputs, (rows, ...).
    """
    own = dict(model.named_parameters())
    values = {id(own[name]): value for name, value in parameters.items()}
    given = {}
    for prefix, layer in model.named_modules():  # each layer once, under its first name
        for name, parameter in layer.named_parameters(recurse=False, remove_duplicate=False):
            full_name = f"{prefix}.{name}" if prefix else name
            if id(parameter) in values:
                given[full_name] = values[id(parameter)]
    return functional_call(model, given, (inputs,), tie_weights=False)


_LARGE = 2**20  # parameters of a model that keeps much of each row
_ROWS_OF_LARGE = 2**7


def rows_at_once(model: nn.Module, usual: int) -> int:
    """Return how many rows go through a model at once: as many as usual, or few where it is large."""
    return min(usual, _ROWS_OF_LARGE) if _is_large(model) else usual


def in_batches(model: nn.Module, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Run a model as ``outputs_with`` does; a large one on few rows at once, since it keeps much of each."""
    if not _is_large(model) or len(inputs) <= _ROWS_OF_LARGE:
        return outputs_with(model, parameters, inputs)
    return torch.cat([outputs_with(model, parameters, part) for part in inputs.split(_ROWS_OF_LARGE)])


def _is_large(model: nn.Module) -> bool:
    return sum(value.numel() for value in model.parameters()) > _LARGE
