"""Layers that compute for many sites at once, and the gradients of their rows.

The batches of all sites form one big batch. A layer without parameters works on it unchanged,
because its output for a row depends on that row alone. A layer with parameters is replaced by a
layer that holds the parameters of every site, (sites, *shape), and knows to which site each row
belongs.

Autograd computes no gradient of a parameter here. It only hands every layer its inputs and the
gradients at its outputs, row by row. From these two a layer computes the norm of each row's
gradient, without the gradient itself where that is cheaper ("ghost norms": Goodfellow 2015,
https://arxiv.org/abs/1510.01799; Li et al. 2022, https://arxiv.org/abs/2110.05679). Then it
computes the sum of the clipped gradients, without a second backward pass ("book-keeping": Bu et al.
2023, https://arxiv.org/abs/2210.00038). Training without privacy takes the same path, and clips
nothing in between.

Rows are clipped by an upper bound of their norm, whatever the numbers are. Let u = 2^-24 be the
unit roundoff of float32, G the gradient of a row, and N its norm. A layer adds the row's share to
its site's sum in one of three ways, and each way has a norm that fits it:

1. As G itself, computed once in float32 (``Affine``, ``Embedding``, ``Generic`` for modules without
   a rule, and ``Products`` with many positions). The norm is computed in float64, from the very
   numbers that are added. So it does not matter which digits were lost on the way to G.
2. As one outer product of gradient and input (``Products`` with one position). Then N is the
   product of their norms. A norm of n numbers, computed in float64, has a relative error of at most
   n 2^-53.
3. As a sum over positions of outer products g_p x_p, which is never computed for one row alone
   (``Products`` with few positions and a large weight). N^2 is the sum over p, q of
   (g_p g_q)(x_p x_q), in float64. Let the mass S be the sum of |g_p| |x_p|. The error of N^2 is at
   most (in + out + positions^2) 2^-52 S^2. The sum over rows is rounded in float32, where the terms
   of the row have the mass S. So only rows with S <= 2^6 N (``CANCELLING``) go this way. The terms
   of the other rows nearly cancel, and these rows go the first way. Hence N^2 has a relative error
   of at most 2^-40 (in + out + positions^2).

In each way the computed N has a relative error of at most 2^-20 (in the third way as long as
in + out + positions^2 is below 2^21), and the terms of a row's share have a mass of at most 2^6
clips (S = N in the first two ways). A row is clipped by N + 2 u S, so that every term may be off by
2 u. There remain the digits that a sum itself loses: adding n float32 numbers may in the worst case
lose n u times their mass, in any engine. And G itself may differ in its last bits with the number
of rows that stand beside it. A model that amplifies its own rounding errors amplifies this
difference, too. So private batches are filled up to a multiple of 16 rows, where torch computes
each row alike. docs/privacy.md reports the search for rows that break any of this.

A row counts as zero where its norm is not a number, or so large that the model's own type can't
hold its square. Inputs are held to the same limit, because the gradients beside larger ones would
be too small to be scaled without loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from fedsim import devices
from fedsim.privacy.norms import largest_square, square_norms
from fedsim.training.dropout import Draws

CANCELLING = 2.0**6  # a row whose terms are so many times its gradient is not summed term by term
_FEW_COLUMNS = 8  # of a product on a CPU, which then takes up to six times as long as the transposed product
_FLOATS = 2**24  # of rows' gradients that are kept from the norms to the sums, or computed at once


class NoRule(Exception):
    """A model can't be stacked; the message gives the reason."""


class NotApart(NoRule):
    """A model's stacked form differs from the model on each row: clipping would bound nothing."""


