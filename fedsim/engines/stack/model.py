"""A model of many sites at once, whose layers are those of ``fedsim.engines.stack.layers``.

To add a layer type, write a ``Layer`` with its outputs, input gradients, ``sizes``, ``sums`` and
``_row_gradients``, and enter the rule that makes it in ``RULES``. A module without a rule that has
trainable parameters of its own is computed by ``torch.func`` (``fedsim.engines.stack.generic``). So
is the smallest module that holds all layers which share a parameter. Modules whose parameters are
all frozen work on the big batch as they are: their values are the same for all sites.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from fedsim.engines.stack.attention import Attention
from fedsim.engines.stack.captured import Captured
from fedsim.engines.stack.convolutions import Conv1d, Conv2d, MaxPool2d
from fedsim.engines.stack.generic import Generic
from fedsim.engines.stack.layers import (
    CANCELLING,
    Affine,
    Embedding,
    Layer,
    Linear,
    NoRule,
    Now,
    Products,
    Rows,
    Sizes,
)
from fedsim.engines.stack.recurrent import Cell, Recurrent
from fedsim.strategy.trainable import shared_when_copied, trainable
from fedsim.training.dropout import Draws, SiteDropout, draws_by_site, replacement, with_site_dropout


class StackedModel:
    """One architecture with the parameters of many sites.

    Args:
        model: The architecture.
        device: The device that it runs on.
        whole: Whether the whole model is to be computed by ``torch.func``, as one layer.

    Attributes:
        captured: Its steps on a GPU.
        waits: Whether a step has asked which rows are to be singled out, and waited for the answer.

    Raises:
        NoRule: It can't be stacked.
    """

    def __init__(self, model: nn.Module, device: torch.device, whole: bool = False) -> None:
        no_rows = Rows(np.zeros(0, int), True, device)
        draws = Draws([], device)
        self.now = Now(no_rows, torch.zeros((), device=device, requires_grad=True), draws)
        self._names = list(trainable(model))
        self._shapes = [value.shape for value in trainable(model).values()]
        self._shared = _shared_arguments.setdefault(model, set())
        self._stack: Tensor | None = None
        self.captured = Captured()
        self.waits = False
        self.parameters: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self.layers: list[Layer] = []
        self._replaced: dict[int, nn.Module] = {}
        copied = copy.deepcopy(model, shared_when_copied(model))
        self._leaves = {id(copied)} if whole else _in_common(copied)
        self.module = self._replace(copied, "").train()

        # Each parameter belongs to exactly one layer, or its gradient would be incomplete.
        covered = [part for layer in self.layers for part in layer.parts.values()]
        if sorted(covered) != sorted(self._names):
            raise NoRule("layers that share a parameter")
        self.convolves = any(isinstance(layer, Conv2d) for layer in self.layers)
        self.drops = any(_drops(module) for module in self.module.modules())

        # A module that is not known may give no number for a row of zeros, as attention does.
        self.fills_badly = any(not isinstance(layer, _MEASURED) for layer in self.layers)

    def bind(self, stack: Tensor) -> None:
        """Use these parameters, (sites, params).

        ``parameters`` become views of them, and ``gradients`` tensors of the same shapes. Where that tensor is in use
        already, both remain the same.
        """
        if stack is self._stack:
            return
        self._stack = None  # until all layers have it: this may be broken off
        self.parameters = self.views(stack)
        self.gradients = []
        for value in self.parameters:
            self.gradients.append(torch.empty(value.shape, dtype=stack.dtype, device=stack.device))

        values = dict(zip(self._names, self.parameters, strict=True))
        totals = dict(zip(self._names, self.gradients, strict=True))
        for layer in self.layers:
            own_values = {in_layer: values[name] for in_layer, name in layer.parts.items()}
            own_totals = {in_layer: totals[name] for in_layer, name in layer.parts.items()}
            layer.bind(own_values, own_totals)
        self._stack = stack

    def __call__(self, inputs: Tensor, rows: Rows) -> Tensor:
        """Compute the outputs of the big batch."""
        self.now.rows = rows
        if self.drops:
            self.now.draws.begin(rows.counts, rows.total, rows.place if rows.padded else None)
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
        self.waits = True
        alone = cancelling.nonzero()[:, 0]
        if len(alone):
            for place, layer in enumerate(used):
                exact_squares = layer.single_out(alone)
                if exact_squares is not None:
                    squares[place, alone] = exact_squares
                    masses[place, alone] = exact_squares
        return Sizes(squares.sum(0), masses.sum(0))

    def row_gradients(self, rows: Tensor) -> dict[str, Tensor]:
        """Compute the gradients of some rows, int64 (n,), after a backward pass.

        Returns:
            {the parameter's name in the model: (n, *shape)}, in the order of its vector.
        """
        of_rows = {}
        for layer in self.layers:
            for in_layer, gradients in layer.row_gradients(rows).items():
                of_rows[layer.parts[in_layer]] = gradients
        return {name: of_rows[name] for name in self._names}

    def draw_from(self, seeds: Sequence[int]) -> None:
        """Let layers that drop draw from streams with these seeds, one for each site."""
        if self.drops:
            self.now.draws.restart(seeds)

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
                layer.end()
            else:
                for total in layer.totals.values():
                    total.zero_()

    def forget_uses(self) -> None:
        """Drop what the layers kept of a step: its sums were written, or never will be."""
        for layer in self.layers:
            layer.end()

    def costs(self) -> tuple[int, int]:
        """Count the floats kept and the multiplications done, after a backward pass."""
        floats = 0
        products = 0
        for layer in self.layers:
            floats_of_layer, products_of_layer = layer.costs()
            floats += floats_of_layer
            products += products_of_layer
        return floats, products

    def _used(self) -> list[Layer]:
        """Return the layers that were used in this step."""
        return [layer for layer in self.layers if layer.was_used]

    def views(self, stack: Tensor) -> list[Tensor]:
        """Return views of a tensor (sites, params), (sites, *shape) for each parameter."""
        parts = stack.split([shape.numel() for shape in self._shapes], 1)
        return [part.unflatten(1, shape) for shape, part in zip(self._shapes, parts, strict=True)]

    def _replace(self, module: nn.Module, prefix: str) -> nn.Module:
        """Return a module in which each layer with a rule is replaced.

        Each is replaced once, although a model may use it several times.
        """
        key = id(module)
        if key in self._replaced:
            return self._replaced[key]

        new = self._stacked(module, prefix)
        if new is None:
            _refuse(module, prefix)
            if draws_by_site(module):  # its parameters are frozen
                module = with_site_dropout(module, self.now.draws)
            # named_children() would leave out a layer that comes again.
            for name, child in module._modules.items():
                if child is not None:
                    module._modules[name] = self._replace(child, f"{prefix}{name}.")
            new = module
        else:
            self.layers += [layer for layer in new.modules() if isinstance(layer, Layer)]
        self._replaced[key] = new
        return new

    def _stacked(self, module: nn.Module, prefix: str) -> nn.Module | None:
        """Return the stacked form of a module; None if its children are to be replaced one by one."""
        parameters = [*module.parameters()]
        trained = [value for value in parameters if value.requires_grad]
        if id(module) not in self._leaves:
            rule = _rule_of(module)
            if rule and len(trained) == len(parameters):  # all of them, or there are none
                stacked = rule(module, self.now, prefix)
                if stacked is not None:
                    return stacked
            own = [value for value in module.parameters(recurse=False) if value.requires_grad]
            if not own and not (rule and trained):
                return None

        _refuse_draws(module, prefix)
        return Generic(self.now, prefix, module, self._shared)


def _refuse(module: nn.Module, prefix: str) -> None:
    """Refuse a module that stays as it is if the stack would get its rows wrong.

    Raises:
        NoRule: It draws random numbers.
    """
    if isinstance(module, nn.modules.dropout._DropoutNd) and module.p:
        raise NoRule(f"{_named(module, prefix)} draws random numbers of its own at each site")


def _refuse_draws(module: nn.Module, prefix: str) -> None:
    """Refuse to compute a module as a whole if it draws random numbers.

    Raises:
        NoRule: It does.
    """
    for name, layer in module.named_modules():
        dropout = isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p
        if dropout or draws_by_site(layer):
            whole = _named(module, prefix)
            raise NoRule(f"{whole} has no rule of its own, and {_named(layer, name)} inside draws random numbers")


def _named(module: nn.Module, prefix: str) -> str:
    """Return the type of a module with its name in the model."""
    return f"{type(module).__name__} ({prefix.rstrip('.') or 'the model'})"


def _drops(module: nn.Module) -> bool:
    """Whether a module draws from its sites' streams; attention may be told to drop nothing."""
    return isinstance(getattr(module, "draws", None), Draws) and getattr(module, "dropout", 1.0) > 0


def _in_common(model: nn.Module) -> set[int]:
    """Return the smallest modules that hold all layers which share a trainable parameter, by ``id``.

    A module with a rule is none of them: Opacus' recurrent layers have the parameters of their cells under names of
    their own, too.
    """
    holders: dict[int, list[str]] = defaultdict(list)  # of each parameter, the names of its layers
    for prefix, layer in model.named_modules():
        for value in layer.parameters(recurse=False):
            if value.requires_grad:
                holders[id(value)].append(prefix)

    leaves = set()
    for names in holders.values():
        if len(names) > 1:
            paths = [name.split(".") if name else [] for name in names]
            shared = []
            for steps in zip(*paths, strict=False):
                if len(set(steps)) > 1:
                    break
                shared.append(steps[0])
            whole = model.get_submodule(".".join(shared))
            if _rule_of(whole) is None:
                leaves.add(id(whole))
    return leaves


def _rule_of(module: nn.Module) -> Rule | None:
    """Return the rule of a layer, or None if it has none."""
    layer_type = type(module)

    # Opacus' layers are known by their names: importing Opacus takes two seconds.
    from_opacus = layer_type.__module__ == "opacus.layers.dp_rnn"
    if from_opacus and layer_type.__name__ in ("DPRNN", "DPGRU", "DPLSTM"):
        return _recurrent
    return RULES.get(layer_type)


def _own_parts(module: nn.Module, prefix: str) -> dict[str, str]:
    """Return {a parameter's name in the layer: its name in the model}."""
    return {name: f"{prefix}{name}" for name, _ in module.named_parameters(recurse=False)}


def _linear(layer: nn.Linear, now: Now, prefix: str) -> nn.Module:
    return Linear(now, _own_parts(layer, prefix))


def _conv2d(layer: nn.Conv2d, now: Now, prefix: str) -> nn.Module | None:
    if layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return None
    return Conv2d(now, _own_parts(layer, prefix), layer)


def _conv1d(layer: nn.Conv1d, now: Now, prefix: str) -> nn.Module | None:
    if layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return None
    return Conv1d(now, _own_parts(layer, prefix), layer)


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
    if layer.max_norm is not None or layer.scale_grad_by_freq or layer.sparse:
        raise NoRule(f"no rule for an Embedding with max_norm, scale_grad_by_freq or sparse ({prefix.rstrip('.')})")
    return Embedding(now, _own_parts(layer, prefix), layer.padding_idx)


def _layer_norm(layer: nn.LayerNorm, now: Now, prefix: str) -> nn.Module:
    plain = nn.LayerNorm([*layer.normalized_shape], layer.eps, elementwise_affine=False)
    dims = tuple(range(-len(layer.normalized_shape), 0))
    return nn.Sequential(plain, Affine(now, _own_parts(layer, prefix), dims))


def _group_norm(layer: nn.GroupNorm, now: Now, prefix: str) -> nn.Module:
    plain = nn.GroupNorm(layer.num_groups, layer.num_channels, layer.eps, affine=False)
    return nn.Sequential(plain, Affine(now, _own_parts(layer, prefix), (1,)))


def _recurrent(layer: nn.RNNBase, now: Now, prefix: str) -> nn.Module:
    if getattr(layer, "proj_size", 0):  # Opacus' layers have none
        raise NoRule(f"no rule for {_named(layer, prefix)} with projections")

    pairs = []
    for number in range(layer.num_layers):
        for direction in ("", "_reverse") if layer.bidirectional else ("",):
            linears = []
            for side in ("ih", "hh"):  # torch's names: from the inputs, and from the hidden state
                parts = {"weight": f"{prefix}weight_{side}_l{number}{direction}"}
                if layer.bias:
                    parts["bias"] = f"{prefix}bias_{side}_l{number}{direction}"
                linears.append(Linear(now, parts))
            pairs.append((linears[0], linears[1]))
    drop = SiteDropout(now.draws, layer.dropout) if layer.dropout else None
    return Recurrent(layer, pairs, drop)


def _cell(layer: nn.RNNCellBase, now: Now, prefix: str) -> nn.Module:
    linears = []
    for side in ("ih", "hh"):
        parts = {"weight": f"{prefix}weight_{side}"}
        if layer.bias:
            parts["bias"] = f"{prefix}bias_{side}"
        linears.append(Linear(now, parts))
    return Cell(layer, *linears)


def _attention(layer: nn.MultiheadAttention, now: Now, prefix: str) -> nn.Module | None:
    if not layer._qkv_same_embed_dim or layer.bias_k is not None or layer.add_zero_attn:
        return None
    into = {"weight": f"{prefix}in_proj_weight"}
    out = {"weight": f"{prefix}out_proj.weight"}
    if layer.in_proj_bias is not None:
        into["bias"] = f"{prefix}in_proj_bias"
    if layer.out_proj.bias is not None:
        out["bias"] = f"{prefix}out_proj.bias"
    return Attention(layer, Linear(now, into), Linear(now, out), now.draws)


def _dropout(layer: nn.Module, now: Now, prefix: str) -> nn.Module:
    return replacement(layer, now.draws)


class Rule(Protocol):
    """A function that makes the stacked form of a layer."""

    def __call__(self, layer: Any, now: Now, prefix: str) -> nn.Module | None:  # noqa: ANN401  any layer
        """Return the layer of many sites; None where it is to be computed as any module is.

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
    nn.Conv1d: _conv1d,
    nn.Conv2d: _conv2d,
    nn.MaxPool2d: _max_pool2d,
    nn.Embedding: _embedding,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.RNN: _recurrent,
    nn.GRU: _recurrent,
    nn.LSTM: _recurrent,
    nn.RNNCell: _cell,
    nn.GRUCell: _cell,
    nn.LSTMCell: _cell,
    nn.MultiheadAttention: _attention,
    nn.Dropout: _dropout,
    nn.Dropout1d: _dropout,
    nn.Dropout2d: _dropout,
    nn.Dropout3d: _dropout,
}
_MEASURED = (Products, Embedding, Affine)  # layers that count a row of zeros with a share of 0 as nothing
_shared_arguments: WeakKeyDictionary[nn.Module, set[tuple[str, int, int]]] = WeakKeyDictionary()
