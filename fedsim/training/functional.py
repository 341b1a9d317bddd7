"""Running a model with other parameters than its own."""

from collections.abc import Mapping

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
