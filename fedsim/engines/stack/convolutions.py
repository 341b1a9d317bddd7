"""Convolutions of many sites at once, and the pooling between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsim import devices
from fedsim.engines.stack.layers import Now, Products


class Conv2d(Products):
    """``torch.nn.Conv2d`` with zero padding and one group.

    On the CPU the sites are convolved one after another. This was measured to be faster there than
    unfolding, and than the single grouped convolution that ``vmap`` makes (docs/decisions/0005). On
    a GPU a grouped convolution serves all sites, and norms are taken of as many rows at once as there is memory for.
    """

    rows_at_once = 16  # on a CPU, where more are slower to unfold

    def __init__(self, now: Now, parts: dict[str, str], layer: nn.Conv2d) -> None:
        super().__init__(now, parts)
        self.how: tuple[Any, Any, Any] = (layer.stride, layer.padding, layer.dilation)
        self.kernel = layer.kernel_size

    def outputs(self, inputs: Tensor) -> Tensor:  # noqa: D102
        weight = self.values["weight"]  # (sites, out, in, high, wide)
        bias = self.values.get("bias")  # (sites, out)
        if self._grouped(inputs):
            flat_weight = weight.flatten(0, 1)
            flat_bias = None if bias is None else bias.flatten()
            abreast = self._abreast(inputs)
            groups = len(weight)
            outputs = functional.conv2d(abreast, flat_weight, flat_bias, *self.how, groups=groups)
            return self._stacked_up(outputs)

        biases = [None] * len(weight) if bias is None else bias.unbind()
        sites = zip(self._split(inputs), weight.unbind(), biases, strict=True)
        return torch.cat([
            functional.conv2d(site_inputs, site_weight, site_bias, *self.how)
            for site_inputs, site_weight, site_bias in sites
            if len(site_inputs)
        ])  # fmt: skip

    def input_gradients(self, inputs: Tensor, gradients: Tensor) -> Tensor:  # noqa: D102
        weight = self.values["weight"]
        if self._grouped(inputs):
            at_inputs, _ = self._backward(
                self._abreast(gradients),
                self._abreast(inputs),
                weight.flatten(0, 1),
                inputs_only=True,
            )
            return self._stacked_up(at_inputs)

        sites = zip(self._split(gradients), self._split(inputs), weight.unbind(), strict=True)
        return torch.cat([
            self._backward(site_gradients, site_inputs, site_weight, True)[0]
            for site_gradients, site_inputs, site_weight in sites
            if len(site_inputs)
        ])  # fmt: skip

    def positions(self) -> int:  # noqa: D102
        return sum(gradients[0, 0].numel() for _, gradients in self.uses)

    def pairs(self, rows: slice | Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        seen = [self._seen(inputs[rows], gradients.shape[2:]) for inputs, gradients in self.uses]
        at_outputs = [gradients[rows].flatten(2) for _, gradients in self.uses]
        if len(self.uses) == 1:
            return seen[0].mT, at_outputs[0].mT
        return torch.cat(seen, 2).mT, torch.cat(at_outputs, 2).mT

    def bias_gradients(self) -> Tensor:  # noqa: D102
        of_uses = [gradients.sum((2, 3)) for _, gradients in self.uses]
        return torch.stack(of_uses).sum(0)

    def sum_weights(self, uses: list[tuple[Tensor, Tensor]]) -> None:  # noqa: D102
        weight = self.values["weight"]
        total = self.totals["weight"].zero_()
        for inputs, gradients in uses:
            if self._grouped(inputs):
                _, at_weight = self._backward(
                    self._abreast(gradients),
                    self._abreast(inputs),
                    weight.flatten(0, 1),
                    inputs_only=False,
                )
                total += at_weight.view_as(total)
                continue

            sites = zip(
                self._split(gradients),
                self._split(inputs),
                weight.unbind(),
                total.unbind(),
                strict=True,
            )
            for site_gradients, site_inputs, site_weight, site_total in sites:
                if len(site_inputs):
                    site_total += self._backward(site_gradients, site_inputs, site_weight, False)[1]

    def _split(self, values: Tensor) -> tuple[Tensor, ...]:
        """Split (rows, ...) into a tensor for each site."""
        return values.split(self.now.rows.sizes)

    def _seen(self, inputs: Tensor, out: torch.Size) -> Tensor:
        """Unfold as ``functional.unfold`` does, ten times faster on a CPU.

        Returns:
            The inputs under the kernel at each position of the outputs, (rows, in * high * wide,
            positions).
        """
        stride, padding, dilation = self.how
        padded = functional.pad(inputs, (padding[1], padding[1], padding[0], padding[0]))
        row_step, channel_step, down_step, right_step = padded.stride()

        # A view in which the numbers under the kernel have dimensions of their own, copied once.
        shape = (*padded.shape[:2], *self.kernel, *out)
        steps = (
            row_step,
            channel_step,
            dilation[0] * down_step,
            dilation[1] * right_step,
            stride[0] * down_step,
            stride[1] * right_step,
        )
        return padded.as_strided(shape, steps).reshape(len(inputs), -1, out.numel())

    def _backward(
        self,
        gradients: Tensor,
        inputs: Tensor,
        weight: Tensor,
        inputs_only: bool,
    ) -> tuple[Tensor, Tensor]:
        """Return (gradients at the inputs, None) or (None, gradients at the weight)."""
        stride, padding, dilation = self.how
        groups = inputs.shape[1] // weight.shape[1]
        mask = [inputs_only, not inputs_only, False]
        return torch.ops.aten.convolution_backward(
            gradients, inputs, weight, None, stride, padding, dilation, False, [0, 0], groups, mask
        )[:2]

    def _grouped(self, inputs: Tensor) -> bool:
        """Whether a grouped convolution serves all sites."""
        return devices.is_gpu(inputs.device) and self.now.rows.padded

    def _abreast(self, values: Tensor) -> Tensor:
        """Return (sites * width, channels, ...) as (width, sites * channels, ...)."""
        return self.now.rows.apart(values).transpose(0, 1).flatten(1, 2)

    def _stacked_up(self, values: Tensor) -> Tensor:
        """Return (width, sites * channels, ...) as (sites * width, channels, ...)."""
        of_sites = values.unflatten(1, (self.now.rows.sites, -1)).transpose(0, 1)
        return self.now.rows.together(of_sites)


class Conv1d(Conv2d):
    """``torch.nn.Conv1d`` with zero padding and one group, as a ``Conv2d`` over images of height 1."""

    def __init__(self, now: Now, parts: dict[str, str], layer: nn.Conv1d) -> None:
        Products.__init__(self, now, parts)
        self.how = ((1, *layer.stride), (0, *layer.padding), (1, *layer.dilation))
        self.kernel = (1, *layer.kernel_size)

    def bind(self, values: dict[str, Tensor], totals: dict[str, Tensor]) -> None:  # noqa: D102
        super().bind(values, totals)
        for tensors in (self.values, self.totals):
            tensors["weight"] = tensors["weight"].unsqueeze(3)  # (sites, out, in, 1, wide)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute outputs (rows, out, places) from inputs (rows, in, places)."""
        return super().forward(inputs.unsqueeze(2)).squeeze(2)

    def _row_gradients(self, rows: Tensor) -> dict[str, Tensor]:
        of_rows = super()._row_gradients(rows)
        return {**of_rows, "weight": of_rows["weight"].squeeze(3)}


