"""Gradient leakage: search for the record whose gradient is the one that a site sent (DLG and iDLG).

DLG: Zhu, Liu, Han 2019, "Deep leakage from gradients", https://arxiv.org/abs/1906.08935. iDLG: Zhao, Mopuri, Bilen
2020, "iDLG: improved deep leakage from gradients", https://arxiv.org/abs/2001.02610.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsim.audits.attack import Attack
from fedsim.audits.claims import RECORDS as RECORD_UNITS
from fedsim.audits.finding import IN_WORDS, RECORDS, Finding
from fedsim.audits.rebuilding import Inversion, gradients_of_each, judge, record_to_draw, some_records
from fedsim.audits.target import Target
from fedsim.data.federation import Examples
from fedsim.randomness import stream
from fedsim.training.functional import outputs_with
from fedsim.training.losses import RowLosses, number
from fedsim.training.model import parts_of

_SEARCHED = 3  # records that are searched for: that takes seconds for each
_LARGEST = 100_000  # parameters, and inputs, of a search
_MOST_LABELS = 10  # tried where nothing gives a label away
_STARTS = 3  # random inputs that a search begins from
_STEPS = 100  # of L-BFGS for each
_CLOSE = 1e-10  # the distance at which a search is over


class Distance(Protocol):
    """How far apart two gradients are."""

    def __call__(self, guessed: Tensor, seen: Tensor) -> Tensor:
        """Return the distance of a guess's gradient (params,) from the one seen, a scalar to differentiate."""
        ...


@dataclass(frozen=True)
class Search:
    """A search for one record.

    Attributes:
        model: The architecture.
        start: The parameters at which the gradient was taken, (params,).
        losses: The loss of each row.
        shape: The shape of the record's inputs, (1, ...).
        distance: The distance that is minimized.
        seed: Of the audit.
    """

    model: nn.Module
    start: Tensor
    losses: RowLosses
    shape: torch.Size
    distance: Distance
    seed: int


class Leakage(Attack):
    """Searches for records, one at a time."""

    places = RECORD_UNITS
    question = RECORDS
    label = "searched for"
    sections: ClassVar = {"inversion": {}}

    def run(self, target: Target) -> Finding | None:
        """Attack a few records; None where the model is too large to search."""
        if not target.rows.inputs.is_floating_point():
            return None
        found = search_for(target, some_records(target))
        if found is None:
            return None
        return self.finding(
            target,
            measured=(*found["dlg"].measured("DLG"), *found["idlg"].measured("iDLG")),
            words=(
                f"{IN_WORDS[target.training]}: share, median error",
                found["dlg"].words("DLG"),
                found["idlg"].words("iDLG"),
            ),
            rows=(found["dlg"].row("Searched for, DLG"), found["idlg"].row("Searched for, iDLG")),
            answer=found["dlg"].answer,
            picture=found["dlg"].picture(target),
            section={"inversion": {target.training: {name: result.values for name, result in found.items()}}},
        )


def search_for(target: Target, records: Examples) -> dict[str, Inversion] | None:
    """Search for the first of some records by ``dlg`` and ``idlg``; None if the model or the inputs are too large."""
    shape = records.inputs[:1].shape
    if len(target.start) > _LARGEST or shape.numel() > _LARGEST:
        return None
    gradients = gradients_of_each(target, records)[:_SEARCHED]
    few = Examples(records.inputs[:_SEARCHED], records.target[:_SEARCHED])
    labels = records.target.unique()[:_MOST_LABELS]

    # Clipping changes a gradient's length and not its direction.
    distance = squared if target.plan.noise is None else angle
    search = Search(target.model, target.start, target.losses, shape, distance, target.seed)
    by_dlg = judge(few, [dlg(search, gradient) for gradient in gradients])
    made_up = record_to_draw(target)
    if made_up is not None:
        (gradient,) = gradients_of_each(target, made_up, "search for a made-up record")
        by_dlg = by_dlg.showing(made_up, dlg(search, gradient))
    return {
        "dlg": by_dlg,
        "idlg": judge(few, [idlg(search, gradient, labels) for gradient in gradients]),
    }


def squared(guessed: Tensor, seen: Tensor) -> Tensor:
    """Return the squared distance of two gradients over the square of the one seen, which DLG minimizes."""
    return (guessed - seen).square().sum() / seen.square().sum()


