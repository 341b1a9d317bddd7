"""Layers of many sites at once, and the gradients of their rows.

The batches of all sites are one big batch. A layer without parameters does not notice: what it does to a row depends on
that row alone. A layer with parameters is replaced by one that holds the parameters of every site, (sites, *shape), and
knows which rows are whose.

Autograd computes no gradient of a parameter. It only hands every layer its inputs and the gradients at its outputs, row
by row. From these two follow the norm of each row's gradient, without that gradient where this is cheaper ("ghost
norms": Goodfellow 2015, https://arxiv.org/abs/1510.01799; Li et al. 2022, https://arxiv.org/abs/2110.05679), and then
the sum of the clipped gradients, without a second backward pass ("book-keeping": Bu et al. 2023,
https://arxiv.org/abs/2210.00038). Training without privacy is the same with no clipping in between.

To add a layer type: write its outputs, input gradients, ``squares`` and ``sums``, and enter it in ``RULES``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class NoRule(Exception):
    """A model can't be stacked; the message says why."""


class Rows:
    """Which rows of the big batch are whose.

    Args:
        counts: How many rows each site has, (sites,).
        padded: Whether each site's rows are filled up to the longest, so that the big batch is (sites * width, ...)
            and a view (sites, width, ...) of it exists. Otherwise rows stand close together.
    """

    def __init__(self, counts: np.ndarray, padded: bool, device: torch.device) -> None:
        self.sites, self.width, self.padded = len(counts), max(1, int(counts.max(initial=0))), padded
        self._sizes = np.full_like(counts, self.width) if padded else counts
        self._counts, self._ends = counts, np.cumsum(self._sizes)
        self._device = device
        self.total = int(self._sizes.sum())

    @cached_property
    def slices(self) -> list[slice]:
        """The rows of each site."""
        sizes, ends = self._sizes.tolist(), self._ends.tolist()
        return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]

    @cached_property
    def site(self) -> Tensor:
        """The site of each row, int64 (rows,)."""
        return torch.from_numpy(np.repeat(np.arange(self.sites), self._sizes)).to(self._device)

    @cached_property
    def place(self) -> Tensor:
        """Where each row stands in (sites * width, ...), int64 (rows,)."""
        return torch.from_numpy(self.places).to(self._device)

    @cached_property
    def places(self) -> np.ndarray:
        """The same, of the rows that don't just fill up."""
        first = np.cumsum(self._counts) - self._counts
        return np.arange(int(self._counts.sum())) + np.repeat(np.arange(self.sites) * self.width - first, self._counts)

    def apart(self, values: Tensor) -> Tensor:
        """Return (rows, ...) as (sites, width, ...), filled up with zeros."""
        if self.padded:
            return values.reshape(self.sites, self.width, *values.shape[1:])
        filled = values.new_zeros(self.sites * self.width, *values.shape[1:])
        return filled.index_copy_(0, self.place, values).view(self.sites, self.width, *values.shape[1:])

    def together(self, values: Tensor) -> Tensor:
        """Return (sites, width, ...) as (rows, ...)."""
        flat = values.flatten(0, 1)
        return flat if self.padded else flat[self.place]


@dataclass
class Now:
    """What the layers of one stack share: the rows of this step, and a tensor that makes autograd visit every layer."""

    rows: Rows
    anchor: Tensor


class _Seen(torch.autograd.Function):
    """One use of a layer; the backward pass leaves (inputs, gradients at the outputs) with the layer."""

    @staticmethod
    def forward(ctx, anchor: Tensor, inputs: Tensor, layer: Layer) -> Tensor:  # type: ignore[override]  # noqa: ANN001
        ctx.layer = layer
        ctx.save_for_backward(inputs)
        return layer.outputs(inputs)

    @staticmethod
    def backward(ctx, gradients: Tensor) -> tuple[None, Tensor | None, None]:  # type: ignore[override]  # noqa: ANN001
        (inputs,) = ctx.saved_tensors
        ctx.layer.uses.append((inputs.detach(), gradients))
        return None, ctx.layer.input_gradients(inputs, gradients) if ctx.needs_input_grad[1] else None, None


