"""A task's model is tried on some rows before the first round: what it takes, and what it gives."""

import re

import pytest
import torch
from torch import Tensor, nn

from fedsim.data.federation import Examples
from fedsim.mistakes import Mistake
from fedsim.outcomes import outcome_of
from fedsim.outcomes.own import OwnKind, OwnMetric
from fedsim.training.fits_outcome import check_fits_outcome

FLOATS = torch.zeros(6)
NUMBERS = torch.tensor([0, 2, 1, 0, 2, 1])

# {kind: (targets, the shape of a row's outputs that fit, shapes that don't and what is said)}
KINDS = {
    "binary": (FLOATS, (1,), {(2,): "logits (rows, 1) (two outputs are for the kind 'classes')", (): "(rows, 1)"}),
    "classes": (NUMBERS, (3,), {(1,): "logits (rows, classes) of 3 or more classes", (2,): "3 or more", (3, 3): ""}),
    "number": (FLOATS, (1,), {(): "numbers (rows, 1)", (3,): "numbers (rows, 1)"}),
    "numbers": (torch.zeros(6, 4), (4,), {(1,): "the targets' shape, (rows, numbers)"}),
    "multi-label": (torch.zeros(6, 4), (4,), {(1,): "the targets' shape, (rows, labels)"}),
    "next-token": (torch.full((6, 5), 7), (5, 8), {(5, 7): "(rows, positions, tokens)", (8,): "(rows, positions, t"}),
    "reconstruction": (torch.zeros(6, 8), (2, 4), {(7,): "as many numbers for each row as its inputs have"}),
    "contrastive": (FLOATS, (3, 4), {(2, 4): "three or more views", (4,): "three or more views"}),
    "survival": (torch.ones(6, 2), (9,), {(9, 1): "logits of hazards (rows, intervals)"}),
}  # fmt: skip


class Gives(nn.Module):
    """A model whose outputs have a shape, for each row."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, rows: Tensor) -> Tensor:
        return torch.zeros(len(rows), *self.shape)


def examples(target: Tensor) -> Examples:
    return Examples(torch.zeros(len(target), 8), target)


@pytest.mark.parametrize("made_up", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_have_the_shape_that_the_kind_asks_for(kind: str, made_up: bool):
    target, fits, wrong = KINDS[kind]
    check_fits_outcome(Gives(fits), examples(target), outcome_of(kind), made_up)
    for shape, said in wrong.items():
        expected = f"task: expected a model for the kind {kind!r} that gives .*{re.escape(said)}.*, "
        got = re.escape(f"got {(4, *shape)} for 4 rows (test_fits_outcome.py:")
        if kind in ("classes", "next-token") and made_up:
            expected = f"task: expected a model for the kind {kind!r} that gives logits"
            if shape in ((2,), (5, 7)):
                continue  # only the rows' targets, which are not looked at, say that there are more
        with pytest.raises(Mistake, match=f"^{expected}.*{got}"):
            check_fits_outcome(Gives(shape), examples(target), outcome_of(kind), made_up)


def test_a_model_that_takes_no_such_inputs_is_told_with_its_own_line():
    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(9, 1)

        def forward(self, rows: Tensor) -> Tensor:
            return self.last(rows)

    model = Wrong()
    line = Wrong.forward.__code__.co_firstlineno + 1
    said = rf"^task: expected a model that takes inputs \(4, 8\), got RuntimeError: .* \(test_fits_outcome.py:{line}\)$"
    with pytest.raises(Mistake, match=said):
        check_fits_outcome(model, examples(FLOATS), outcome_of("binary"), True)
    assert model.training


def test_outputs_that_are_no_tensor_and_losses_that_are_not_of_rows_are_told():
    class Pair(nn.Module):
        def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
            return rows, rows

    with pytest.raises(Mistake, match=r"that gives logits \(rows, 1\), got tuple"):
        check_fits_outcome(Pair(), examples(FLOATS), outcome_of("binary"), False)

    metric = OwnMetric("hits", "hits", lambda target, predicted: predicted[:, 0])
    own = OwnKind("own", lambda outputs, target: outputs.mean(), [metric])
    with pytest.raises(Mistake, match=r"kind 'own': expected a loss for each row, \(rows,\), got shape \(\) for"):
        check_fits_outcome(Gives((1,)), examples(FLOATS), own, False)


def test_nothing_is_tried_without_rows():
    check_fits_outcome(Gives((2,)), examples(FLOATS[:0]), outcome_of("binary"), False)
