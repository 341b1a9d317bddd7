"""The layers that people use: in a stack as one by one, plainly and privately, and against autograd and Opacus."""

import pytest
import torch
from torch import nn

from fedsim.engines.stack import train as stacking
from fedsim.engines.stack.layers import Rows
from fedsim.engines.stack.train import check_rules, train_together
from fedsim.randomness import Words
from fedsim.scenario.schema import Optimizer
from fedsim.strategy.trainable import trainable, vector_of
from fedsim.training.functional import outputs_with
from fedsim.training.losses import binary
from fedsim.training.steps import train
from fedsim.training.work import Noise, Plan, Streams, Work
from tests.conftest import examples
from tests.engines.stack.architectures import ARCHITECTURES, SERIAL

SIZES = (6, 1, 9, 0, 4)
STACKED = [name for name, each in ARCHITECTURES.items() if each.cohort != SERIAL]


def made(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return ARCHITECTURES[name].make()


def works(model: nn.Module, noise: Noise | None, steps: int = 3, decay: float = 0.1) -> list[Work]:
    """Return a work for each size, with streams of its own."""
    return [
        Work(
            model,
            vector_of(model),
            examples(size, 16, seed=site),
            Plan(steps, 0.6, 3.0 + site, Optimizer(lr=0.3, weight_decay=decay), noise),
            Streams(Words.of(0, "b", site), Words.of(0, "n", site), layers=100 + site),
            binary,
        )
        for site, size in enumerate(SIZES)
    ]


def together(stack: list[Work]) -> torch.Tensor:
    """Train a stack, in the form that the trial chose; return its parameters, (sites, params)."""
    check_rules(stack[0].model, binary, stack[0].examples)
    found = torch.stack([work.start for work in stack])
    train_together(stack, found)
    return found


@pytest.mark.parametrize("noise", [None, Noise(0.3, 1.0)], ids=["plain", "private"])
@pytest.mark.parametrize("name", STACKED)
def test_a_stack_is_what_its_sites_are_alone(name: str, noise: Noise | None):
    """Three steps with weight decay, and with what is dropped: the same on both engines, also where sites are cut."""
    model = made(name)
    expected = torch.stack([train(work).parameters for work in works(model, noise)])
    torch.testing.assert_close(together(works(model, noise)), expected, rtol=0, atol=2e-5)
    parts = works(model, noise)
    cut = torch.cat([together(parts[:2]), together(parts[2:])])
    torch.testing.assert_close(cut, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", STACKED)
def test_gradients_of_rows_are_those_of_vmap_of_grad(name: str):
    """The same rows at two sites; layers that drop keep everything here, which other tests show."""
    model = made(name)
    for layer in model.modules():
        if isinstance(layer, nn.Dropout | nn.Dropout2d):
            layer.p = 0.0
        if isinstance(layer, nn.RNNBase | nn.MultiheadAttention):
            layer.dropout = 0.0
    rows = examples(5, 16)
    check_rules(model, binary, rows)
    stacked = stacking.stacked_model(model, torch.device("cpu"))
    starts = torch.stack([vector_of(model), 0.9 * vector_of(model)])
    stacked.bind(starts)
    counts = torch.tensor([2, 3]).numpy()
    binary(stacked(rows.inputs, Rows(counts, False, torch.device("cpu"))), rows.target).sum().backward()
    asked = torch.tensor([4, 0, 3])
    found = stacked.row_gradients(asked)
    assert list(found) == list(trainable(model))
    squares = stacked.sizes().squares

    def loss(parameters: dict, row: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return binary(outputs_with(model, parameters, row[None]), target[None]).sum()

    names = list(trainable(model))
    for place, row in enumerate(asked.tolist()):
        site = 0 if row < 2 else 1
        parameters = {name: views[site] for name, views in zip(names, stacked.views(starts), strict=True)}
        own = {name: value.clone().requires_grad_() for name, value in parameters.items()}
        alone = torch.autograd.grad(loss(own, rows.inputs[row], rows.target[row]), list(own.values()))
        for parameter, expected in zip(names, alone, strict=True):
            torch.testing.assert_close(found[parameter][place], expected, rtol=1e-4, atol=1e-6)
        norm = torch.cat([each.flatten() for each in alone]).double().square().sum()
        torch.testing.assert_close(squares[row], norm, rtol=1e-4, atol=1e-9)
