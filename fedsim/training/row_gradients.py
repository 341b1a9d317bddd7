"""The gradient of each row at one site, by Opacus or without it.

There are three ways, from the fastest to the one that always works:

- Opacus, which has a rule for each kind of layer that it knows;
- ``vmap`` of ``grad`` over the whole model, which knows each operation but a few;
- one row after another, by autograd.

The first way that gives, for made-up rows, what autograd gives for each row alone is taken for a model. What it gives
is then clipped row by row, in the same way for all three.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from fedsim.mistakes import Mistake
from fedsim.strategy.trainable import shared_when_copied, trainable, vector_of
from fedsim.training.dropout import Draws, with_site_dropout
from fedsim.training.functional import outputs_with
from fedsim.training.losses import RowLosses
from fedsim.training.model import parts_of
from fedsim.training.rows_alone import draws, some_rows
from fedsim.training.work import Work

if TYPE_CHECKING:
    from opacus import GradSampleModule

Way = Literal["opacus", "vmap", "row by row"]
Compute = Callable[[Tensor, Tensor], None]
"""Compute the gradients of rows, given inputs (rows, ...) and targets, as ``grad_sample`` of each parameter."""

_FLOATS = 2**24  # of rows' gradients that ``vmap`` computes at once
_found: WeakKeyDictionary[nn.Module, Way] = WeakKeyDictionary()


def way_of(work: Work) -> Way:
    """Return the way in which the gradients of a model's rows are computed; each model is tried once.

    Raises:
        Mistake: There is none.
    """
    if work.model in _found:
        return _found[work.model]
    if not len(work.examples):
        return "row by row"  # a site without rows has none to try the model on, and no gradient to compute
    _found[work.model] = find_way(work)
    return _found[work.model]


def find_way(work: Work) -> Way:
    """Find the first way whose gradient of a row is the one that autograd gives for that row alone.

    A way knows what a layer computes, and takes the first dimension for the rows. A model that draws random numbers by
    itself can't be compared: a row alone gets other draws than beside others. For such a model Opacus is left out,
    since the other two ways see each row alone.

    The model is tried with its first parameters on made-up rows and targets: whether it fails must tell nothing of a
    site's rows, whatever model its server sent.

    Raises:
        Mistake: There is none: clipping what they give would bound nothing.
    """
    inputs = some_rows(work.model, work.examples, 3)
    target = work.examples.target.new_zeros(len(inputs), *work.examples.target.shape[1:])
    own_draws = Draws([], inputs.device)
    model = _copy(work.model, own_draws)
    with own_draws.off():
        is_random = _draws(model, inputs)
        ways: tuple[Way, ...] = ("vmap", "row by row") if is_random else ("opacus", "vmap", "row by row")
        reason = "which draws random numbers"
        for way in ways:
            tried = _copy(work.model, own_draws)
            try:
                with gradients_of_rows(way, work, tried, own_draws) as (trained, compute):
                    compute(inputs, target)
                    by_name = dict(trained.named_parameters())
                    of_rows = [_sample_of(by_name[name]) for name in trainable(work.model)]
                if is_random or _agree_with_autograd(work.losses, model, inputs, target, of_rows):
                    return way
            except Exception as error:  # such as an operation that vmap doesn't know
                reason = str(error).partition("\n")[0] or type(error).__name__
    layer = _last_entered(model, inputs)
    raise Mistake(
        "task: expected a model of which each row's gradient can be found, since clipping that is what the privacy of "
        f"a record rests on; got one that fails on a single row at {layer}: {reason}; use a layer that takes "
        "the rows first and has a gradient on one row (docs/layers.md)"
    )


@contextmanager
def gradients_of_rows(way: Way, work: Work, model: nn.Module, own_draws: Draws) -> Iterator[tuple[nn.Module, Compute]]:
    """Prepare a model for a way of computing its rows' gradients.

    Args:
        way: The way.
        work: The work, for its losses.
        model: A copy of the work's model, which is changed.
        own_draws: The random numbers by which it drops.

    Yields:
        The model that is to be trained, with parameters of the same names, and the function that computes.
    """
    if way != "opacus":
        by_rows = _by_vmap if way == "vmap" else _row_by_row

        def compute(inputs: Tensor, target: Tensor) -> None:
            by_rows(work.losses, model, own_draws, inputs, target)

        yield model, compute
        return

    from opacus import GradSampleModule  # takes two seconds: only private runs wait for it

    model = _with_opacus_layers(model)
    wrapped = GradSampleModule(model, batch_first=True, loss_reduction="sum")
    try:
        yield model, lambda inputs, target: _backward(work.losses, wrapped, inputs, target)
    finally:
        wrapped.to_standard_module()


def _copy(model: nn.Module, own_draws: Draws) -> nn.Module:
    return with_site_dropout(copy.deepcopy(model, shared_when_copied(model)), own_draws).train()


def _draws(model: nn.Module, inputs: Tensor) -> bool:
    """Tell whether a model draws random numbers by itself; one that can't be run doesn't."""
    try:
        return draws(model, inputs)
    except Exception:
        return False


def _sample_of(parameter: Tensor) -> Tensor:
    """Return the gradients of rows that were left with a parameter, (rows, *shape).

    Raises:
        TypeError: There are none, or several.
    """
    of_rows = getattr(parameter, "grad_sample", None)
    if not isinstance(of_rows, Tensor):
        raise TypeError("a parameter without a gradient for each row")
    return of_rows


def _backward(losses: RowLosses, wrapped: GradSampleModule, inputs: Tensor, target: Tensor) -> None:
    """Let Opacus compute the gradients of rows."""
    with warnings.catch_warnings():
        # Torch warns Opacus' hooks that the inputs need no gradient, and they don't.
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        losses(wrapped(inputs), target).sum().backward()


def _by_vmap(losses: RowLosses, model: nn.Module, own_draws: Draws, inputs: Tensor, target: Tensor) -> None:
    """Compute the gradients of rows by ``vmap`` of ``grad``."""
    own = trainable(model)
    values = {name: value.detach() for name, value in own.items()}
    decisions = _decisions(model, own_draws, inputs)

    def loss(parameters: dict[str, Tensor], row: Tensor, row_target: Tensor, *decided: Tensor) -> Tensor:
        with own_draws.given([kept[None] for kept in decided]):
            outputs = outputs_with(model, parameters, row[None])
        return losses(outputs, row_target[None]).sum()

    in_dims = (None, 0, 0, *[0] * len(decisions))
    every_row = vmap(grad(loss), in_dims=in_dims, randomness="different")
    rows_at_once = max(1, _FLOATS // max(1, sum(value.numel() for value in own.values())))
    chunks = []
    with warnings.catch_warnings():
        # Some operations are done row by row, which is slower and no reason for a warning.
        warnings.filterwarnings("ignore", message="There is a performance drop")
        for start in range(0, len(inputs), rows_at_once):
            chunk = slice(start, start + rows_at_once)
            chunks.append(every_row(values, inputs[chunk], target[chunk], *[kept[chunk] for kept in decisions]))
    for name, parameter in own.items():
        of_chunks = [chunk[name] for chunk in chunks]
        parameter.grad_sample = torch.cat(of_chunks) if chunks else parameter.new_zeros(0, *parameter.shape)  # type: ignore[attr-defined]


def _row_by_row(losses: RowLosses, model: nn.Module, own_draws: Draws, inputs: Tensor, target: Tensor) -> None:
    """Compute the gradients of rows one after another, by autograd."""
    parameters = list(trainable(model).values())
    decisions = _decisions(model, own_draws, inputs)
    of_rows = []
    for row in range(len(inputs)):
        with own_draws.given([kept[row : row + 1] for kept in decisions]):
            outputs = model(inputs[row : row + 1])
        loss = losses(outputs, target[row : row + 1]).sum()
        of_rows.append(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))
    for place, parameter in enumerate(parameters):
        gradients = [of_row[place] for of_row in of_rows]
        stacked = torch.stack(gradients) if gradients else parameter.new_zeros(0, *parameter.shape)
        parameter.grad_sample = stacked.detach()  # type: ignore[attr-defined]


def _decisions(model: nn.Module, own_draws: Draws, inputs: Tensor) -> list[Tensor]:
    """Decide what the layers that drop keep of a batch, (rows, ...) each, in the order in which they are used."""
    if not len(inputs) or not any(isinstance(getattr(module, "draws", None), Draws) for module in model.modules()):
        return []
    with own_draws.recorded() as kept, torch.no_grad():
        model(inputs)
    return kept


def _agree_with_autograd(
    losses: RowLosses, model: nn.Module, inputs: Tensor, target: Tensor, of_rows: list[Tensor]
) -> bool:
    """Compare gradients of rows, (rows, *shape) each, with autograd's for each row alone."""
    if {len(gradients) for gradients in of_rows} != {len(inputs)}:
        return False  # a layer sees each row several times
    first = vector_of(model)
    for row in range(len(inputs)):
        start = first.clone().requires_grad_()
        outputs = outputs_with(model, parts_of(model, start), inputs[row : row + 1])
        loss = losses(outputs, target[row : row + 1]).sum()
        (alone,) = torch.autograd.grad(loss, start)  # (params,)
        together = torch.cat([gradients[row].flatten() for gradients in of_rows])
        if not torch.allclose(alone, together, rtol=1e-3, atol=1e-5):
            return False
    return True


