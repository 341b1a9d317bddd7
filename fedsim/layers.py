"""Layers of many sites at once, and the gradients of their rows.

The batches of all sites are one big batch. A layer without parameters does not notice: what it does to a row depends on
that row alone. A layer with parameters is replaced by one that holds the parameters of every site, (sites, *shape), and
knows which rows are whose.

Autograd computes no gradient of a parameter. It only hands every layer its inputs and the gradients at its outputs, row
by row. From these two follow the norm of each row's gradient, without that gradient where this is cheaper ("ghost
norms": Goodfellow 2015, https://arxiv.org/abs/1510.01799; Li et al. 2022, https://arxiv.org/abs/2110.05679), and then
the sum of the clipped gradients, without a second backward pass ("book-keeping": Bu et al. 2023,
https://arxiv.org/abs/2210.00038). Training without privacy is the same with no clipping in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn


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
        self._counts = counts
        self._device = device
        self.total = int(self._sizes.sum())

    @cached_property
    def sizes(self) -> list[int]:
        """How many rows of the big batch each site has."""
        return self._sizes.tolist()

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

    def of_sites(self, values: Tensor) -> Tensor:
        """Return (rows, ..., features) as (sites, width times what stands between, features), filled up with zeros."""
        apart = values if self.padded else self.apart(values.reshape(self.total, -1, values.shape[-1]))
        return apart.reshape(self.sites, -1, values.shape[-1])

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

    def begin(self) -> None:
        """Forget the step before."""
        self.uses = []

    def forget(self, rows: Tensor) -> None:
        """Set some rows, bool (rows,), to zero: no factor would do it where there is a NaN or an infinity."""
        self.uses = [
            (inputs.masked_fill(like(rows, inputs), 0), gradients.masked_fill(like(rows, gradients), 0))
            for inputs, gradients in self.uses
        ]

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
        a, g = self.now.rows.of_sites(inputs), self.now.rows.of_sites(gradients)
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
        rows, features = self.now.rows, matrices.shape[2]
        out = values.new_empty(*values.shape[:-1], features)  # no view: a layer after it may work in place
        apart = rows.of_sites(values)
        into = out if rows.padded else values.new_empty(rows.sites, apart.shape[1], features)
        products = into.view(rows.sites, -1, features)
        if shift is None:
            torch.bmm(apart, matrices, out=products)
        else:
            torch.baddbmm(shift[:, None], apart, matrices, out=products)
        if not rows.padded:
            whole = into.view(rows.sites * rows.width, -1)
            torch.index_select(whole, 0, rows.place, out=out.view(rows.total, -1))
        return out


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
