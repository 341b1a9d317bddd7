"""Convolutions of many sites at once, and the pooling between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsim.engines.stack.layers import Now, Products


class Conv2d(Products):
    """``torch.nn.Conv2d`` with zero padding and one group.

    On the CPU the sites are convolved one after another, which was measured to be faster there than one grouped
    convolution, which ``vmap`` makes, and than unfolding (docs/decisions/0005). On CUDA one serves all sites.
    """

    rows_at_once = 16  # more are slower to unfold on a CPU

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
        biases = [None] * len(weight) if bias is None else bias.unbind()
        return torch.cat([
            functional.conv2d(own, own_weight, own_bias, *self.how)
            for own, own_weight, own_bias in zip(self._split(inputs), weight.unbind(), biases, strict=True)
            if len(own)
        ])  # fmt: skip

    def input_gradients(self, inputs: Tensor, gradients: Tensor) -> Tensor:  # noqa: D102
        weight = self.values["weight"]
        if self._grouped(inputs):
            found = self._backward(self._abreast(gradients), self._abreast(inputs), weight.flatten(0, 1), True)
            return self._stacked_up(found[0])
        return torch.cat([
            self._backward(gradient, own, own_weight, True)[0]
            for gradient, own, own_weight in zip(
                self._split(gradients), self._split(inputs), weight.unbind(), strict=True
            )
            if len(own)
        ])  # fmt: skip

    def positions(self) -> int:  # noqa: D102
        return sum(gradients[0, 0].numel() for _, gradients in self.uses)

    def pairs(self, rows: slice | Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        seen = [self._seen(inputs[rows], gradients.shape[2:]) for inputs, gradients in self.uses]
        at_outputs = [gradients[rows].flatten(2) for _, gradients in self.uses]
        return torch.cat(seen, 2).mT, torch.cat(at_outputs, 2).mT

    def bias_gradients(self) -> Tensor:  # noqa: D102
        return torch.stack([gradients.sum((2, 3)) for _, gradients in self.uses]).sum(0)

    def sum_weights(self, uses: list[tuple[Tensor, Tensor]]) -> None:  # noqa: D102
        weight = self.values["weight"]
        total = self.totals["weight"].zero_()
        for inputs, gradients in uses:
            if self._grouped(inputs):
                found = self._backward(self._abreast(gradients), self._abreast(inputs), weight.flatten(0, 1), False)
                total += found[1].view_as(total)
                continue
            for gradient, own, own_weight, own_total in zip(
                self._split(gradients), self._split(inputs), weight.unbind(), total.unbind(), strict=True
            ):
                if len(own):
                    own_total += self._backward(gradient, own, own_weight, False)[1]

    def _split(self, values: Tensor) -> tuple[Tensor, ...]:
        return values.split(self.now.rows.sizes)

    def _seen(self, inputs: Tensor, out: torch.Size) -> Tensor:
        """Unfold as ``functional.unfold`` does, ten times faster on a CPU."""
        (down, right), (high, wide), (apart_down, apart_right) = self.how
        padded = functional.pad(inputs, (wide, wide, high, high))
        rows, channels, row_step, right_step = *padded.stride()[:2], *padded.stride()[2:]
        shape = (*padded.shape[:2], *self.kernel, *out)
        steps = (rows, channels, apart_down * row_step, apart_right * right_step, down * row_step, right * right_step)
        return padded.as_strided(shape, steps).reshape(len(inputs), -1, out.numel())

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


class _Largest(torch.autograd.Function):
    """Max pooling with windows side by side, many times faster on a CPU than torch's; the same bits."""

    @staticmethod
    def forward(ctx, inputs: Tensor, size: tuple[int, int]) -> Tensor:  # type: ignore[override]  # noqa: ANN001
        largest, *rest = _in_windows(inputs, size)
        for values in rest:
            largest = torch.maximum(largest, values)
        ctx.save_for_backward(inputs, largest)
        ctx.size = size
        return largest

    @staticmethod
    def backward(ctx, gradients: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]  # noqa: ANN001
        inputs, largest = ctx.saved_tensors
        (high, wide), across = ctx.size, inputs.shape[3]
        first, left = (torch.full(largest.shape, n, dtype=torch.uint8, device=inputs.device) for n in (0, 1))
        for place, values in enumerate(_in_windows(inputs, ctx.size)):  # of equals, the first gets it all
            here = (values == largest).view(torch.uint8) & left
            first += place * here
            left -= here
        inside = torch.tensor([across * y + x for y in range(high) for x in range(wide)], device=inputs.device)
        down, right = (torch.arange(n, device=inputs.device) for n in largest.shape[2:])
        at = inside.index_select(0, first.int().flatten()).view(first.shape)
        at += (across * high * down)[:, None] + wide * right
        found = torch.ops.aten.max_pool2d_with_indices_backward(
            gradients.contiguous(), inputs.contiguous(), ctx.size, ctx.size, [0, 0], [1, 1], False, at
        )
        return found, None


def _in_windows(values: Tensor, size: tuple[int, int]) -> list[Tensor]:
    """Return for each place in a window the values of all windows there: (rows, channels, windows down, across)."""
    down, across = values.shape[2] // size[0], values.shape[3] // size[1]
    whole = values[:, :, : down * size[0], : across * size[1]]
    return [whole[:, :, y :: size[0], x :: size[1]] for y in range(size[0]) for x in range(size[1])]


class MaxPool2d(nn.Module):
    """``torch.nn.MaxPool2d`` with windows side by side."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the largest value of each window."""
        return _Largest.apply(inputs, self.size)