class Layer(nn.Module):
    """A layer with the parameters of every site.

    Attributes:
        parts: {its parameters' names: those in the model}.
        values: {name: (sites, *shape)}, views of the stack.
        totals: {name: (sites, *shape)}, where ``sums`` writes; contiguous, or batched products are slow.
        uses: (inputs, gradients at the outputs) of each time it was used.
    """

    def __init__(self, now: Now, parts: dict[str, str]) -> None:
        super().__init__()
        self.now, self.parts = now, parts
        self.values: dict[str, Tensor] = {}
        self.totals: dict[str, Tensor] = {}
        self.uses: list[tuple[Tensor, Tensor]] = []

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute outputs (rows, ...) from inputs (rows, ...), each row with its site's parameters."""
        return _Seen.apply(self.now.anchor, inputs, self) if torch.is_grad_enabled() else self.outputs(inputs)

    def outputs(self, inputs: Tensor) -> Tensor:
        """Compute the outputs."""
        raise NotImplementedError

    def input_gradients(self, inputs: Tensor, gradients: Tensor) -> Tensor:
        """Compute the gradient at the inputs from that at the outputs."""
        raise NotImplementedError

    def squares(self) -> Tensor:
        """Return the squared norm of each row's gradient over all uses, (rows,)."""
        raise NotImplementedError

    def sums(self, factor: Tensor | None) -> None:
        """Write each site's sum of its rows' gradients, each times its factor (rows,), into ``totals``."""
        raise NotImplementedError


class Linear(Layer):
    """``torch.nn.Linear`` on (rows, ..., features); what stands between are positions, whose gradients add up."""

    def outputs(self, inputs: Tensor) -> Tensor:  # noqa: D102
        weight, bias = self.values["weight"], self.values.get("bias")  # (sites, out, in), (sites, out)
        return self._products(inputs, weight.mT, bias)

    def input_gradients(self, inputs: Tensor, gradients: Tensor) -> Tensor:  # noqa: D102
        return self._products(gradients, self.values["weight"], None)

    def squares(self) -> Tensor:  # noqa: D102
        return outer_squares(*self._used(), bias="bias" in self.values)

    def sums(self, factor: Tensor | None) -> None:  # noqa: D102
        inputs, gradients = self._used()
        if factor is not None:
            gradients = scaled(gradients, factor)
        a, g = (self.now.rows.apart(one).flatten(1, 2) for one in (inputs, gradients))
        torch.bmm(g.mT, a, out=self.totals["weight"])
        if "bias" in self.totals:
            torch.sum(g, 1, out=self.totals["bias"])

    def _used(self) -> tuple[Tensor, Tensor]:
        """Return the inputs (rows, positions, in) and output gradients (rows, positions, out) of all uses."""
        pairs = [(self._positions(inputs), self._positions(gradients)) for inputs, gradients in self.uses]
        return pairs[0] if len(pairs) == 1 else tuple(torch.cat(parts, 1) for parts in zip(*pairs, strict=True))  # type: ignore[return-value]

    def _positions(self, values: Tensor) -> Tensor:
        return values.reshape(self.now.rows.total, -1, values.shape[-1])

    def _products(self, values: Tensor, matrices: Tensor, shift: Tensor | None) -> Tensor:
        """Return (rows, ..., in) times each site's matrix (in, out), plus its shift (out,)."""
        rows = self.now.rows
        out = values.new_empty(*values.shape[:-1], matrices.shape[2])  # no view: a layer after it may work in place
        apart = rows.apart(self._positions(values)).flatten(1, 2)  # (sites, width * positions, in)
        whole = out if rows.padded else values.new_empty(len(apart) * apart.shape[1] * out.shape[-1])
        into = whole.view(*apart.shape[:2], out.shape[-1])
        if shift is None:
            torch.bmm(apart, matrices, out=into)
        else:
            torch.baddbmm(shift[:, None], apart, matrices, out=into)
        if not rows.padded:
            torch.index_select(into.view(rows.sites * rows.width, -1), 0, rows.place, out=out.view(rows.total, -1))
        return out


