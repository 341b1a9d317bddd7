"""A model of many sites at once, whose layers are those of ``fedsim.engines.stack.layers``.

To add a layer type, write a ``Layer`` with its outputs, input gradients, ``sizes`` and ``sums``,
and enter the rule that makes it in ``RULES``.
"""

from __future__ import annotations

import copy
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fedsim.engines.stack.convolutions import Conv2d, MaxPool2d
from fedsim.engines.stack.layers import (
    CANCELLING,
    Affine,
    Embedding,
    Layer,
    Linear,
    NoRule,
    Now,
    Rows,
    Sizes,
)
from fedsim.engines.stack.recurrent import Recurrent


class StackedModel:
    """One architecture with the parameters of many sites.

    Args:
        model: The architecture.
        device: The device that it runs on.

    Raises:
        NoRule: It can't be stacked.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        no_rows = Rows(np.zeros(0, int), True, device)
        self.now = Now(no_rows, torch.zeros((), device=device, requires_grad=True))
        self.names = [name for name, _ in model.named_parameters()]
        self._shapes = [value.shape for value in model.parameters()]
        self.parameters: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self.layers: list[Layer] = []
        self._replaced: dict[int, nn.Module] = {}
        self.module = self._replace(copy.deepcopy(model), "").train()

        # Each parameter belongs to exactly one layer, or its gradient would be incomplete.
        covered = [part for layer in self.layers for part in layer.parts.values()]
        if sorted(covered) != sorted(self.names):
            raise NoRule("layers that share a parameter")
        self.convolves = any(isinstance(layer, Conv2d) for layer in self.layers)

    def bind(self, stack: Tensor) -> None:
        """Use these parameters, (sites, params).

        ``parameters`` become views of them, and ``gradients`` tensors of the same shapes.
        """
        self.parameters = self.views(stack)
        self.gradients = []
        for value in self.parameters:
            self.gradients.append(torch.empty(value.shape, dtype=stack.dtype, device=stack.device))

        values = dict(zip(self.names, self.parameters, strict=True))
        totals = dict(zip(self.names, self.gradients, strict=True))
        for layer in self.layers:
            layer.values = {in_layer: values[name] for in_layer, name in layer.parts.items()}
            layer.totals = {in_layer: totals[name] for in_layer, name in layer.parts.items()}

    def __call__(self, inputs: Tensor, rows: Rows) -> Tensor:
        """Compute the outputs of the big batch."""
        self.now.rows = rows
        for layer in self.layers:
            layer.begin()
        return self.module(inputs)

    def sizes(self) -> Sizes:
        """Measure each row's gradient, after a backward pass.

        Where a square is not >= 0, the norm is not known.

        Rows whose terms nearly cancel are singled out: see ``fedsim.engines.stack.layers``.
        """
        used = self._used()
        of_layers = [layer.sizes() for layer in used]
        squares = torch.stack([sizes.squares for sizes in of_layers])  # (layers, rows)
        if all(sizes.masses is None for sizes in of_layers):
            return Sizes(squares.sum(0))

        masses = torch.stack([
            sizes.squares if sizes.masses is None else sizes.masses
            for sizes in of_layers
        ])  # fmt: skip
        cancelling = masses.sum(0) > CANCELLING**2 * squares.sum(0)
        alone = cancelling.nonzero()[:, 0]
        if len(alone):
            for place, layer in enumerate(used):
                exact_squares = layer.single_out(alone)
                if exact_squares is not None:
                    squares[place, alone] = exact_squares
                    masses[place, alone] = exact_squares
        return Sizes(squares.sum(0), masses.sum(0))

    def forget(self, rows: Tensor) -> None:
        """Set some rows, bool (rows,), to zero, as ``Layer.forget`` does."""
        for layer in self.layers:
            layer.forget(rows)

    def sum_gradients(self, factor: Tensor | None = None) -> None:
        """Write each site's sum of row gradients, times factors (rows,), into ``gradients``."""
        used = self._used()
        for layer in self.layers:
            if layer in used:
                layer.sums(factor)
                layer.uses = []
            else:
                for total in layer.totals.values():
                    total.zero_()

    def row_gradients(self, rows: Tensor) -> list[dict[str, Tensor]]:
        """Compute the gradients of some rows, int64 (n,), after a backward pass.

        Returns:
            For each layer {name in the layer: (n, *shape)}; nothing for one that was not used.
        """
        used = self._used()
        return [layer.row_gradients(rows) if layer in used else {} for layer in self.layers]

    def forget_uses(self) -> None:
        """Drop what the layers kept of a step, after its sums were written."""
        for layer in self.layers:
            layer.uses = []

    def costs(self) -> tuple[int, int]:
        """Count the floats kept and the multiplications done, after a backward pass."""
        floats = 0
        products = 0
        for layer in self.layers:
            for inputs, gradients in layer.uses:
                fan_in = layer.values["weight"][0, 0].numel()
                floats += inputs.numel() + gradients.numel()
                products += fan_in * gradients.numel()
        return floats, products

    def _used(self) -> list[Layer]:
        """Return the layers that were used in this step."""
        return [layer for layer in self.layers if layer.uses]

    def views(self, stack: Tensor) -> list[Tensor]:
        """Return views of a tensor (sites, params), (sites, *shape) for each parameter."""
        parts = stack.split([shape.numel() for shape in self._shapes], 1)
        return [part.unflatten(1, shape) for shape, part in zip(self._shapes, parts, strict=True)]

    def _replace(self, module: nn.Module, prefix: str) -> nn.Module:
        """Return a module in which each layer with a rule is replaced.

        Each is replaced once, although a model may use it several times.
        """
        if id(module) in self._replaced:
            return self._replaced[id(module)]

        rule = _rule_of(module)
        if rule:
            new = rule(module, self.now, prefix)
            self.layers += [layer for layer in new.modules() if isinstance(layer, Layer)]
        else:
            _refuse(module, prefix)
            # named_children() would leave out a layer that comes again.
            for name, child in module._modules.items():
                if child is not None:
                    module._modules[name] = self._replace(child, f"{prefix}{name}.")
            new = module
        self._replaced[id(module)] = new
        return new


