"""Losses with a term on the model's representation of a row.

The representation is the input of the last layer with parameters.

Representations by models that don't change in a round are computed once, before the steps. They
stand beside each row's target. So to an engine this is a work like any other: the model's outputs
are longer, and a row's loss depends on that row and on parameters alone, which clipping its
gradient requires.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fedsim.data.federation import Examples
from fedsim.strategy.local_rule import Comparing
from fedsim.training.functional import outputs_with
from fedsim.training.losses import RowLosses
from fedsim.training.model import parts_of
from fedsim.training.work import Work


class Revealing(nn.Module):
    """A copy of a model that appends the representation to its outputs.

    The outputs (rows, outputs) become (rows, outputs + features). The parameters are the model's,
    in the same order.

    Args:
        model: The model.
        rows: Some inputs to try it on, (rows, ...).
    """

    def __init__(self, model: nn.Module, rows: Tensor) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)

        # Replace the last layer with parameters by a tap around it.
        with_parameters = []
        for layer_name, layer in self.model.named_modules():
            if [*layer.parameters(recurse=False)]:
                with_parameters.append(layer_name)
        last = with_parameters[-1]
        tap = _Tap(self.model.get_submodule(last))
        self._tap = (tap,)  # in a tuple: functional_call can't restore a module registered twice
        parent, _, name = last.rpartition(".")
        if last:
            setattr(self.model.get_submodule(parent), name, tap)
        else:
            self.model = tap
        with torch.no_grad():
            self.features = self(rows).shape[1] - model(rows).shape[1]

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute outputs and representations."""
        outputs = self.model(inputs)
        (tap,) = self._tap
        representations = tap.seen
        tap.seen = None  # a model that holds a tensor of a graph can't be copied
        return torch.cat([outputs, representations.flatten(1)], 1)  # type: ignore[union-attr]


class _Tap(nn.Module):
    """A layer that remembers its input."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.seen: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen = inputs
        return self.layer(inputs)


@dataclass(frozen=True)
class ComparedLosses:
    """The losses of a task plus the term of a rule.

    Outputs and targets have representations beside them.

    Attributes:
        losses: The losses of the task.
        rule: The rule that has the term.
        features: The length of a representation.
        whole: Whether the task's targets are whole numbers.
        shape: The shape of a row's target.
    """

    losses: RowLosses
    rule: Comparing
    features: int
    whole: bool
    shape: tuple[int, ...] = ()

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return each row's loss, (rows,).

        Args:
            outputs: (rows, outputs + features).
            target: (rows, numbers of a target + models * features).
        """
        task_outputs = outputs[:, : -self.features]
        representations = outputs[:, -self.features :]
        numbers = math.prod(self.shape)
        task_target = target[:, :numbers].reshape(len(target), *self.shape)
        if self.whole:
            task_target = task_target.long()
        others = target[:, numbers:].split(self.features, 1)
        return self.losses(task_outputs, task_target) + self.rule.term(representations, others)


def with_term(work: Work, revealing: Revealing) -> Work:
    """Add the term of a ``Comparing`` rule to the losses of a work.

    Args:
        work: The work without the term.
        revealing: The revealing form of its model.
    """
    rule = work.rule
    if not isinstance(rule, Comparing):
        raise TypeError(f"expected a rule that compares representations, got {type(rule).__name__}")

    rows = work.examples
    others = []
    for model in rule.compared(work.memory):
        others.append(_representations(revealing, model, rows.inputs))

    # (rows, numbers of a target + models * features)
    shape = tuple(rows.target.shape[1:])
    flat = rows.target.reshape(len(rows), math.prod(shape))
    target = torch.cat([flat.to(others[0]), *others], 1)
    whole = not rows.target.is_floating_point()
    losses = ComparedLosses(work.losses, rule, revealing.features, whole, shape)
    return replace(work, model=revealing, examples=Examples(rows.inputs, target), losses=losses)


def _representations(revealing: Revealing, vector: Tensor, inputs: Tensor) -> Tensor:
    """Compute the representations of rows by a model with these parameters, (rows, features)."""
    revealing.eval()  # no dropout: it draws
    with torch.no_grad():
        # (rows, outputs + features)
        both = outputs_with(revealing, parts_of(revealing, vector), inputs)
    return both[:, -revealing.features :]
