"""The parameters of a model that are trained, and the values that stay as they are.

A parameter with ``requires_grad = False`` is frozen: it is neither trained nor sent, and no noise is added to it. A
model's vector (params,) holds its trainable parameters only, in the order of ``named_parameters()``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

_PAIR = ("lora_A", "lora_B")
"""The names of the two layers of an adapter, which stand or fall together."""


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, {name: parameter}; a parameter with two names is there once."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def vector_of(model: nn.Module) -> Tensor:
    """Return a copy of the trainable parameters as one vector, (params,)."""
    return parameters_to_vector(trainable(model).values()).detach()


def frozen(model: nn.Module) -> dict[str, Tensor]:
    """Return the values that training leaves as they are: frozen parameters and constant buffers, {name: value}."""
    trained = {id(value) for value in trainable(model).values()}
    return {name: value for name, value in model.state_dict(keep_vars=True).items() if id(value) not in trained}


def shared_when_copied(model: nn.Module) -> dict[int, object]:
    """Return the memo for ``copy.deepcopy`` with which a copy shares the frozen parameters and has the others anew."""
    return {id(value): value for value in model.parameters() if not value.requires_grad}


def whole(model: nn.Module, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return all values of a model: trained parameters as they are given, and the model's own frozen ones.

    Constant buffers come first, then parameters in the model's order.
    """
    values: dict[str, Tensor] = {**frozen(model), **parameters}
    in_order = [name for name, _ in model.named_parameters()]
    others = {name: value.detach() for name, value in values.items() if name not in in_order}
    return others | {name: values[name].detach() for name in in_order}


def adapters_of(names: Iterable[str]) -> dict[str, list[str]]:
    """Gather the trained parameters of each adapter, or of each layer that is trained whole.

    Args:
        names: Names of trained parameters.

    Returns:
        {the adapter's or layer's name: names of its parameters}.
    """
    adapters = defaultdict(list)
    for name in names:
        layer = name.rpartition(".")[0]
        outer, _, last = layer.rpartition(".")
        adapters[(outer if last in _PAIR else layer) or "the model"].append(name)
    return dict(adapters)