def angle(guessed: Tensor, seen: Tensor) -> Tensor:
    """Return one less the cosine of two gradients, which clipping does not change.

    Geiping, Bauermeister, Droege, Moeller 2020, https://arxiv.org/abs/2003.14053, section 3.
    """
    return 1 - functional.cosine_similarity(guessed, seen, dim=0)


def dlg(search: Search, gradient: Tensor) -> Tensor:
    """Search for inputs whose gradient is the one seen, (params,), and for the label with them.

    "Deep leakage from gradients", Algorithm 1, by L-BFGS.
    """
    zeros = torch.zeros(search.shape).to(search.start)
    with torch.no_grad():
        outputs = outputs_with(search.model, parts_of(search.model, search.start), zeros).shape[1]
    label = torch.zeros(search.shape[0], outputs).to(search.start)

    def soft(free: Tensor) -> Tensor:
        if search.losses is number:
            return free.squeeze(1)
        if outputs > 1:
            return free.softmax(1)
        return free.squeeze(1).sigmoid()

    inputs, _ = _search(search, gradient, label, soft)
    return inputs


def idlg(search: Search, gradient: Tensor, labels: Tensor) -> Tensor:
    """Search for the inputs of one record, as ``dlg``, with its label read off the last layer first.

    Where no bias of a last layer gives the label away, every label that there is is tried.
    """
    read = label_of(search.model, search.losses, gradient)
    tried = labels if read is None else [read.to(labels)]
    results = [_search(search, gradient, None, _Fixed(label)) for label in tried]
    inputs, _ = min(results, key=lambda result: result[1])
    return inputs


def label_of(model: nn.Module, losses: RowLosses, gradient: Tensor) -> Tensor | None:
    """Read the label of one record off its gradient (params,); None if nothing gives it away.

    Of the gradients of the last layer's biases, which are p - y, that of the record's own class alone is negative.
    """
    name, last = list(parts_of(model, gradient).items())[-1]
    if losses is number or name.rpartition(".")[2] != "bias" or last.dim() != 1:
        return None
    if len(last) > 1:
        return last.argmin()
    return (last[0] < 0).float()


class _Label(Protocol):
    """The label in a search."""

    def __call__(self, free: Tensor, /) -> Tensor:
        """Return the label as the loss takes it, (1, ...), from the free numbers that are searched for with it."""
        ...


@dataclass(frozen=True)
class _Fixed:
    """A label that is known."""

    label: Tensor

    def __call__(self, free: Tensor, /) -> Tensor:
        return self.label[None]


def _search(search: Search, gradient: Tensor, label: Tensor | None, target: _Label) -> tuple[Tensor, float]:
    """Return the closest inputs of several searches from random ones, and their distance.

    Args:
        search: The model, and how to compare.
        gradient: The one seen, (params,).
        label: Where the search for the label begins; None if it is known.
        target: From that to the label.
    """
    random = stream(search.seed, "gradient matching")
    best = torch.zeros(search.shape)
    least = float("inf")
    for _ in range(_STARTS):
        guess = torch.from_numpy(random.standard_normal(search.shape, np.float32)).to(search.start).requires_grad_()
        begin = torch.zeros(1) if label is None else label.clone()
        free = begin.to(search.start).requires_grad_()
        value = _descend(search, gradient, guess, free, label is not None, target)
        if value < least:
            best = guess.detach()
            least = value
        if least < _CLOSE:
            break
    return best, least


def _descend(
    search: Search, gradient: Tensor, guess: Tensor, free: Tensor, label_is_free: bool, target: _Label
) -> float:
    """Move a guess, and the label if it is free, to where its gradient is nearest to the one seen."""
    moved = [guess, free] if label_is_free else [guess]
    optimizer = torch.optim.LBFGS(moved, max_iter=_STEPS, line_search_fn="strong_wolfe")

    def apart() -> Tensor:
        parameters = search.start.detach().clone().requires_grad_()
        outputs = outputs_with(search.model, parts_of(search.model, parameters), guess)
        loss = search.losses(outputs, target(free)).sum()
        (guessed,) = torch.autograd.grad(loss, parameters, create_graph=True)
        return search.distance(guessed, gradient)

    def closure() -> float:
        optimizer.zero_grad()
        value = apart()
        value.backward()
        return float(value.detach())

    optimizer.step(closure)
    return float(apart().detach())
