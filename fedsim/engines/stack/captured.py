"""Steps of a stack as one CUDA graph: the GPU gets one launch for a step in place of twenty to five hundred.

A graph repeats the same operations on the same memory. So the stack, its gradients and the batch lie in the same
tensors in every step and in every round, and all batches have one width (``usual_width``). What depends on the step
stays outside: which rows join it, its noise, the strategy's correction, and the optimizer. A step that the graph can't
stand for, such as one with a longer batch, is computed as ever.

Nobody can see by looking at a model whether a step of it can be repeated so. Therefore a step is captured only after it
was computed as ever in the same training, and is used only if it then gives the same gradients.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fedsim import devices

if TYPE_CHECKING:
    from fedsim.engines.stack.model import StackedModel
    from fedsim.engines.stack.train import Batch

Compute = Callable[["Batch"], None]
"""Writes each site's sum of row gradients in a step into the model's ``gradients``."""

_OFTEN = 8  # steps of one shape after which the next one is captured: a capture takes about as long as some of them
_TOO_LONG = 1e-4  # the probability that a step has a longer batch than the usual width
_RELATIVE, _ABSOLUTE = 1e-3, 1e-5  # how far a captured step may be off by rounding, as ``check_rules`` has it

_log = logging.getLogger(__name__)
_told: set[str] = set()


class Captured:
    """The steps of one stacked model on a GPU, captured where the same step comes again and again."""

    def __init__(self) -> None:
        self._stack: Tensor | None = None
        self._graph: _Graph | None = None
        self._shape: Hashable = None  # of the last step that went one operation at a time
        self._met = 0  # such steps of this shape in turn
        self._refused: set[Hashable] = set()

    @property
    def has_graph(self) -> bool:
        """Whether a step was captured, and is repeated if it comes again."""
        return self._graph is not None

    def place(self, stack: Tensor) -> Tensor:
        """Copy a stack, (sites, params), to where the steps expect it, and return it there."""
        if self._stack is None or self._stack.shape != stack.shape:
            self._graph = None
            self._stack = torch.empty_like(stack)
        return self._stack.copy_(stack)

    def compute(self, model: StackedModel, batch: Batch, kind: Hashable, compute: Compute) -> None:
        """Compute a step, by the graph where there is one.

        Args:
            model: The model, always the same, bound to the stack that ``place`` returned.
            batch: The step's batch, padded.
            kind: All that decides what a step computes, but for its tensors.
            compute: Computes the step one operation after another.
        """
        shape = (kind, batch.inputs.shape, batch.inputs.dtype, batch.target.shape, batch.target.dtype)
        if self._graph is not None and self._graph.stands_for(shape, model):
            self._graph.compute(batch)
            return

        compute(batch)
        self._met = self._met + 1 if shape == self._shape else 1
        self._shape = shape
        if self._met >= _OFTEN and not model.waits and shape not in self._refused:
            self._graph = None  # its memory is free for the next one
            self._graph = self._capture(model, batch, shape, compute)

    def _capture(self, model: StackedModel, batch: Batch, shape: Hashable, compute: Compute) -> _Graph | None:
        """Capture a step that was just computed; return None if it does not come to the same."""
        expected = [gradient.clone() for gradient in model.gradients]
        _ = batch.rows.site  # is copied to the GPU when it is asked for first, which a graph can't repeat

        # Autograd does the work of a leaf where that leaf was used first: it must not be outside of the graph.
        model.now.anchor = model.now.anchor.detach().clone().requires_grad_()
        try:
            replay = devices.captured(lambda: compute(batch), batch.inputs.device)
        except RuntimeError as error:
            self._refuse(shape, str(error).partition("\n")[0])
            return None

        for gradient in model.gradients:
            gradient.fill_(torch.nan)
        replay()
        pairs = list(zip(model.gradients, expected, strict=True))
        if all(torch.allclose(found, before, _RELATIVE, _ABSOLUTE, equal_nan=True) for found, before in pairs):
            return _Graph(shape, model.gradients, batch, replay)

        for gradient, before in pairs:
            gradient.copy_(before)
        self._refuse(shape, "it gave other gradients than the same step one operation after another")
        return None

    def _refuse(self, shape: Hashable, cause: str) -> None:
        """Never capture such steps again, and say why."""
        self._refused.add(shape)
        if cause not in _told:
            _told.add(cause)
            _log.warning("cohort: a step can't be captured as a CUDA graph (%s); its operations go one by one", cause)


@dataclass(frozen=True)
class _Graph:
    """A captured step.

    Attributes:
        shape: What steps it stands for.
        gradients: The model's, where it writes.
        batch: The batch that it reads.
        replay: Computes the step.
    """

    shape: Hashable
    gradients: list[Tensor]
    batch: Batch
    replay: Callable[[], None]

    def stands_for(self, shape: Hashable, model: StackedModel) -> bool:
        """Whether it computes a step of this shape; not any more if the model was bound to another stack since."""
        return self.shape == shape and self.gradients is model.gradients

    def compute(self, batch: Batch) -> None:
        """Compute the step of a batch."""
        self.batch.inputs.copy_(batch.inputs)
        self.batch.target.copy_(batch.target)
        self.batch.share.copy_(batch.share)
        self.replay()


def usual_width(rows: Sequence[int], rate: float, multiple: int) -> int:
    """Return a width of batches that is exceeded in one step of ten thousand.

    Args:
        rows: The rows of each site.
        rate: The probability of each row to join a step.
        multiple: The width is a multiple of this.
    """
    from scipy.special import bdtrc  # the probability that a binomial number exceeds a count

    sizes = np.asarray(rows, np.int64)
    most = int(sizes.max(initial=0))
    width = max(multiple, int(rate * most) // multiple * multiple)
    while width < most and bdtrc(np.minimum(width, sizes), sizes, rate).sum() > _TOO_LONG:
        width += multiple
    return width