class Rows:
    """The places of each site's rows in the big batch.

    Args:
        counts: The number of rows of each site, (sites,).
        padded: Whether each site's rows are filled up to the longest, so that the big batch is
            (sites * width, ...) and a view (sites, width, ...) of it exists. Otherwise rows stand
            close together.
        device: The device of the tensors.
        multiple: The width is rounded up to a multiple of this.
        least: The least width.
    """

    def __init__(
        self,
        counts: np.ndarray,
        padded: bool,
        device: torch.device,
        multiple: int = 1,
        least: int = 1,
    ) -> None:
        longest = max(least, int(counts.max(initial=0)))
        self.sites = len(counts)
        self.width = -(-longest // multiple) * multiple  # rounded up
        self.padded = padded
        self._sizes = np.full_like(counts, self.width) if padded else counts
        self._counts = counts
        self._device = device
        self.total = int(self._sizes.sum())

    @cached_property
    def sizes(self) -> list[int]:
        """The number of rows that each site has in the big batch."""
        return self._sizes.tolist()

    @cached_property
    def counts(self) -> list[int]:
        """The number of rows that each site has, without those that only fill up."""
        return self._counts.tolist()

    @cached_property
    def site(self) -> Tensor:
        """The site of each row, int64 (rows,)."""
        sites = np.repeat(np.arange(self.sites), self._sizes)
        return devices.moved(sites, self._device)

    @cached_property
    def place(self) -> Tensor:
        """The place of each row in (sites * width, ...), int64 (rows,)."""
        return devices.moved(self.places, self._device)

    @cached_property
    def places(self) -> np.ndarray:
        """The same places, only of the rows that don't just fill up."""
        first = np.cumsum(self._counts) - self._counts  # each site's first row, without padding
        shifts = np.arange(self.sites) * self.width - first
        return np.arange(int(self._counts.sum())) + np.repeat(shifts, self._counts)

    def apart(self, values: Tensor) -> Tensor:
        """Return (rows, ...) as (sites, width, ...), filled up with zeros."""
        shape = values.shape[1:]
        if self.padded:
            return values.reshape(self.sites, self.width, *shape)
        filled = values.new_zeros(self.sites * self.width, *shape)
        filled.index_copy_(0, self.place, values)
        return filled.view(self.sites, self.width, *shape)

    def of_sites(self, values: Tensor) -> Tensor:
        """Return (rows, ..., features) as (sites, width * positions, features).

        Missing rows are filled up with zeros.
        """
        features = values.shape[-1]
        apart = values if self.padded else self.apart(values.reshape(self.total, -1, features))
        return apart.reshape(self.sites, -1, features)

    def together(self, values: Tensor) -> Tensor:
        """Return (sites, width, ...) as (rows, ...)."""
        flat = values.flatten(0, 1)
        return flat if self.padded else flat[self.place]


@dataclass
class Now:
    """The state that the layers of one stack share.

    Attributes:
        rows: The rows of this step.
        anchor: A tensor that needs a gradient, so that autograd visits every layer.
        draws: The random numbers by which layers drop.
        room: The float32 numbers of rows' gradients that a layer may hold at once on a GPU, where more rows at once
            are faster; None on a CPU, where each layer knows what suits it.
        narrow: Whether products are computed in bfloat16; never where gradients are clipped.
    """

    rows: Rows
    anchor: Tensor
    draws: Draws
    room: int | None = None
    narrow: bool = False

    @property
    def floats(self) -> int:
        """The float32 numbers of rows' gradients that a layer may hold at once."""
        return _FLOATS if self.room is None else self.room


@dataclass(frozen=True)
class Sizes:
    """The size of each row's gradient.

    Attributes:
        squares: The squared norm, float64 (rows,); NaN or infinite where it can't be computed.
        masses: The square of the summed norms of the terms that are added to the site's sum,
            float64 (rows,); None where each row adds one term, so that the mass is ``squares``.
    """

    squares: Tensor
    masses: Tensor | None = None


class _Seen(torch.autograd.Function):
    """One use of a layer.

    The backward pass leaves (inputs, gradients at the outputs) with the layer.
    """

    @staticmethod
    def forward(ctx, anchor: Tensor, inputs: Tensor, layer: Layer) -> Tensor:  # type: ignore[override]  # noqa: ANN001
        ctx.layer = layer
        ctx.save_for_backward(inputs)
        return layer.outputs(inputs)

    @staticmethod
    def backward(ctx, gradients: Tensor) -> tuple[None, Tensor | None, None]:  # type: ignore[override]  # noqa: ANN001
        (inputs,) = ctx.saved_tensors
        ctx.layer.uses.append((inputs.detach(), gradients))

        at_inputs = None
        if ctx.needs_input_grad[1]:
            at_inputs = ctx.layer.input_gradients(inputs, gradients)
        return None, at_inputs, None


class Layer(nn.Module):
    """A layer with the parameters of every site.

    Attributes:
        parts: {the parameter's name in the layer: its name in the model}.
        values: {name in the layer: (sites, *shape)}, views of the stack.
        totals: {name in the layer: (sites, *shape)}, where ``sums`` writes; contiguous, because
            batched products are slow otherwise.
        uses: (inputs, gradients at the outputs) of each time the layer was used.
    """

    def __init__(self, now: Now, parts: dict[str, str]) -> None:
        super().__init__()
        self.now = now
        self.parts = parts
        self.values: dict[str, Tensor] = {}
        self.totals: dict[str, Tensor] = {}
        self.uses: list[tuple[Tensor, Tensor]] = []

    def bind(self, values: dict[str, Tensor], totals: dict[str, Tensor]) -> None:
        """Use these parameters, and write sums into these tensors: {name in the layer: (sites, *shape)}."""
        self.values = values
        self.totals = totals

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute outputs (rows, ...) from inputs (rows, ...), by each row's site."""
        if torch.is_grad_enabled():
            return _Seen.apply(self.now.anchor, inputs, self)
        return self.outputs(inputs)

    def outputs(self, inputs: Tensor) -> Tensor:
        """Compute the outputs."""
        raise NotImplementedError

    def input_gradients(self, inputs: Tensor, gradients: Tensor) -> Tensor:
        """Compute the gradient at the inputs from that at the outputs."""
        raise NotImplementedError

    @property
    def was_used(self) -> bool:
        """Whether the layer was used in this step."""
        return bool(self.uses)

    def begin(self) -> None:
        """Forget the step before."""
        self.uses = []

    def end(self) -> None:
        """Let go of what the layer keeps for the sums, once they are written."""
        self.uses = []

    def row_gradients(self, rows: Tensor) -> dict[str, Tensor]:
        """Compute the gradients of some rows over all uses, after a backward pass.

        Args:
            rows: The rows' numbers in the big batch, int64 (n,).

        Returns:
            {the parameter's name in the layer: (n, *shape)}; zeros if the layer was not used.
        """
        if self.was_used:
            return self._row_gradients(rows)
        return {name: total.new_zeros(len(rows), *total.shape[1:]) for name, total in self.totals.items()}

    def _row_gradients(self, rows: Tensor) -> dict[str, Tensor]:
        """Compute the same for a layer that was used."""
        raise NotImplementedError

    def costs(self) -> tuple[int, int]:
        """Count the floats kept and the multiplications done, after a backward pass."""
        floats = 0
        products = 0
        for inputs, gradients in self.uses:
            fan_in = self.values["weight"][0, 0].numel()
            floats += inputs.numel() + gradients.numel()
            products += fan_in * gradients.numel()
        return floats, products

    def forget(self, rows: Tensor) -> None:
        """Set some rows, bool (rows,), to zero.

        A factor of zero would not remove a NaN or an infinity.
        """
        uses = []
        for inputs, gradients in self.uses:
            kept_inputs = inputs.masked_fill(like(rows, inputs), 0)
            kept_gradients = gradients.masked_fill(like(rows, gradients), 0)
            uses.append((kept_inputs, kept_gradients))
        self.uses = uses

    def sizes(self) -> Sizes:
        """Measure each row's gradient over all uses."""
        raise NotImplementedError

    def single_out(self, rows: Tensor) -> Tensor | None:
        """Choose rows, int64 (n,), that ``sums`` will add by their gradients themselves.

        Returns:
            The squared norms of these gradients, float64 (n,); None if this layer adds all rows so
            anyway.
        """
        return None

    def sums(self, factor: Tensor | None) -> None:
        """Write each site's sum of row gradients, times their factors (rows,), into ``totals``."""
        raise NotImplementedError


class Products(Layer):
    """A layer whose weight gradient is, in each row, a sum of outer products over positions.

    Norms and sums under privacy go one of the three ways in this module's docstring. The numbers of
    positions and of weights alone decide which, except for rows that are singled out.
    """

    rows_at_once = _FLOATS  # the most rows whose positions are gathered at once on a CPU

    def __init__(self, now: Now, parts: dict[str, str]) -> None:
        super().__init__(now, parts)
        self._kept: Tensor | None = None  # weight gradients, from norms to sums, (rows, out, in)
        self._alone: Tensor | None = None  # rows that are singled out, int64 (n,)
        self._whole: dict[str, Tensor] = {}  # ``values`` as they are bound, not narrowed

    def positions(self) -> int:
        """Count the positions of a row over all uses."""
        raise NotImplementedError

    def pairs(self, rows: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs and the gradients at the outputs of some rows, position by position.

        Returns:
            Inputs (rows, positions, in), and gradients (rows, positions, out).
        """
        raise NotImplementedError

    def bias_gradients(self) -> Tensor:
        """Return each row's gradient of the bias, (rows, out)."""
        raise NotImplementedError

    def sum_weights(self, uses: list[tuple[Tensor, Tensor]]) -> None:
        """Write each site's sum of weight gradients, over some uses, into ``totals``."""
        raise NotImplementedError

    def bind(self, values: dict[str, Tensor], totals: dict[str, Tensor]) -> None:  # noqa: D102
        super().bind(values, totals)
        self._whole = self.values

    def forward(self, inputs: Tensor) -> Tensor:  # noqa: D102
        return super().forward(inputs.bfloat16() if self.now.narrow else inputs)

    def begin(self) -> None:  # noqa: D102
        super().begin()
        self._kept = None
        self._alone = None
        self.values = self._whole
        if self.now.narrow:
            self.values = {name: value.bfloat16() for name, value in self._whole.items()}

    def sizes(self) -> Sizes:  # noqa: D102
        # The first way: norms of the gradients themselves.
        if self.positions() > 1 and self._is_itself_cheaper():
            return Sizes(self._with_bias(self._squares_of_gradients(), slice(None)))

        # The second and the third way: norms without the gradients.
        has_bias = "bias" in self.totals
        of_chunks = [outer_sizes(*self.pairs(chunk), bias=has_bias) for chunk in self._chunks()]
        squares = torch.cat([sizes.squares for sizes in of_chunks])
        masses = [sizes.masses for sizes in of_chunks if sizes.masses is not None]
        return Sizes(squares, torch.cat(masses) if masses else None)

    def single_out(self, rows: Tensor) -> Tensor | None:  # noqa: D102
        if self.positions() == 1 or self._is_itself_cheaper():
            return None
        self._alone = rows
        chunks = rows.split(self._rows_in_chunk())
        squares = torch.cat([square_norms(self._gradients(chunk)) for chunk in chunks])
        return self._with_bias(squares, rows)

    def forget(self, rows: Tensor) -> None:  # noqa: D102
        super().forget(rows)
        if self._kept is not None:
            self._kept.masked_fill_(like(rows, self._kept), 0)

    def _row_gradients(self, rows: Tensor) -> dict[str, Tensor]:
        self.positions()  # joins the uses
        shape = self.totals["weight"].shape[1:]
        chunks = [self._gradients(chunk) for chunk in rows.split(self._rows_in_chunk())]
        of_rows = {"weight": torch.cat(chunks).view(len(rows), *shape)}
        if "bias" in self.totals:
            of_rows["bias"] = self.bias_gradients()[rows]
        return of_rows

    def sums(self, factor: Tensor | None) -> None:  # noqa: D102
        if "bias" in self.totals:
            of_rows = self.bias_gradients()
            if factor is not None:
                of_rows = scaled(of_rows, factor)
            total = self.totals["bias"]
            torch.sum(self.now.rows.apart(of_rows), 1, dtype=total.dtype, out=total)

        if factor is None:
            self.sum_weights(self.uses)
        elif self.positions() > 1 and self._is_itself_cheaper():
            self._sum_gradients(factor)
        else:
            self._sum_products(factor)

    def _with_bias(self, squares: Tensor, rows: Tensor | slice) -> Tensor:
        """Return the squared norms of some rows' gradients, given those of the weight alone."""
        if "bias" not in self.totals:
            return squares
        return squares + square_norms(self.bias_gradients()[rows])

    def _sum_gradients(self, factor: Tensor) -> None:
        """Sum the gradients of rows, which were kept or are computed anew."""
        total = self.totals["weight"].zero_()
        if self._kept is None:
            for chunk in self._chunks():
                self._add(total, self._gradients(chunk), factor[chunk], self.now.rows.site[chunk])
        elif self.now.rows.padded:
            sites = self.now.rows.sites
            width = self.now.rows.width
            of_sites = self._kept.view(sites, width, -1)
            torch.bmm(factor.view(sites, 1, width), of_sites, out=total.view(sites, 1, -1))
        else:
            self._add(total, self._kept, factor, self.now.rows.site)

    def _sum_products(self, factor: Tensor) -> None:
        """Sum outer products of all rows at once, except for the rows that are singled out."""
        alone = self._alone
        together = factor if alone is None else factor.index_fill(0, alone, 0)
        self.sum_weights([(inputs, scaled(gradients, together)) for inputs, gradients in self.uses])
        if alone is None:
            return

        # The factor of zero removed these rows above: values that are not finite were forgotten.
        total = self.totals["weight"]
        for chunk in alone.split(self._rows_in_chunk()):
            self._add(total, self._gradients(chunk), factor[chunk], self.now.rows.site[chunk])

    @staticmethod
    def _add(total: Tensor, gradients: Tensor, factor: Tensor, sites: Tensor) -> None:
        """Add gradients (rows, out, in), times factors (rows,), to sites' sums (sites, *shape)."""
        total.view(len(total), -1).index_add_(0, sites, scaled(gradients, factor).flatten(1))

    def _squares_of_gradients(self) -> Tensor:
        """Return the squared norms of all rows' gradients, (rows,).

        The gradients are computed themselves, and kept if there is room.
        """
        rows = self.now.rows.total
        after, before = self._shape()
        if rows * after * before <= self.now.floats:
            self._kept = self.totals["weight"].new_empty(rows, after, before)

        squares = []
        for chunk in self._chunks():
            room = None if self._kept is None else self._kept[chunk]
            gradients = self._gradients(chunk, room)
            squares.append(square_norms(gradients))
        return torch.cat(squares)

    def _gradients(self, rows: slice | Tensor, out: Tensor | None = None) -> Tensor:
        """Compute the weight gradients of some rows, (rows, out, in)."""
        inputs, gradients = self.pairs(rows)
        return torch.bmm(gradients.mT, inputs, out=out)

    def _is_itself_cheaper(self) -> bool:
        """Whether a row's gradient costs no more time than its norm without it, and the sum after that.

        Gradients are computed once and written once; the norms multiply positions in float64, and the sum takes all
        the products again. By measurement both cost the same where a row's gradient is about twice as large as the
        inputs and gradients of its positions.
        """
        after, before = self._shape()
        return 2 * self.positions() * (before + after) >= before * after

    def _shape(self) -> tuple[int, int]:
        """Return the numbers of outputs and of inputs of one position."""
        weight = self.totals["weight"]
        return weight.shape[1], weight[0, 0].numel()

    def _rows_in_chunk(self) -> int:
        """Return the number of rows whose gradients and positions there is room for at once."""
        after, before = self._shape()
        floats = max(before * after, self.positions() * (before + after))
        fit = self.now.floats // floats
        return max(1, fit if self.now.room is not None else min(self.rows_at_once, fit))

    def _chunks(self) -> list[slice]:
        """Cut the rows into chunks that there is room for."""
        step = self._rows_in_chunk()
        return [slice(start, start + step) for start in range(0, self.now.rows.total, step)]


class Linear(Products):
    """``torch.nn.Linear`` on (rows, ..., features).

    The dimensions in between are positions, whose gradients add up.
    """

    def outputs(self, inputs: Tensor) -> Tensor:  # noqa: D102
        weight = self.values["weight"]  # (sites, out, in)
        bias = self.values.get("bias")  # (sites, out)
        return self._products(inputs, weight.mT, bias)

    def input_gradients(self, inputs: Tensor, gradients: Tensor) -> Tensor:  # noqa: D102
        return self._products(gradients, self.values["weight"], None)

    def positions(self) -> int:  # noqa: D102
        self.uses = [self._together(self.uses)]  # once for all methods that ask for them
        inputs, _ = self.uses[0]
        return inputs.shape[1]

    def pairs(self, rows: slice | Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        inputs, gradients = self._together(self.uses)
        return inputs[rows], gradients[rows]

    def bias_gradients(self) -> Tensor:  # noqa: D102
        _, gradients = self._together(self.uses)
        return gradients[:, 0] if gradients.shape[1] == 1 else gradients.sum(1)

    def sum_weights(self, uses: list[tuple[Tensor, Tensor]]) -> None:  # noqa: D102
        inputs, gradients = self._together(uses)
        rows = self.now.rows
        at_outputs = rows.of_sites(gradients)  # (sites, width * positions, out)
        seen = rows.of_sites(inputs)  # (sites, width * positions, in)
        total = self.totals["weight"]
        if seen.shape[2] <= _FEW_COLUMNS < at_outputs.shape[2]:
            total.copy_(torch.bmm(seen.mT, at_outputs).mT)
        elif self.now.narrow:
            total.copy_(torch.bmm(at_outputs.mT, seen))
        else:
            torch.bmm(at_outputs.mT, seen, out=total)

    def _together(self, uses: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Join some uses: inputs (rows, positions, in), gradients (rows, positions, out)."""
        inputs = [self._positions(seen) for seen, _ in uses]
        gradients = [self._positions(at_outputs) for _, at_outputs in uses]
        if len(uses) == 1:
            return inputs[0], gradients[0]
        return torch.cat(inputs, 1), torch.cat(gradients, 1)

    def _positions(self, values: Tensor) -> Tensor:
        """Return (rows, ..., features) as (rows, positions, features)."""
        return values.reshape(self.now.rows.total, -1, values.shape[-1])

    def _products(self, values: Tensor, matrices: Tensor, shift: Tensor | None) -> Tensor:
        """Return (rows, ..., in) times each site's matrix (in, out), plus its shift (out,)."""
        rows = self.now.rows
        features = matrices.shape[2]

        # A tensor of its own, no view: a layer after it may work in place.
        out = values.new_empty(*values.shape[:-1], features)
        apart = rows.of_sites(values)  # (sites, width * positions, in)

        # Padded rows are written to their place at once; others first into a padded tensor.
        padded_out = out if rows.padded else values.new_empty(rows.sites, apart.shape[1], features)
        products = padded_out.view(rows.sites, -1, features)
        if shift is None:
            torch.bmm(apart, matrices, out=products)
        else:
            torch.baddbmm(shift[:, None], apart, matrices, out=products)
        if not rows.padded:
            whole = padded_out.view(rows.sites * rows.width, -1)
            torch.index_select(whole, 0, rows.place, out=out.view(rows.total, -1))
        return out


class Embedding(Layer):
    """``torch.nn.Embedding``.

    A row's gradient at a word is the sum over the positions that hold the word. At the word ``padding`` it is zero.
    """

    def __init__(self, now: Now, parts: dict[str, str], padding: int | None = None) -> None:
        super().__init__(now, parts)
        self.padding = padding
        self._of_rows: Tensor | None = None  # gradients at words, (rows, positions, features)

    def outputs(self, inputs: Tensor) -> Tensor:  # noqa: D102
        return self.values["weight"][self._sites(inputs), inputs]

    def begin(self) -> None:  # noqa: D102
        super().begin()
        self._of_rows = None

    def sizes(self) -> Sizes:  # noqa: D102
        words, gradients = self._used()
        same = words[:, :, None] == words[:, None, :]  # (rows, positions, positions)

        # The first position that holds a word stands for all of them, so that a row's gradient is
        # not added in parts.
        is_first = ~same.tril(-1).any(2)
        self._of_rows = (same.to(gradients) @ gradients) * is_first[:, :, None]
        return Sizes(square_norms(self._of_rows))

    def forget(self, rows: Tensor) -> None:  # noqa: D102
        super().forget(rows)
        if self._of_rows is not None:
            self._of_rows = self._of_rows.masked_fill(like(rows, self._of_rows), 0)

    def sums(self, factor: Tensor | None) -> None:  # noqa: D102
        words, gradients = self._used()
        if factor is not None:
            if self._of_rows is None:
                raise RuntimeError("expected sizes() before clipped sums")
            gradients = scaled(self._of_rows, factor)
        total = self.totals["weight"].zero_()
        total.index_put_((self._sites(words), words), gradients, accumulate=True)

    def _used(self) -> tuple[Tensor, Tensor]:
        """Join all uses: words (rows, positions), gradients (rows, positions, features)."""
        words = []
        gradients = []
        for inputs, at_outputs in self.uses:
            words_of_use = inputs.reshape(self.now.rows.total, -1)
            words.append(words_of_use)
            gradients.append(at_outputs.reshape(*words_of_use.shape, at_outputs.shape[-1]))
        if self.padding is None:
            return torch.cat(words, 1), torch.cat(gradients, 1)
        all_words = torch.cat(words, 1)
        is_padding = (all_words == self.padding)[:, :, None]
        return all_words, torch.cat(gradients, 1).masked_fill(is_padding, 0)

    def _row_gradients(self, rows: Tensor) -> dict[str, Tensor]:
        words, gradients = self._used()
        total = self.totals["weight"]
        of_rows = total.new_zeros(len(rows), *total.shape[1:])
        numbers = torch.arange(len(rows), device=rows.device)[:, None].expand_as(words[rows])
        of_rows.index_put_((numbers, words[rows]), gradients[rows], accumulate=True)
        return {"weight": of_rows}

    def _sites(self, words: Tensor) -> Tensor:
        """Return the site of each word, with the shape of the words."""
        return self.now.rows.site.reshape(-1, *[1] * (words.dim() - 1)).expand(words.shape)


class Affine(Layer):
    """The scale and shift after a normalization, a pair for each feature.

    ``dims`` are the dimensions of the features.
    """

    def __init__(self, now: Now, parts: dict[str, str], dims: tuple[int, ...]) -> None:
        super().__init__(now, parts)
        self.dims = dims

    def outputs(self, inputs: Tensor) -> Tensor:  # noqa: D102
        outputs = inputs * self._spread("weight", inputs)
        if "bias" in self.values:
            outputs = outputs + self._spread("bias", inputs)
        return outputs

    def input_gradients(self, inputs: Tensor, gradients: Tensor) -> Tensor:  # noqa: D102
        return gradients * self._spread("weight", inputs)

    def sizes(self) -> Sizes:  # noqa: D102
        squares = [square_norms(gradient) for gradient in self._of_rows().values()]
        return Sizes(torch.stack(squares).sum(0))

    def sums(self, factor: Tensor | None) -> None:  # noqa: D102
        for name, gradient in self._of_rows().items():
            if factor is not None:
                gradient = scaled(gradient, factor)
            self.totals[name].copy_(self.now.rows.apart(gradient).sum(1))

    def _row_gradients(self, rows: Tensor) -> dict[str, Tensor]:
        return {name: gradient[rows] for name, gradient in self._of_rows().items()}

    def _of_rows(self) -> dict[str, Tensor]:
        """Return each row's gradient, {name: (rows, *shape)}."""
        of_rows: dict[str, Tensor] = {}
        for inputs, gradients in self.uses:
            # A feature's gradient is a sum over all other dimensions of the row.
            other_dims = [dim for dim in range(1, inputs.dim()) if dim not in self._at(inputs)]
            for name, values in (("weight", inputs * gradients), ("bias", gradients)):
                if name in self.totals:
                    of_use = values.sum(other_dims) if other_dims else values
                    of_rows[name] = of_rows[name] + of_use if name in of_rows else of_use
        return of_rows

    def _at(self, inputs: Tensor) -> list[int]:
        """Return the dimensions of features, counted from the first."""
        return [dim % inputs.dim() for dim in self.dims]

    def _spread(self, name: str, inputs: Tensor) -> Tensor:
        """Return each row's parameters, with the dimensions of the inputs."""
        shape = [size if dim in self._at(inputs) else 1 for dim, size in enumerate(inputs.shape)]
        return self.values[name][self.now.rows.site].reshape(inputs.shape[0], *shape[1:])


def outer_sizes(inputs: Tensor, gradients: Tensor, bias: bool) -> Sizes:
    """Measure each row's sum over positions of outer products, without computing the sum.

    For one position the norm is the product of the norms. For several it follows from the products
    among positions (ghost norms). Their sum may cancel, so it is computed in float64; it may still
    be a little below zero.

    Args:
        inputs: (rows, positions, in).
        gradients: (rows, positions, out).
        bias: Whether the layer has a bias. Its gradient is the sum of the gradients, and is added
            as such.
    """
    if inputs.shape[1] == 1:
        of_inputs = _scalable(square_norms(inputs[:, 0]), inputs)
        return Sizes(square_norms(gradients[:, 0]) * (of_inputs + float(bias)))

    seen = inputs.double()
    at_outputs = gradients.double()
    among_seen = seen @ seen.mT  # (rows, positions, positions)
    among_outputs = at_outputs @ at_outputs.mT
    squares = (among_seen * among_outputs).sum((1, 2))

    of_seen = _scalable(among_seen.diagonal(dim1=1, dim2=2), inputs)  # (rows, positions)
    of_outputs = among_outputs.diagonal(dim1=1, dim2=2)
    masses = (of_seen * of_outputs).sqrt().sum(1).square()
    if bias:
        squares = squares + square_norms(gradients.sum(1))
    return Sizes(squares, masses)


def _scalable(squares: Tensor, values: Tensor) -> Tensor:
    """Return squared norms of values, NaN where they are too large.

    There a factor on the gradient beside them would be too small a number.
    """
    return squares.masked_fill(squares > largest_square(values), torch.nan)


def scaled(values: Tensor, factor: Tensor) -> Tensor:
    """Return values (rows, ...) times a factor (rows,)."""
    return values * like(factor, values)


def like(numbers: Tensor, values: Tensor) -> Tensor:
    """Return numbers (n,) with as many dimensions as values (n, ...), to multiply them with."""
    return numbers.reshape(-1, *[1] * (values.dim() - 1))