class Conv2d(Layer):
    """``torch.nn.Conv2d`` with zero padding and one group.

    On the CPU the sites are convolved one after another, which was measured to be faster there than one grouped
    convolution, which ``vmap`` makes, and than unfolding (docs/decisions/0005). On CUDA one serves all sites.
    """

    def __init__(self, now: Now, parts: dict[str, str], layer: nn.Conv2d) -> None:
        super().__init__(now, parts)
        self.how: tuple[Any, Any, Any] = (layer.stride, layer.padding, layer.dilation)
        self.kernel = layer.kernel_size

    def outputs(self, inputs: Tensor) -> Tensor:  # noqa: D102
        weight, bias = self.values["weight"], self.values.get("bias")
        if self._grouped(inputs):
            flat = None if bias is None else bias.flatten()
            out = functional.conv2d(self._abreast(inputs), weight.flatten(0, 1), flat, *self.how, groups=len(weight))
            return self._stacked_up(out)
        biases = [None] * len(weight) if bias is None else [*bias]
        return torch.cat([
            functional.conv2d(inputs[rows], own, own_bias, *self.how)
            for rows, own, own_bias in zip(self.now.rows.slices, weight, biases, strict=True)
            if rows.stop > rows.start
        ])  # fmt: skip

    def input_gradients(self, inputs: Tensor, gradients: Tensor) -> Tensor:  # noqa: D102
        if self._grouped(inputs):
            weight = self.values["weight"].flatten(0, 1)
            found = self._backward(self._abreast(gradients), self._abreast(inputs), weight, True)
            return self._stacked_up(found[0])
        return torch.cat([
            self._backward(gradients[rows], inputs[rows], own, True)[0]
            for rows, own in zip(self.now.rows.slices, self.values["weight"], strict=True)
            if rows.stop > rows.start
        ])  # fmt: skip

    def squares(self) -> Tensor:  # noqa: D102
        return torch.cat([
            outer_squares(*self._unfolded(slice(start, start + _ROWS)), bias="bias" in self.values)
            for start in range(0, self.now.rows.total, _ROWS)
        ])  # fmt: skip

    def sums(self, factor: Tensor | None) -> None:  # noqa: D102
        uses = self.uses
        if factor is not None:
            uses = [(inputs, scaled(gradients, factor)) for inputs, gradients in uses]
        for total in self.totals.values():
            total.zero_()
        for inputs, gradients in uses:
            if self._grouped(inputs):
                weight = self.values["weight"].flatten(0, 1)
                found = self._backward(self._abreast(gradients), self._abreast(inputs), weight, False)
                self._add(found[1].view_as(self.values["weight"]), self.now.rows.apart(gradients).sum((1, 3, 4)))
                continue
            for site, rows in enumerate(self.now.rows.slices):
                if rows.stop > rows.start:
                    own = self.values["weight"][site]
                    found = self._backward(gradients[rows], inputs[rows], own, False)
                    self._add(found[1], gradients[rows].sum((0, 2, 3)), site)

    def _add(self, weight: Tensor, bias: Tensor, site: int | slice = slice(None)) -> None:
        self.totals["weight"][site] += weight
        if "bias" in self.totals:
            self.totals["bias"][site] += bias

    def _unfolded(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Return what the positions of some rows saw, (rows, positions, in), and (rows, positions, out) gradients."""
        stride, padding, dilation = self.how
        seen = [functional.unfold(inputs[rows], self.kernel, dilation, padding, stride).mT for inputs, _ in self.uses]
        return torch.cat(seen, 1), torch.cat([gradients[rows].flatten(2).mT for _, gradients in self.uses], 1)

    def _backward(self, gradients: Tensor, inputs: Tensor, weight: Tensor, inputs_only: bool) -> tuple[Tensor, Tensor]:
        stride, padding, dilation = self.how
        groups = inputs.shape[1] // weight.shape[1]
        mask = [inputs_only, not inputs_only, False]
        return torch.ops.aten.convolution_backward(
            gradients, inputs, weight, None, stride, padding, dilation, False, [0, 0], groups, mask
        )[:2]

    def _grouped(self, inputs: Tensor) -> bool:
        return inputs.is_cuda and self.now.rows.padded

    def _abreast(self, values: Tensor) -> Tensor:
        """Return (sites * width, channels, ...) as (width, sites * channels, ...)."""
        return self.now.rows.apart(values).transpose(0, 1).flatten(1, 2)

    def _stacked_up(self, values: Tensor) -> Tensor:
        return self.now.rows.together(values.unflatten(1, (self.now.rows.sites, -1)).transpose(0, 1))


class Embedding(Layer):
    """``torch.nn.Embedding``: a row's gradient at a word is the sum over the positions that hold the word."""

    def outputs(self, inputs: Tensor) -> Tensor:  # noqa: D102
        return self.values["weight"][self._sites(inputs), inputs]

    def squares(self) -> Tensor:  # noqa: D102
        words, gradients = self._used()
        same = words[:, :, None] == words[:, None, :]  # (rows, positions, positions)
        return torch.where(same, gradients @ gradients.mT, 0.0).sum((1, 2))

    def sums(self, factor: Tensor | None) -> None:  # noqa: D102
        words, gradients = self._used()
        if factor is not None:
            gradients = scaled(gradients, factor)
        self.totals["weight"].zero_().index_put_((self._sites(words), words), gradients, accumulate=True)

    def _used(self) -> tuple[Tensor, Tensor]:
        pairs = [(words.reshape(self.now.rows.total, -1), gradients) for words, gradients in self.uses]
        words = torch.cat([words for words, _ in pairs], 1)
        return words, torch.cat([g.reshape(*own.shape, g.shape[-1]) for own, g in pairs], 1)

    def _sites(self, words: Tensor) -> Tensor:
        return self.now.rows.site.reshape(-1, *[1] * (words.dim() - 1)).expand(words.shape)


class Affine(Layer):
    """The scale and shift after a normalization, one pair for each feature; ``dims`` says where the features are."""

    def __init__(self, now: Now, parts: dict[str, str], dims: tuple[int, ...]) -> None:
        super().__init__(now, parts)
        self.dims = dims

    def outputs(self, inputs: Tensor) -> Tensor:  # noqa: D102
        out = inputs * self._spread("weight", inputs)
        return out + self._spread("bias", inputs) if "bias" in self.values else out

    def input_gradients(self, inputs: Tensor, gradients: Tensor) -> Tensor:  # noqa: D102
        return gradients * self._spread("weight", inputs)

    def squares(self) -> Tensor:  # noqa: D102
        return torch.stack([gradient.flatten(1).pow(2).sum(1) for gradient in self._of_rows().values()]).sum(0)

    def sums(self, factor: Tensor | None) -> None:  # noqa: D102
        for name, gradient in self._of_rows().items():
            gradient = gradient if factor is None else scaled(gradient, factor)
            self.totals[name].copy_(self.now.rows.apart(gradient).sum(1))

    def _of_rows(self) -> dict[str, Tensor]:
        """Return each row's gradient, {name: (rows, *shape)}."""
        found: dict[str, Tensor] = {}
        for inputs, gradients in self.uses:
            other = [dim for dim in range(1, inputs.dim()) if dim not in self._at(inputs)]
            for name, values in (("weight", inputs * gradients), ("bias", gradients)):
                if name in self.totals:
                    own = values.sum(other) if other else values
                    found[name] = own if name not in found else found[name] + own
        return found

    def _at(self, inputs: Tensor) -> list[int]:
        return [dim % inputs.dim() for dim in self.dims]

    def _spread(self, name: str, inputs: Tensor) -> Tensor:
        """Return each row's parameters, with the dimensions of the inputs."""
        shape = [size if dim in self._at(inputs) else 1 for dim, size in enumerate(inputs.shape)]
        return self.values[name][self.now.rows.site].reshape(inputs.shape[0], *shape[1:])


class Recurrent(nn.Module):
    """A GRU or LSTM, torch's or Opacus', with ``batch_first`` and one direction: two Linear layers in each layer."""

    def __init__(self, layer: nn.GRU | nn.LSTM, steps: list[tuple[Linear, Linear]]) -> None:
        super().__init__()
        self.lstm, self.hidden = "LSTM" in type(layer).__name__, layer.hidden_size
        self.seen = nn.ModuleList(seen for seen, _ in steps)
        self.kept = nn.ModuleList(kept for _, kept in steps)

    def forward(self, inputs: Tensor, start: None = None) -> tuple[Tensor, Tensor | tuple[Tensor, Tensor]]:
        """Return the last layer's outputs (rows, time, hidden) and every layer's last state, as torch's own."""
        if start is not None:
            raise NoRule("a recurrent layer with an initial state")
        ends = []
        for seen, kept in zip(self.seen, self.kept, strict=True):
            projected = seen(inputs).unbind(1)
            state = (inputs.new_zeros(len(inputs), self.hidden),) * (2 if self.lstm else 1)
            outputs = []
            for own in projected:
                state = (_lstm if self.lstm else _gru)(own, kept(state[0]), *state)
                outputs.append(state[0])
            inputs = torch.stack(outputs, 1)
            ends.append(state)
        last = [torch.stack(parts) for parts in zip(*ends, strict=True)]
        return inputs, (last[0], last[1]) if self.lstm else last[0]


def _gru(seen: Tensor, kept: Tensor, state: Tensor) -> tuple[Tensor]:
    """Return the next state of a GRU as torch defines it, with the reset gate after the product."""
    seen_gates, seen_new = seen.split([2 * state.shape[1], state.shape[1]], 1)
    kept_gates, kept_new = kept.split([2 * state.shape[1], state.shape[1]], 1)
    reset, update = (seen_gates + kept_gates).sigmoid().chunk(2, 1)
    new = (seen_new + reset * kept_new).tanh()
    return (new + update * (state - new),)


def _lstm(seen: Tensor, kept: Tensor, state: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Return the next state and cell of an LSTM."""
    into, forget, new, out = (seen + kept).chunk(4, 1)
    cell = forget.sigmoid() * cell + into.sigmoid() * new.tanh()
    return out.sigmoid() * cell.tanh(), cell


_ROWS = 16  # rows that are unfolded together for the norms of a convolution


def outer_squares(inputs: Tensor, gradients: Tensor, bias: bool) -> Tensor:
    """Return the squared norms, (rows,), of sums over positions of outer products.

    A row's weight gradient is the sum over its positions of gradient x input. For one position the norm is the product
    of theirs; for a few it follows from the products among positions (ghost norms); else the gradient is computed.

    Args:
        inputs: (rows, positions, in).
        gradients: (rows, positions, out).
        bias: Whether there is one, whose gradient is the sum of the gradients.
    """
    positions, before, after = inputs.shape[1], inputs.shape[2], gradients.shape[2]
    if positions == 1:
        return gradients.pow(2).sum((1, 2)) * (inputs.pow(2).sum((1, 2)) + float(bias))
    if positions * (before + after) < before * after:
        squares = ((inputs @ inputs.mT) * (gradients @ gradients.mT)).sum((1, 2))
    else:
        squares = (gradients.mT @ inputs).pow(2).sum((1, 2))
    return squares + gradients.sum(1).pow(2).sum(1) if bias else squares


def scaled(values: Tensor, factor: Tensor) -> Tensor:
    """Return values (rows, ...) times a factor (rows,)."""
    return values * like(factor, values)


def like(numbers: Tensor, values: Tensor) -> Tensor:
    """Return numbers (n,) with as many dimensions as values (n, ...), to multiply them with."""
    return numbers.reshape(-1, *[1] * (values.dim() - 1))


class StackedModel:
    """One architecture with the parameters of many sites.

    Args:
        model: The architecture.
        device: Where it runs.

    Raises:
        NoRule: It can't be stacked.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.now = Now(Rows(np.zeros(0, int), True, device), torch.zeros((), device=device, requires_grad=True))
        self._names = [name for name, _ in model.named_parameters()]
        self._shapes = [value.shape for value in model.parameters()]
        self.parameters: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self.layers: list[Layer] = []
        self._replaced: dict[int, nn.Module] = {}
        self.module = self._replace(copy.deepcopy(model), "").train()
        covered = [part for layer in self.layers for part in layer.parts.values()]
        if sorted(covered) != sorted(self._names):
            raise NoRule("layers that share a parameter")
        self.convolves = any(isinstance(layer, Conv2d) for layer in self.layers)

    def bind(self, stack: Tensor) -> None:
        """Use these parameters (sites, params); ``parameters`` are views of them, and ``gradients`` are like those."""
        self.parameters = self.views(stack)
        self.gradients = [torch.empty(value.shape, dtype=stack.dtype, device=stack.device) for value in self.parameters]
        values, totals = (dict(zip(self._names, of, strict=True)) for of in (self.parameters, self.gradients))
        for layer in self.layers:
            layer.values = {own: values[name] for own, name in layer.parts.items()}
            layer.totals = {own: totals[name] for own, name in layer.parts.items()}

    def __call__(self, inputs: Tensor, rows: Rows) -> Tensor:
        """Return the outputs of the big batch."""
        self.now.rows = rows
        for layer in self.layers:
            layer.uses = []
        return self.module(inputs)

    def squares(self) -> Tensor:
        """Return the squared norm of each row's gradient, (rows,), after a backward pass."""
        return torch.stack([layer.squares() for layer in self._used()]).sum(0)

    def forget(self, rows: Tensor) -> None:
        """Set some rows, bool (rows,), to zero: no factor would do it where there is a NaN or an infinity."""
        for layer in self.layers:
            layer.uses = [tuple(part.masked_fill(like(rows, part), 0) for part in use) for use in layer.uses]  # type: ignore[misc]

    def sum_gradients(self, factor: Tensor | None = None) -> None:
        """Write each site's sum of row gradients, each times its factor (rows,), into ``gradients``."""
        used = [*self._used()]
        for layer in self.layers:
            if layer in used:
                layer.sums(factor)
                layer.uses = []
            else:
                for total in layer.totals.values():
                    total.zero_()

    def costs(self) -> tuple[int, int]:
        """Return the floats kept and the multiplications done for all rows, after a backward pass."""
        uses = [(layer.values["weight"][0, 0].numel(), *use) for layer in self.layers for use in layer.uses]
        floats = sum(inputs.numel() + gradients.numel() for _, inputs, gradients in uses)
        return floats, sum(fan_in * gradients.numel() for fan_in, _, gradients in uses)

    def _used(self) -> Iterator[Layer]:
        return (layer for layer in self.layers if layer.uses)

    def views(self, stack: Tensor) -> list[Tensor]:
        """Return a tensor (sites, params) as the parameters of the model, (sites, *shape) each."""
        parts = stack.split([shape.numel() for shape in self._shapes], 1)
        return [part.unflatten(1, shape) for shape, part in zip(self._shapes, parts, strict=True)]

    def _replace(self, module: nn.Module, prefix: str) -> nn.Module:
        if id(module) in self._replaced:
            return self._replaced[id(module)]
        rule = _rule_of(module) if [*module.parameters(recurse=False)] else None
        if rule:
            new = rule(module, self.now, prefix)
            self.layers += [layer for layer in new.modules() if isinstance(layer, Layer)]
        else:
            _refuse(module, prefix)
            for name, child in module._modules.items():  # named_children() leaves out a layer that comes again
                if child is not None:
                    module._modules[name] = self._replace(child, f"{prefix}{name}.")
            new = module
        self._replaced[id(module)] = new
        return new


def _refuse(module: nn.Module, prefix: str) -> None:
    if [*module.parameters(recurse=False)]:
        raise NoRule(f"no rule for {type(module).__name__} ({prefix.rstrip('.') or 'the model'})")
    if isinstance(module, nn.modules.dropout._DropoutNd) and module.p:
        raise NoRule(f"{type(module).__name__} draws random numbers of its own at each site")


def _rule_of(module: nn.Module) -> Rule | None:
    kind = type(module)
    if kind.__module__ == "opacus.layers.dp_rnn" and kind.__name__ in ("DPGRU", "DPLSTM"):
        return _recurrent  # not imported for its name: that takes two seconds
    return RULES.get(kind)


def _own_parts(module: nn.Module, prefix: str) -> dict[str, str]:
    return {name: f"{prefix}{name}" for name, _ in module.named_parameters(recurse=False)}


def _linear(layer: nn.Linear, now: Now, prefix: str) -> nn.Module:
    return Linear(now, _own_parts(layer, prefix))


def _conv2d(layer: nn.Conv2d, now: Now, prefix: str) -> nn.Module:
    if layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise NoRule(f"no rule for a Conv2d with groups or padding other than a number ({prefix.rstrip('.')})")
    return Conv2d(now, _own_parts(layer, prefix), layer)


def _embedding(layer: nn.Embedding, now: Now, prefix: str) -> nn.Module:
    if layer.padding_idx is not None or layer.max_norm is not None or layer.scale_grad_by_freq:
        name = prefix.rstrip(".")
        raise NoRule(f"no rule for an Embedding with padding_idx, max_norm or scale_grad_by_freq ({name})")
    return Embedding(now, _own_parts(layer, prefix))


def _layer_norm(layer: nn.LayerNorm, now: Now, prefix: str) -> nn.Module:
    plain = nn.LayerNorm([*layer.normalized_shape], layer.eps, elementwise_affine=False)
    dims = tuple(range(-len(layer.normalized_shape), 0))
    return nn.Sequential(plain, Affine(now, _own_parts(layer, prefix), dims))


def _group_norm(layer: nn.GroupNorm, now: Now, prefix: str) -> nn.Module:
    plain = nn.GroupNorm(layer.num_groups, layer.num_channels, layer.eps, affine=False)
    return nn.Sequential(plain, Affine(now, _own_parts(layer, prefix), (1,)))


def _recurrent(layer: nn.GRU | nn.LSTM, now: Now, prefix: str) -> nn.Module:
    if not layer.batch_first or layer.bidirectional or layer.dropout or getattr(layer, "proj_size", 0):
        name = f"{type(layer).__name__} ({prefix.rstrip('.')})"
        raise NoRule(f"no rule for a {name} without batch_first, or with two directions, dropout or projections")
    pairs = []
    for number in range(layer.num_layers):
        both = []
        for side in ("ih", "hh"):
            parts = {"weight": f"{prefix}weight_{side}_l{number}"}
            both.append(Linear(now, parts | ({"bias": f"{prefix}bias_{side}_l{number}"} if layer.bias else {})))
        pairs.append((both[0], both[1]))
    return Recurrent(layer, pairs)


Rule = Callable[..., nn.Module]
RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv2d,
    nn.Embedding: _embedding,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.GRU: _recurrent,
    nn.LSTM: _recurrent,
}
