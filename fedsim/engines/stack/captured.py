"""Steps of a stack as one CUDA graph: the GPU gets one launch for a step in place of twenty to five hundred.

A graph repeats the same operations on the same memory. So the stack, its gradients and the batch lie in the same
tensors in every step and in every round, and all batches have one width (``usual_width``). What depends on the step
stays outside: which rows join it, its noise, the strategy's correction, and the optimizer. A step that the graph can't
stand for, such as one with a longer batch, is computed as ever.

Nobody can see by looking at a model whether a step of it can be repeated so. Therefore a step is first computed under
inspection, which refuses what a graph can't repeat; and its graph is used only after it gave the same gradients as the
operations one by one, in two steps with different rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from fedsim import devices

if TYPE_CHECKING:
    from fedsim.engines.stack.model import StackedModel
    from fedsim.engines.stack.train import Batch

Compute = Callable[["Batch"], None]
"""Writes each site's sum of row gradients in a step into the model's ``gradients``."""

_OFTEN = 8  # steps of one shape after which the next one is captured: a capture takes about as long as some of them
_TRIED = 2  # steps that a graph is compared in: in one alone it may have kept what belongs to that step
_TOO_LONG = 1e-4  # the probability that a step has a longer batch than the usual width
_NEAR = 1e-3  # how far a captured step's gradients may be off, as a share of their norm, as ``check_rules`` has it
_ASKS = {  # operators whose answer, or the shape of whose result, the processor waits for
    *("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select"),
    *("_unique2", "unique_dim", "unique_consecutive", "bincount"),
}
_BRINGS = {"lift_fresh", "pin_memory", "_pin_memory"}  # operators on numbers of the processor's

_log = logging.getLogger(__name__)
_told: set[str] = set()


class NotCapturable(RuntimeError):
    """A step does what a graph can't repeat; the message says what."""


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
        return self._graph is not None and self._graph.is_trusted

    @property
    def sites(self) -> int:
        """For how many sites there is a place."""
        return 0 if self._stack is None else len(self._stack)

    def place(self, stack: Tensor) -> Tensor:
        """Copy a stack, (sites, params), to where the steps expect it, and return it there."""
        there = self._stack
        if there is None or (there.shape, there.dtype, there.device) != (stack.shape, stack.dtype, stack.device):
            self._graph = None
            self._stack = there = torch.empty_like(stack)
        return there.copy_(stack)

    def compute(self, model: StackedModel, batch: Batch, kind: Hashable, compute: Compute) -> None:
        """Compute a step, by the graph where there is one.

        Args:
            model: The model, always the same, bound to the stack that ``place`` returned.
            batch: The step's batch, padded.
            kind: All that decides what a step computes, but for its tensors.
            compute: Computes the step one operation after another.
        """
        shape = (kind, batch.inputs.shape, batch.inputs.dtype, batch.target.shape, batch.target.dtype)
        graph = self._graph
        if graph is not None and graph.stands_for(shape, model):
            if graph.is_trusted:
                graph.compute(batch)
            else:
                compute(batch)
                self._try(graph, batch)
            return

        compute(batch)
        self._met = self._met + 1 if shape == self._shape else 1
        self._shape = shape
        if self._met < _OFTEN or model.waits or shape in self._refused:
            return
        self._graph = None  # its memory is free for the next one
        try:
            self._graph = self._captured(model, batch, shape, compute)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._refuse(shape, str(error).partition("\n")[0])
            return
        self._try(self._graph, batch)

    def _captured(self, model: StackedModel, batch: Batch, shape: Hashable, compute: Compute) -> _Graph:
        """Capture a step that was just computed.

        Raises:
            RuntimeError: It can't be captured.
        """
        _ = batch.rows.site  # is copied to the GPU when it is asked for first, which a graph can't repeat

        # A capture that fails leaves torch in a bad state, so that what can be known before is refused before.
        with Inspection(batch.inputs.device) as inspection:
            compute(batch)

        # Autograd does the work of a leaf where that leaf was used first: it must not be outside of the graph.
        model.now.anchor = model.now.anchor.detach().clone().requires_grad_()
        replay = devices.captured(lambda: compute(batch), batch.inputs.device)
        return _Graph(shape, model.gradients, batch, replay, inspection.given)

    def _try(self, graph: _Graph, batch: Batch) -> None:
        """Compare a graph with the step that was just computed, and drop it if it does not come to the same."""
        expected = [gradient.clone() for gradient in graph.gradients]
        norms = [float(torch.linalg.vector_norm(gradient)) for gradient in expected]
        if not all(0 < norm < np.inf for norm in norms):
            return  # nothing is learned by a step in which a parameter has no gradient

        for gradient in graph.gradients:
            gradient.fill_(torch.nan)
        graph.compute(batch)
        agrees = True
        for found, before, norm in zip(graph.gradients, expected, norms, strict=True):
            agrees &= float(torch.linalg.vector_norm(found - before)) <= _NEAR * norm  # no NaN is
            found.copy_(before)
        if agrees:
            graph.agreed += 1
        else:
            self._refuse(graph.shape, "it gave other gradients than the same step one operation after another")

    def _refuse(self, shape: Hashable, cause: str) -> None:
        """Never capture such steps again, and say why."""
        self._graph = None
        self._refused.add(shape)
        if cause not in _told:
            _told.add(cause)
            _log.warning("cohort: a step can't be captured as a CUDA graph (%s); its operations go one by one", cause)