def _last_entered(model: nn.Module, inputs: Tensor) -> str:
    """Return the type and the name of the layer that a model enters last on one row: there it fails, if it fails."""
    entered = ["the model"]
    hooks = []
    for name, layer in model.named_modules():

        def enter(layer: nn.Module, inputs: object, name: str = name) -> None:
            entered.append(f"{type(layer).__name__} ({name or 'the model'})")

        hooks.append(layer.register_forward_pre_hook(enter))
    try:
        model(inputs[:1])
    except Exception:
        return entered[-1]
    finally:
        for hook in hooks:
            hook.remove()
    return entered[0]


def _with_opacus_layers(module: nn.Module) -> nn.Module:
    """Replace torch's GRU and LSTM by Opacus' own: torch's give no gradients of rows."""
    if isinstance(module, nn.GRU | nn.LSTM):
        return _opacus_layer(module)
    for name, child in module.named_children():
        setattr(module, name, _with_opacus_layers(child))
    return module


def _opacus_layer(layer: nn.GRU | nn.LSTM) -> nn.Module:
    """Return Opacus' form of a recurrent layer, with the same parameters."""
    from opacus.layers import DPGRU, DPLSTM

    opacus_type = DPLSTM if isinstance(layer, nn.LSTM) else DPGRU
    replacement = opacus_type(
        input_size=layer.input_size,
        hidden_size=layer.hidden_size,
        num_layers=layer.num_layers,
        bias=layer.bias,
        batch_first=layer.batch_first,
        dropout=layer.dropout,
        bidirectional=layer.bidirectional,
    )
    replacement.load_state_dict(layer.state_dict())
    own = dict(layer.named_parameters())
    for name, value in replacement.named_parameters():
        value.requires_grad_(own[name].requires_grad)
    return replacement.to(layer.weight_ih_l0.device)  # type: ignore[union-attr, arg-type]
