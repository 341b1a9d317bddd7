"""A layer of any kind for many sites at once, computed by ``torch.func``.

It stands for a module without a rule of its own: one with parameters that its ``forward`` uses in a way that nobody
here knows, or one inside which two layers share a parameter. Outputs are ``vmap`` over sites of the module. A row's
gradient is a ``vjp`` of the module on that row alone, with ``vmap`` over rows. It is computed itself, in chunks, and
clipped by the norm of the very numbers that are added (the first way in ``fedsim.engines.stack.layers``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from fedsim.engines.stack.layers import Layer, NoRule, Now, Sizes, like, scaled
from fedsim.privacy.norms import square_norms
from fedsim.strategy.trainable import trainable
from fedsim.training.precision import narrowed


@dataclass
class Call:
    """How a module was called.

    Attributes:
        spec: The structure of its arguments.
        values: All arguments in a row; None where a tensor of rows stands.
        at_rows: The places of the tensors of rows.
        outputs: The structure of its outputs, once it was called.
        others: All outputs in a row; None where a tensor stands.
        floating: Which of the tensors among the outputs are of floats.
    """

    spec: TreeSpec
    values: list[Any]
    at_rows: list[int]
    outputs: TreeSpec | None = None
    others: list[Any] = field(default_factory=list)
    floating: list[bool] = field(default_factory=list)


@dataclass(frozen=True)
class Use:
    """One use of a module: its call, tensors of rows, and the gradients at the outputs that are floats."""

    call: Call
    inputs: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]


class _SeenCall(torch.autograd.Function):
    """One use of a generic layer; the backward pass leaves it with the layer."""

    @staticmethod
    def forward(ctx, anchor: Tensor, layer: Generic, call: Call, *inputs: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]  # noqa: ANN001
        ctx.layer = layer
        ctx.call = call
        ctx.save_for_backward(*inputs)
        outputs = layer.outputs_of(call, inputs)
        ctx.mark_non_differentiable(*[output for output in outputs if not output.is_floating_point()])
        return outputs

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # noqa: ANN001
        floating = zip(gradients, ctx.call.floating, strict=True)
        at_outputs = tuple(gradient for gradient, is_float in floating if is_float)
        inputs = tuple(values.detach() for values in ctx.saved_tensors)
        use = Use(ctx.call, inputs, at_outputs)
        ctx.layer.used.append(use)
        return (None, None, None, *ctx.layer.gradients_at_inputs(use, ctx.needs_input_grad[3:]))


class Generic(Layer):
    """Any module, with the trainable parameters of every site; frozen ones are stored once for all.

    Args:
        now: The state that all layers of the stack share.
        prefix: The beginning of the module's names in the model.
        module: The module.
        shared: Arguments that were seen not to be tensors of rows: (prefix, number of the use, place). A mask may
            have as many rows as the batch by accident; what was told apart once stays so.
    """

    def __init__(self, now: Now, prefix: str, module: nn.Module, shared: set[tuple[str, int, int]]) -> None:
        parts = {name: f"{prefix}{name}" for name in trainable(module)}
        super().__init__(now, parts)
        self.prefix = prefix
        self.shared = shared
        for layer in module.modules():
            layer.__class__ = _BATCHED.get(type(layer), type(layer))
        self._module = (module.train(),)  # in a tuple: it is no child, and its parameters are nobody's
        self._places = _places(module)
        self.used: list[Use] = []
        self._calls = 0
        self._kept: dict[str, Tensor] | None = None

    @property
    def was_used(self) -> bool:  # noqa: D102
        return bool(self.used)

    def begin(self) -> None:  # noqa: D102
        super().begin()
        self.end()
        self._calls = 0

    def end(self) -> None:  # noqa: D102
        super().end()
        self.used = []
        self._kept = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  any module
        """Call the module with each site's own parameters."""
        values, spec = tree_flatten((args, kwargs))
        rows = self.now.rows.total
        at_rows = []
        for place, value in enumerate(values):
            if not isinstance(value, Tensor):
                continue
            name = (self.prefix, self._calls, place)
            if value.dim() == 0 or len(value) != rows:
                self.shared.add(name)
            if name not in self.shared:
                at_rows.append(place)
            elif value.requires_grad:
                raise NoRule(f"{self.name} with an argument that is no tensor of rows and needs a gradient")
        self._calls += 1

        call = Call(spec, [None if place in at_rows else value for place, value in enumerate(values)], at_rows)
        inputs = [values[place] for place in at_rows]
        if torch.is_grad_enabled():
            outputs = _SeenCall.apply(self.now.anchor, self, call, *inputs)
        else:
            outputs = self.outputs_of(call, tuple(inputs))
        tensors = iter(outputs)
        whole = [next(tensors) if value is None else value[0] for value in call.others]
        assert call.outputs is not None  # noqa: S101  it was called
        return tree_unflatten(whole, call.outputs)

    @property
    def name(self) -> str:
        """The type of the module, and its name in the model."""
        return f"{type(self._module[0]).__name__} ({self.prefix.rstrip('.') or 'the model'})"

    def outputs_of(self, call: Call, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Compute the tensors among the outputs, (rows, ...) each."""
        rows = self.now.rows
        apart = [rows.apart(values) for values in inputs]
        outputs = vmap(lambda parameters, *values: self._call(call, parameters, values))(self.values, *apart)
        for values in outputs:
            if values.dim() < 2 or values.shape[:2] != (rows.sites, rows.width):
                raise NoRule(f"{self.name} gives an output whose first dimension is not that of the rows")
        return tuple(rows.together(values) for values in outputs)

    def gradients_at_inputs(self, use: Use, needed: tuple[bool, ...]) -> list[Tensor | None]:
        """Compute the gradients at the inputs that need one, from those at the outputs."""
        places = [place for place, needs in enumerate(needed) if needs]
        if not places:
            return [None] * len(needed)

        def of_site(parameters: dict[str, Tensor], inputs: tuple[Tensor, ...], at_outputs: tuple[Tensor, ...]) -> Any:  # noqa: ANN401
            def outputs_from(*differentiated: Tensor) -> tuple[Tensor, ...]:
                given = list(inputs)
                for place, values in zip(places, differentiated, strict=True):
                    given[place] = values
                return self._floats(use.call, parameters, tuple(given))

            pull_back = vjp(outputs_from, *[inputs[place] for place in places])[1]
            return pull_back(at_outputs)

        found = vmap(of_site)(self.values, self._apart(use.inputs), self._apart(use.gradients))
        gradients: list[Tensor | None] = [None] * len(needed)
        for place, values in zip(places, found, strict=True):
            gradients[place] = self.now.rows.together(values)
        return gradients

    def forget(self, rows: Tensor) -> None:  # noqa: D102
        def without(values: Tensor) -> Tensor:
            return values.masked_fill(like(rows, values), 0)

        self.used = [
            Use(use.call, tuple(map(without, use.inputs)), tuple(map(without, use.gradients))) for use in self.used
        ]
        if self._kept is not None:
            self._kept = {name: without(gradients) for name, gradients in self._kept.items()}

    def sizes(self) -> Sizes:  # noqa: D102
        squares = []
        chunks = self._chunks()
        kept: list[dict[str, Tensor]] = []
        fits = self.now.rows.total * self._floats_of_row() <= self.now.floats
        for chunk in chunks:
            gradients = self._gradients_of(chunk)
            squares.append(torch.stack([square_norms(values) for values in gradients.values()]).sum(0))
            if fits:
                kept.append(gradients)
        if fits:
            self._kept = {name: torch.cat([gradients[name] for gradients in kept]) for name in self.values}
        return Sizes(torch.cat(squares))

    def sums(self, factor: Tensor | None) -> None:  # noqa: D102
        for total in self.totals.values():
            total.zero_()
        if factor is None:
            for use in self.used:
                for name, gradients in self._sums_of(use).items():
                    self.totals[name] += gradients
            return

        for chunk in self._chunks():
            gradients = self._gradients_of(chunk) if self._kept is None else self._kept_of(chunk)
            sites = self.now.rows.site[chunk]
            for name, of_rows in gradients.items():
                total = self.totals[name]
                total.view(len(total), -1).index_add_(0, sites, scaled(of_rows, factor[chunk]).flatten(1))

    def costs(self) -> tuple[int, int]:  # noqa: D102
        tensors = [values for use in self.used for values in (*use.inputs, *use.gradients)]
        rows = self.now.rows.total
        kept = sum(values.numel() for values in tensors) + 2 * rows * self._floats_of_row()
        return kept, rows * self._floats_of_row() * len(self.used)

    def _row_gradients(self, rows: Tensor) -> dict[str, Tensor]:
        of_chunks = [self._gradients_of(chunk) for chunk in rows.split(self._rows_in_chunk())]
        return {name: torch.cat([gradients[name] for gradients in of_chunks]) for name in self.values}

    def _gradients_of(self, rows: Tensor) -> dict[str, Tensor]:
        """Compute the gradients of some rows, int64 (n,): {name: (n, *shape)}, over all uses."""
        own = {name: values[self.now.rows.site[rows]] for name, values in self.values.items()}
        total: dict[str, Tensor] = {}
        for use in self.used:

            def of_row(
                parameters: dict[str, Tensor],
                inputs: tuple[Tensor, ...],
                at_outputs: tuple[Tensor, ...],
                call: Call = use.call,
            ) -> dict[str, Tensor]:
                alone = tuple(values[None] for values in inputs)
                pull_back = vjp(lambda given: self._floats(call, given, alone), parameters)[1]
                (gradients,) = pull_back(tuple(values[None] for values in at_outputs))
                return gradients

            inputs = tuple(values[rows] for values in use.inputs)
            at_outputs = tuple(values[rows] for values in use.gradients)
            found = vmap(of_row)(own, inputs, at_outputs)
            total = {name: total[name] + found[name] if total else found[name] for name in self.values}
        return total

    def _sums_of(self, use: Use) -> dict[str, Tensor]:
        """Compute each site's sum of gradients in one use, {name: (sites, *shape)}."""

        def of_site(
            parameters: dict[str, Tensor], inputs: tuple[Tensor, ...], at_outputs: tuple[Tensor, ...]
        ) -> dict[str, Tensor]:
            pull_back = vjp(lambda given: self._floats(use.call, given, inputs), parameters)[1]
            return pull_back(at_outputs)[0]

        return vmap(of_site)(self.values, self._apart(use.inputs), self._apart(use.gradients))

    def _apart(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return tensors of rows as (sites, width, ...) each."""
        return tuple(self.now.rows.apart(values) for values in tensors)

    def _floats(self, call: Call, parameters: dict[str, Tensor], inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Call the module; return the outputs that have gradients."""
        outputs = self._call(call, parameters, inputs)
        return tuple(values for values in outputs if values.is_floating_point())

    def _call(self, call: Call, parameters: dict[str, Tensor], inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Call the module with the parameters of one site on some of its rows; return all tensors among the outputs."""
        values = list(call.values)
        for place, rows in zip(call.at_rows, inputs, strict=True):
            values[place] = rows
        args, kwargs = tree_unflatten(values, call.spec)
        given = {full_name: parameters[name] for full_name, name in self._places}
        with narrowed(self.now.narrow, self.now.anchor.device):
            outputs = functional_call(self._module[0], given, args, kwargs, tie_weights=False)

        flat, call.outputs = tree_flatten(outputs)
        tensors = [value for value in flat if isinstance(value, Tensor)]
        call.others = [None if isinstance(value, Tensor) else (value,) for value in flat]
        call.floating = [values.is_floating_point() for values in tensors]
        return tuple(tensors)

    def _kept_of(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the gradients of some rows that were kept from the norms."""
        assert self._kept is not None  # noqa: S101  asked before
        return {name: gradients[rows] for name, gradients in self._kept.items()}

    def _floats_of_row(self) -> int:
        """Count the numbers of a row's gradient."""
        return sum(values[0].numel() for values in self.values.values())

    def _rows_in_chunk(self) -> int:
        """Return the number of rows whose gradients there is room for at once."""
        return max(1, self.now.floats // max(1, self._floats_of_row()))

    def _chunks(self) -> tuple[Tensor, ...]:
        """Cut the rows into chunks that there is room for, int64 (n,) each."""
        rows = torch.arange(self.now.rows.total, device=self.now.anchor.device)
        return rows.split(self._rows_in_chunk())


class _Bilinear(nn.Bilinear):
    """``nn.Bilinear`` by operations that ``vmap`` takes for many at once."""

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        outputs = torch.einsum("...i,oij,...j->...o", input1, self.weight, input2)
        return outputs if self.bias is None else outputs + self.bias


class _EmbeddingBag(nn.EmbeddingBag):
    """``nn.EmbeddingBag`` by operations that ``vmap`` takes for many at once."""

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        if offsets is not None or input.dim() != 2 or self.mode == "max" or self.max_norm is not None:
            return super().forward(input, offsets, per_sample_weights)
        words = nn.functional.embedding(input, self.weight)  # (rows, places, features)
        counts = words.new_ones(input.shape)
        if self.padding_idx is not None:
            counts = (input != self.padding_idx).to(words)
        shares = counts if per_sample_weights is None else counts * per_sample_weights
        total = (words * shares[:, :, None]).sum(1)
        return total / counts.sum(1, keepdim=True).clamp(min=1) if self.mode == "mean" else total


_BATCHED: dict[type[nn.Module], type[nn.Module]] = {nn.Bilinear: _Bilinear, nn.EmbeddingBag: _EmbeddingBag}


def _places(module: nn.Module) -> list[tuple[str, str]]:
    """Return where the trainable parameters stand: (full name, name in ``trainable``) of each place.

    A parameter that two layers share stands in two places. A layer that is used under two names is there once, under
    its first: ``functional_call`` can't restore it otherwise.
    """
    names = {id(value): name for name, value in trainable(module).items()}
    places = []
    for prefix, layer in module.named_modules():
        for name, value in layer.named_parameters(recurse=False, remove_duplicate=False):
            if id(value) in names:
                places.append((f"{prefix}.{name}" if prefix else name, names[id(value)]))
    return places