@dataclass
class _Graph:
    """A captured step.

    Attributes:
        shape: What steps it stands for.
        gradients: The model's, where it writes.
        batch: The batch that it reads.
        replay: Computes the step.
        given: All tensors that it reads or writes and did not make. A graph knows addresses only: whatever is there
            must not be freed, and taken by others, as long as there is the graph.
        agreed: In how many steps it came to the same as the operations one by one.
    """

    shape: Hashable
    gradients: list[Tensor]
    batch: Batch
    replay: Callable[[], None]
    given: list[Tensor]
    agreed: int = 0

    @property
    def is_trusted(self) -> bool:
        """Whether it came to the same often enough to be used alone."""
        return self.agreed >= _TRIED

    def stands_for(self, shape: Hashable, model: StackedModel) -> bool:
        """Whether it computes a step of this shape; not any more if the model was bound to another stack since."""
        return self.shape == shape and self.gradients is model.gradients

    def compute(self, batch: Batch) -> None:
        """Compute the step of a batch."""
        self.batch.inputs.copy_(batch.inputs)
        self.batch.target.copy_(batch.target)
        self.batch.share.copy_(batch.share)
        self.replay()


class Inspection(TorchDispatchMode):
    """Computes a step, refuses what a graph can't repeat, and remembers what the step was given.

    Args:
        device: The device of the step.

    Raises:
        NotCapturable: An operation waits for an answer, or takes numbers from the processor.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._given: dict[int, Tensor] = {}
        self._device = device
        self._made: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        name = func.__name__.partition(".")[0]
        if name in _ASKS | _BRINGS:
            raise NotCapturable(f"it asks for numbers, or brings some, by {name}")
        for value in tensors_in((args, kwargs)):
            if value.dim() and value.device.type != self._device.type:
                raise NotCapturable(f"it takes numbers from {value.device} by {name}")
            if storage_of(value) not in self._made:
                self._given[storage_of(value)] = value

        returned = func(*args, **kwargs)
        self._made |= {storage_of(value) for value in tensors_in(returned)} - self._given.keys()
        return returned

    @property
    def given(self) -> list[Tensor]:
        """The tensors that operations read or wrote and that none of them had made."""
        return list(self._given.values())


def tensors_in(values: Any) -> list[Tensor]:  # noqa: ANN401
    """Return the tensors among the arguments or results of an operation."""
    return [value for value in tree_flatten(values)[0] if isinstance(value, Tensor)]


def storage_of(tensor: Tensor) -> int:
    """Return what tells the memory of a tensor from that of others that exist."""
    return tensor.untyped_storage()._cdata


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
