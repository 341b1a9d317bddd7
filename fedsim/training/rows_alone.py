"""Trials of whether a model treats each row alone: otherwise clipping bounds nothing.

A model is plain Python, so this can't be proven. It is tried, in evaluation and in training mode,
in three ways:

- A row's output is the same alone and beside others, in batches of two sizes.
- Replacing a row, be it the first, the last or one in between, leaves the outputs of the others as
  they are, also where no number stands in it.
- A model remembers nothing: its outputs for the same rows are the same before and after it saw
  others.

Where training draws random numbers, as dropout does, the same seed is set before each trial. A
row's draws then depend on the number of rows, so the first way is left to the model with its
dropout layers switched off.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fedsim.data.federation import Examples
from fedsim.mistakes import Mistake
from fedsim.randomness import global_seed
from fedsim.training.by_name import ByName

_SIZES = (4, 33)  # of batches: some operations work in another way on many rows
_SEED = 0
_tried: deque[Hashable] = deque(maxlen=8)  # architectures that treat each row alone


def check_rows_are_alone(model: nn.Module, examples: Examples, architecture: Hashable | None = None) -> None:
    """Make sure that a row's output does not depend on the rows beside it, in either mode.

    Args:
        model: The model; its mode stays as it is.
        examples: Rows of its task. Their shape counts and, where inputs are whole numbers, their
            values.
        architecture: What the model is made from beside the seed, where that is known: it is tried once.

    Raises:
        Mistake: It does depend on them.
    """
    key = (architecture, examples.inputs.shape[1:], examples.inputs.dtype, examples.inputs.device)
    if architecture is not None and key in _tried:
        return
    was_training = model.training
    try:
        with torch.no_grad():
            for training in (False, True):
                model.train(training)
                for size in _SIZES if len(examples) else ():
                    _check_batch(model, some_rows(model, examples, size), training)
    finally:
        model.train(was_training)
    if architecture is not None and len(examples):
        _tried.append(key)


def draws(model: nn.Module, rows: Tensor) -> bool:
    """Tell whether a model's outputs in training mode depend on random numbers.

    Its mode is training afterwards.

    Args:
        model: The model.
        rows: Inputs to try it on, (rows, ...).
    """
    model.train()
    with torch.no_grad():
        first = _outputs(model, rows, _SEED)
        second = _outputs(model, rows, _SEED + 1)
    return not torch.equal(first, second)


def some_rows(model: nn.Module, examples: Examples, count: int = 4) -> Tensor:
    """Make inputs to try a model on, (count, ...).

    They are random numbers, so that nobody's row is used; only where inputs are integers, they are
    rows.
    """
    if isinstance(model, ByName):
        return model.made_up(count).to(examples.inputs)
    if not examples.inputs.is_floating_point():
        return examples.inputs[torch.arange(count) % len(examples)]
    random = torch.Generator().manual_seed(0)
    return torch.randn(count, *examples.inputs.shape[1:], generator=random).to(examples.inputs)


def _check_batch(model: nn.Module, rows: Tensor, training: bool) -> None:
    """Try the three ways on some rows.

    Raises:
        Mistake: The model mixes rows, or remembers them.
    """
    together = _outputs(model, rows)
    _check_memory(model, rows, together)

    # Replacing a row changes no other row's output.
    for place in (0, len(rows) // 2, len(rows) - 1):
        others = torch.arange(len(rows)) != place
        for value in _others_of(model, rows, place):
            replaced = rows.clone()
            replaced[place] = value
            if not _agree(together[others], _outputs(model, replaced)[others]):
                raise _mixes(training)

    # A row's output is the same alone. This can't be tried where its draws depend on the others.
    with _dropout_off(model):
        if training and draws(model, rows):
            return
        alone = [_outputs(model, rows[index : index + 1]) for index in range(len(rows))]
        if not _agree(_outputs(model, rows), torch.cat(alone)):
            raise _mixes(training)


def _others_of(model: nn.Module, rows: Tensor, place: int) -> list[Tensor]:
    """Return what may stand in the place of a row, (...) each.

    A row that is no number shows what a factor of zero hides: it is still in the outputs of others.
    """
    if not rows.is_floating_point():
        return [rows[place - 1]]
    if isinstance(model, ByName):
        return [rows[place - 1]]  # words and masks have no multiples
    return [-3 * rows[place], torch.full_like(rows[place], torch.nan)]


def _check_memory(model: nn.Module, rows: Tensor, outputs: Tensor) -> None:
    """Try whether a model gives the same outputs for rows after it saw others.

    Raises:
        Mistake: It doesn't.
    """
    other_rows = -3 * rows if rows.is_floating_point() else rows.flip(0)
    _outputs(model, other_rows)
    if not _agree(outputs, _outputs(model, rows)):
        raise Mistake(
            "task: expected a model that remembers nothing of the rows it saw, got one whose "
            "outputs for the same rows differ after it saw others"
        )


def _agree(outputs: Tensor, other_outputs: Tensor) -> bool:
    """Compare outputs up to rounding."""
    return torch.allclose(outputs, other_outputs, rtol=1e-4, atol=1e-5, equal_nan=True)


def _mixes(training: bool) -> Mistake:
    """Make the error for a model that mixes rows."""
    mode = " in training mode" if training else ""
    return Mistake(
        "task: expected a model whose output for a row depends on that row alone, "
        f"got one that mixes rows{mode}"
    )  # fmt: skip


def _outputs(model: nn.Module, rows: Tensor, seed: int = _SEED) -> Tensor:
    """Compute a model's outputs for rows, with a seed for the random numbers that it draws."""
    with global_seed(seed):
        return model(rows)


@contextmanager
def _dropout_off(model: nn.Module) -> Iterator[None]:
    """Switch off the layers that draw random numbers in training, and on again afterwards."""
    layers = [layer for layer in model.modules() if _drops(layer) and layer.training]
    for layer in layers:
        layer.training = False
    try:
        yield
    finally:
        for layer in layers:
            layer.training = True


def _drops(layer: nn.Module) -> bool:
    """Tell whether a layer is dropout, or has dropout inside."""
    if isinstance(layer, nn.RNNBase):
        return layer.dropout > 0
    return isinstance(layer, nn.modules.dropout._DropoutNd)