def _refuse(module: nn.Module, prefix: str) -> None:
    """Refuse a module without a rule if the stack would get its rows wrong.

    Raises:
        NoRule: It has parameters of its own, or draws random numbers.
    """
    if [*module.parameters(recurse=False)]:
        raise NoRule(f"no rule for {type(module).__name__} ({prefix.rstrip('.') or 'the model'})")
    if isinstance(module, nn.modules.dropout._DropoutNd) and module.p:
        raise NoRule(f"{type(module).__name__} draws random numbers of its own at each site")


def _rule_of(module: nn.Module) -> Rule | None:
    """Return the rule of a layer, or None if it has none."""
    layer_type = type(module)

    # Opacus' layers are known by their names: importing Opacus takes two seconds.
    from_opacus = layer_type.__module__ == "opacus.layers.dp_rnn"
    if from_opacus and layer_type.__name__ in ("DPGRU", "DPLSTM"):
        return _recurrent
    return RULES.get(layer_type)


def _own_parts(module: nn.Module, prefix: str) -> dict[str, str]:
    """Return {a parameter's name in the layer: its name in the model}."""
    return {name: f"{prefix}{name}" for name, _ in module.named_parameters(recurse=False)}


def _linear(layer: nn.Linear, now: Now, prefix: str) -> nn.Module:
    return Linear(now, _own_parts(layer, prefix))


def _conv2d(layer: nn.Conv2d, now: Now, prefix: str) -> nn.Module:
    if layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        name = prefix.rstrip(".")
        raise NoRule(f"no rule for a Conv2d with groups or padding other than a number ({name})")
    return Conv2d(now, _own_parts(layer, prefix), layer)


def _max_pool2d(layer: nn.MaxPool2d, now: Now, prefix: str) -> nn.Module:
    size = _pair(layer.kernel_size)
    side_by_side = size == _pair(layer.stride)
    no_gaps = _pair(layer.padding) == (0, 0) and _pair(layer.dilation) == (1, 1)
    if side_by_side and no_gaps and not layer.ceil_mode and not layer.return_indices:
        return MaxPool2d(size)
    return layer  # torch's own works on the big batch as it is, only slower


def _pair(number: int | tuple[int, ...]) -> tuple[int, int]:
    """Return a size for both dimensions, as torch takes one or two numbers for it."""
    if isinstance(number, int):
        return number, number
    return number[0], number[1]


def _embedding(layer: nn.Embedding, now: Now, prefix: str) -> nn.Module:
    if layer.padding_idx is not None or layer.max_norm is not None or layer.scale_grad_by_freq:
        name = prefix.rstrip(".")
        raise NoRule(
            f"no rule for an Embedding with padding_idx, max_norm or scale_grad_by_freq ({name})"
        )  # fmt: skip
    return Embedding(now, _own_parts(layer, prefix))


def _layer_norm(layer: nn.LayerNorm, now: Now, prefix: str) -> nn.Module:
    plain = nn.LayerNorm([*layer.normalized_shape], layer.eps, elementwise_affine=False)
    dims = tuple(range(-len(layer.normalized_shape), 0))
    return nn.Sequential(plain, Affine(now, _own_parts(layer, prefix), dims))


def _group_norm(layer: nn.GroupNorm, now: Now, prefix: str) -> nn.Module:
    plain = nn.GroupNorm(layer.num_groups, layer.num_channels, layer.eps, affine=False)
    return nn.Sequential(plain, Affine(now, _own_parts(layer, prefix), (1,)))


def _recurrent(layer: nn.GRU | nn.LSTM, now: Now, prefix: str) -> nn.Module:
    projects = getattr(layer, "proj_size", 0)  # Opacus' layers have none
    if not layer.batch_first or layer.bidirectional or layer.dropout or projects:
        name = f"{type(layer).__name__} ({prefix.rstrip('.')})"
        raise NoRule(
            f"no rule for a {name} without batch_first, "
            "or with two directions, dropout or projections"
        )  # fmt: skip

    pairs = []
    for number in range(layer.num_layers):
        linears = []
        for side in ("ih", "hh"):  # torch's names: from the inputs, and from the hidden state
            parts = {"weight": f"{prefix}weight_{side}_l{number}"}
            if layer.bias:
                parts["bias"] = f"{prefix}bias_{side}_l{number}"
            linears.append(Linear(now, parts))
        pairs.append((linears[0], linears[1]))
    return Recurrent(layer, pairs)


class Rule(Protocol):
    """A function that makes the stacked form of a layer."""

    def __call__(self, layer: Any, now: Now, prefix: str) -> nn.Module:  # noqa: ANN401  any layer
        """Return the layer of many sites.

        Args:
            layer: A layer of the type that the rule is entered for in ``RULES``.
            now: The state that all layers of the stack share.
            prefix: The beginning of its parameters' names in the model.

        Raises:
            NoRule: This layer can't be stacked.
        """
        ...


RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv2d,
    nn.MaxPool2d: _max_pool2d,
    nn.Embedding: _embedding,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.GRU: _recurrent,
    nn.LSTM: _recurrent,
}