class _Largest(torch.autograd.Function):
    """Max pooling with windows side by side.

    On a CPU it is many times faster than torch's, and gives the same bits.
    """

    @staticmethod
    def forward(ctx, inputs: Tensor, size: tuple[int, int]) -> Tensor:  # type: ignore[override]  # noqa: ANN001
        largest, *others = _in_windows(inputs, size)
        for values in others:
            largest = torch.maximum(largest, values)
        ctx.save_for_backward(inputs, largest)
        ctx.size = size
        return largest

    @staticmethod
    def backward(ctx, gradients: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]  # noqa: ANN001
        inputs, largest = ctx.saved_tensors
        high, wide = ctx.size
        row_length = inputs.shape[3]
        device = inputs.device

        # Find the place of the largest value in each window, (rows, channels, windows down, windows
        # across). Of equal values the first gets the whole gradient.
        first = torch.full(largest.shape, 0, dtype=torch.uint8, device=device)
        left = torch.full(largest.shape, 1, dtype=torch.uint8, device=device)  # 1 until it is found
        for place, values in enumerate(_in_windows(inputs, ctx.size)):
            here = (values == largest).view(torch.uint8) & left
            first += place * here
            left -= here

        # From places in windows to places in images, as torch's own backward pass takes them.
        offsets = [row_length * y + x for y in range(high) for x in range(wide)]
        inside = torch.tensor(offsets, device=device)
        down = torch.arange(largest.shape[2], device=device)
        right = torch.arange(largest.shape[3], device=device)
        places = inside.index_select(0, first.int().flatten()).view(first.shape)
        places += (row_length * high * down)[:, None] + wide * right

        at_inputs = torch.ops.aten.max_pool2d_with_indices_backward(
            gradients.contiguous(),
            inputs.contiguous(),
            ctx.size,  # of a window
            ctx.size,  # stride: windows stand side by side
            [0, 0],  # padding
            [1, 1],  # dilation
            False,  # whether sizes are rounded up
            places,
        )
        return at_inputs, None


def _in_windows(values: Tensor, size: tuple[int, int]) -> list[Tensor]:
    """Return for each place in a window the values of all windows there.

    Each is a view, (rows, channels, windows down, windows across).
    """
    high, wide = size
    windows_down = values.shape[2] // high
    windows_across = values.shape[3] // wide
    whole = values[:, :, : windows_down * high, : windows_across * wide]
    return [whole[:, :, y::high, x::wide] for y in range(high) for x in range(wide)]


class MaxPool2d(nn.Module):
    """``torch.nn.MaxPool2d`` with windows side by side."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the largest value of each window."""
        if devices.is_gpu(inputs.device):  # one operation in place of twenty
            return functional.max_pool2d(inputs, self.size)
        return _Largest.apply(inputs, self.size)
