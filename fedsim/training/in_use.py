"""Trial of whether what is to be trained in a model has any effect on its outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedsim.data.federation import Examples
from fedsim.mistakes import Mistake
from fedsim.strategy.trainable import adapters_of, trainable
from fedsim.training.functional import outputs_with
from fedsim.training.rows_alone import some_rows


def check_in_use(model: nn.Module, examples: Examples) -> None:
    """Make sure that the outputs depend on each adapter, by the gradients of a few rows.

    Noise moves an adapter that nothing uses, too, so that looking at it after a round would show nothing. The matrix B
    of an adapter is zero at first, and no gradient passes it; so all that is trained is moved at random before.

    Args:
        model: The model; its mode and parameters stay as they are.
        examples: Rows of its task, see ``some_rows``.

    Raises:
        Mistake: The gradient of an adapter is exactly zero: all of them.
    """
    random = torch.Generator().manual_seed(0)
    moved: dict[str, Tensor] = {}
    for name, value in trainable(model).items():
        step = 0.1 * torch.randn(value.shape, generator=random)
        moved[name] = (value.detach() + step.to(value)).requires_grad_()

    was_training = model.training
    model.eval()  # a layer that drops could hide an adapter
    try:
        outputs = outputs_with(model, moved, _rows(model, examples))
    except Exception:
        return  # it can't be run: fedsim.training.fits_outcome says so before the first round
    finally:
        model.train(was_training)
    weights = torch.randn(outputs.shape, generator=random).to(outputs)
    total = (outputs * weights).sum()
    if total.requires_grad:
        found = torch.autograd.grad(total, list(moved.values()), allow_unused=True, materialize_grads=True)
    else:
        found = [torch.zeros_like(value) for value in moved.values()]
    gradients = dict(zip(moved, found, strict=True))
    dead = [
        adapter
        for adapter, names in adapters_of(moved).items()
        if not any(gradients[name].count_nonzero() for name in names)
    ]
    if dead:
        raise Mistake(
            f"training.adapt: expected modules that the model's outputs depend on, got {', '.join(dead)}, whose "
            "gradient is zero on every row: training would change nothing there but by noise; leave them out of "
            "training.adapt.modules"
        )


def _rows(model: nn.Module, examples: Examples) -> Tensor:
    """Return rows to try a model on; a site without rows has none to take the words of."""
    if len(examples) or examples.inputs.is_floating_point():
        return some_rows(model, examples)
    return examples.inputs.new_zeros(4, *examples.inputs.shape[1:])
