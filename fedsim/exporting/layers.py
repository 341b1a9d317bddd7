"""Convert the layers of a PyTorch model to nodes of an ONNX graph.

The model is followed by ``torch.fx``, so that models made of known layers in any order are converted. A layer that is
not known is refused: what is written is checked against PyTorch, and never guessed.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, fx, nn
from torch.fx.proxy import TraceError

from fedsim.exporting.graph import Graph, Value
from fedsim.mistakes import Mistake

_FLOAT = np.dtype(np.float32)


def outputs_of(model: nn.Module, inputs: Value) -> Value:
    """Add the nodes of a model to the graph of its inputs, float32 (rows, ...); return its outputs.

    Raises:
        Mistake: A layer is not known.
    """
    model.eval()
    try:
        traced = fx.symbolic_trace(nn.Sequential(model))  # a layer alone would be opened
    except (TraceError, TypeError) as error:
        raise Mistake(f"export: expected a model whose layers don't depend on its rows, got {error}") from None

    values: dict[fx.Node, Any] = {}
    for node in traced.graph.nodes:
        if node.op == "output":
            return values[node.args[0]]
        values[node] = inputs if node.op == "placeholder" else _converted(traced, node, values, inputs.graph)
    raise Mistake("export: expected a model with an output")


def _converted(traced: fx.GraphModule, node: fx.Node, values: Mapping[fx.Node, Any], graph: Graph) -> Any:  # noqa: ANN401
    """Convert one step of a model. A recurrent layer gives its states and a place that is never looked at."""
    operands: list[Any] = [values[each] if isinstance(each, fx.Node) else each for each in node.args]
    if node.op == "call_module":
        layer = traced.get_submodule(str(node.target))
        for kind, convert in _LAYERS.items():
            if type(layer) is kind:
                return convert(graph, layer, operands[0])
        raise Mistake(f"export: expected a layer that can be written as ONNX ({_KNOWN}), got {type(layer).__name__}")

    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    if name == "getitem":
        return _part(graph, *operands)
    is_plain = all(key == "inplace" for key in node.kwargs)
    if name in _FUNCTIONS and len(operands) == 1 and is_plain:
        return _FUNCTIONS[name](graph, operands[0])
    if name in ("add", "mul") and len(operands) == 2 and is_plain:
        return operands[0] + operands[1] if name == "add" else operands[0] * operands[1]
    if name == "flatten" and operands[1:] == [1]:
        return graph.node("Flatten", operands[0], axis=1)
    raise Mistake(f"export: expected a step that can be written as ONNX ({_KNOWN_STEPS}), got {name}")


def _part(graph: Graph, whole: Any, place: Any) -> Any:  # noqa: ANN401
    """Take one of several outputs, or the states of one moment, ``states[:, -1]``."""
    if isinstance(whole, tuple):
        return whole[place]
    if isinstance(place, tuple) and len(place) == 2 and place[0] == slice(None) and isinstance(place[1], int):
        return graph.node("Gather", whole, graph.constant(place[1], np.dtype(np.int64)), axis=1)
    raise Mistake(f"export: expected states[:, moment], got {place}")


def _array(parameter: Tensor) -> np.ndarray:
    return parameter.detach().cpu().numpy()


def _linear(graph: Graph, layer: nn.Linear, value: Value) -> Value:
    product = graph.node("MatMul", value, graph.constant(_array(layer.weight).T, _FLOAT))
    return product if layer.bias is None else product + _array(layer.bias)


def _convolution(graph: Graph, layer: nn.Conv1d | nn.Conv2d, value: Value) -> Value:
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise Mistake(f"export: expected a convolution with padding by zeros in numbers, got {layer}")
    parameters = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    return graph.node(
        "Conv",
        value,
        *(graph.constant(_array(each)) for each in parameters),
        strides=list(layer.stride),
        pads=[*layer.padding, *layer.padding],
        dilations=list(layer.dilation),
        group=layer.groups,
    )


def _pooling(graph: Graph, layer: nn.MaxPool2d, value: Value) -> Value:
    if layer.return_indices:
        raise Mistake(f"export: expected pooling without indices, got {layer}")
    return graph.node("MaxPool", value, **_window(layer), dilations=_pair(layer.dilation))


def _averages(graph: Graph, layer: nn.AvgPool2d, value: Value) -> Value:
    if layer.divisor_override is not None:
        raise Mistake(f"export: expected means over the whole window, got {layer}")
    return graph.node("AveragePool", value, **_window(layer), count_include_pad=int(layer.count_include_pad))


def _window(layer: nn.MaxPool2d | nn.AvgPool2d) -> dict[str, Any]:
    """Return where the windows of a pooling layer lie, as ONNX says it."""
    padding = _pair(layer.padding)
    return {
        "kernel_shape": _pair(layer.kernel_size),
        "strides": _pair(layer.stride),
        "pads": [*padding, *padding],
        "ceil_mode": int(layer.ceil_mode),
    }


def _means(graph: Graph, layer: nn.AdaptiveAvgPool2d, value: Value) -> Value:
    if layer.output_size not in (1, (1, 1)):
        raise Mistake(f"export: expected a mean for each channel, got {layer}")
    return graph.node("GlobalAveragePool", value)


def _group_norm(graph: Graph, layer: nn.GroupNorm, value: Value) -> Value:
    weight = _array(layer.weight) if layer.affine else np.ones(layer.num_channels, _FLOAT)
    bias = _array(layer.bias) if layer.affine else np.zeros(layer.num_channels, _FLOAT)
    constants = graph.constant(weight), graph.constant(bias)
    return graph.node("GroupNormalization", value, *constants, num_groups=layer.num_groups, epsilon=layer.eps)


def _layer_norm(graph: Graph, layer: nn.LayerNorm, value: Value) -> Value:
    shape = tuple(layer.normalized_shape)
    weight = np.ones(shape, _FLOAT) if layer.weight is None else _array(layer.weight)
    bias = np.zeros(shape, _FLOAT) if layer.bias is None else _array(layer.bias)
    constants = graph.constant(weight), graph.constant(bias)
    return graph.node("LayerNormalization", value, *constants, axis=-len(shape), epsilon=layer.eps)


def _gelu(graph: Graph, layer: nn.GELU, value: Value) -> Value:
    return graph.node("Gelu", value, approximate=layer.approximate)


def _silu(graph: Graph, value: Value) -> Value:
    return value * graph.node("Sigmoid", value)


def _pair(size: Any) -> list[int]:  # noqa: ANN401
    return [size, size] if isinstance(size, int) else list(size)


def _flatten(graph: Graph, layer: nn.Flatten, value: Value) -> Value:
    if (layer.start_dim, layer.end_dim) != (1, -1):
        raise Mistake(f"export: expected all axes of a row to be made one, got {layer}")
    return graph.node("Flatten", value, axis=1)


_GATES = {"GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2)}
"""{layer: PyTorch's places of the gates in ONNX's order}. GRU: z, r, h of r, z, n; LSTM: i, o, f, c of i, f, g, o."""


def _recurrent(graph: Graph, layer: nn.GRU | nn.LSTM, value: Value) -> tuple[Value, None]:
    """Convert a recurrent layer; return its states (rows, time, units)."""
    if layer.bidirectional or not layer.batch_first or not layer.bias or getattr(layer, "proj_size", 0):
        expected = "a recurrent layer in one direction, with biases, and rows before time"
        raise Mistake(f"export: expected {expected}, got {layer}")
    kind = type(layer).__name__
    options: dict[str, Any] = {"linear_before_reset": 1} if kind == "GRU" else {}

    def in_order(name: str) -> np.ndarray:
        gates = np.split(_array(getattr(layer, name)), len(_GATES[kind]))
        return np.concatenate([gates[place] for place in _GATES[kind]])

    states = graph.node("Transpose", value, perm=[1, 0, 2])  # (time, rows, inputs)
    for number in range(layer.num_layers):
        biases = np.concatenate([in_order(f"bias_ih_l{number}"), in_order(f"bias_hh_l{number}")])
        states = graph.node(
            kind,
            states,
            *(graph.constant(each[None]) for each in (in_order(f"weight_ih_l{number}"),
                                                     in_order(f"weight_hh_l{number}"), biases)),
            hidden_size=layer.hidden_size,
            **options,
        )  # fmt: skip
        states = graph.node("Squeeze", states, graph.axes(1))  # the axis of directions
    return graph.node("Transpose", states, perm=[1, 0, 2]), None


def _as_it_is(graph: Graph, layer: nn.Module, value: Value) -> Value:
    return value


_FUNCTIONS: dict[str, Callable[[Graph, Value], Value]] = {
    "relu": lambda graph, value: graph.node("Relu", value),
    "tanh": lambda graph, value: graph.node("Tanh", value),
    "sigmoid": lambda graph, value: graph.node("Sigmoid", value),
    "gelu": lambda graph, value: graph.node("Gelu", value, approximate="none"),
    "silu": _silu,
}
"""{a step of a model's own code: its nodes}."""

_LAYERS: dict[type[nn.Module], Callable[[Graph, Any, Any], Any]] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.MaxPool2d: _pooling,
    nn.AvgPool2d: _averages,
    nn.AdaptiveAvgPool2d: _means,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
    nn.Flatten: _flatten,
    nn.GRU: _recurrent,
    nn.LSTM: _recurrent,
    nn.ReLU: lambda graph, layer, value: graph.node("Relu", value),
    nn.LeakyReLU: lambda graph, layer, value: graph.node("LeakyRelu", value, alpha=layer.negative_slope),
    nn.GELU: _gelu,
    nn.SiLU: lambda graph, layer, value: _silu(graph, value),
    nn.Tanh: lambda graph, layer, value: graph.node("Tanh", value),
    nn.Sigmoid: lambda graph, layer, value: graph.node("Sigmoid", value),
    nn.Identity: _as_it_is,
    nn.Dropout: _as_it_is,  # a model that predicts drops nothing
    nn.Dropout2d: _as_it_is,
}

_KNOWN_STEPS = ", ".join(["flatten", "add", "mul", *_FUNCTIONS])
_KNOWN = ", ".join(layer.__name__ for layer in _LAYERS)
