"""The layers that people use: in a stack as one by one, plainly and privately, and against autograd and Opacus."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from fedsim.data.federation import Examples
from fedsim.engines.stack import train as stacking
from fedsim.engines.stack.generic import Generic
from fedsim.engines.stack.layers import NoRule, Rows
from fedsim.engines.stack.train import check_rules, train_together
from fedsim.flower.records import Layout
from fedsim.randomness import Words
from fedsim.scenario.schema import Optimizer
from fedsim.strategy.trainable import frozen as frozen_values
from fedsim.strategy.trainable import trainable, vector_of
from fedsim.training.functional import outputs_with
from fedsim.training.losses import binary
from fedsim.training.model import layers_of
from fedsim.training.row_gradients import find_way
from fedsim.training.steps import train
from fedsim.training.work import Noise, Plan, Streams, Work
from tests.cases import others_whole
from tests.engines.stack.architectures import ANY, ARCHITECTURES, SERIAL
from tests.works import Silent, examples

SIZES = (6, 1, 9, 0, 4)
STACKED = [name for name, each in ARCHITECTURES.items() if each.cohort != SERIAL]

QUICK = ("PReLU", "Bilinear", "Embedding", "frozen bias", "MultiheadAttention")


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
@pytest.mark.parametrize("name", others_whole(STACKED, *QUICK))
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


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_is_trained_as_the_table_says(name: str):
    """A rule that is wrong is found out and no longer used: then this fails."""
    model = made(name)
    said = ARCHITECTURES[name]
    if said.cohort == SERIAL:
        with pytest.raises(NoRule, match=r"AlphaDropout \(0\) draws random numbers"):
            check_rules(model, binary, examples(5, 16))
    else:
        check_rules(model, binary, examples(5, 16))
        layers = stacking.stacked_model(model, torch.device("cpu")).layers
        assert any(isinstance(layer, Generic) for layer in layers) == (said.cohort == ANY)
    (work, *_) = works(model, Noise(0.3, 1.0))
    assert find_way(work) == said.serial


@pytest.mark.parametrize("kept", [2**24, 0], ids=["gradients of rows kept", "not kept"])
@pytest.mark.parametrize(
    "name", ["PReLU", "two inputs", "a parameter of its own", "tied weights", "MultiheadAttention"]
)
def test_each_row_is_clipped_and_one_that_is_not_finite_counts_as_zero(name: str, kept: int, monkeypatch):
    """B9, M8, M23: one step without noise, against each row's own gradient by autograd."""
    monkeypatch.setattr("fedsim.engines.stack.layers._FLOATS", kept)
    model = made(name)
    check_rules(model, binary, examples(5, 16))
    (_, _, work, *_) = works(model, Noise(0.05, 1.0), decay=0.0)
    rows = work.examples
    spoiled = rows.inputs.clone()
    spoiled[4] = torch.nan
    plan = Plan(1, 1.0, 2.0, Optimizer(lr=0.5), work.plan.noise)
    quiet = Streams(work.streams.batches, Silent(), 0)
    words = name == "tied weights"  # a number that is not finite is no word
    inputs = rows.inputs if words else spoiled
    found = work.start.repeat(1, 1)
    train_together([replace(work, examples=Examples(inputs, rows.target), plan=plan, streams=quiet)], found)

    expected = work.start.clone()
    for row in range(len(rows)):
        if row == 4 and not words:
            continue
        parameters = list(trainable(model).values())
        loss = binary(model(rows.inputs[row : row + 1]), rows.target[row : row + 1]).sum()
        gradient = torch.cat([each.flatten() for each in torch.autograd.grad(loss, parameters)])
        expected -= 0.5 / 2.0 * gradient * min(1.0, 0.05 / float(gradient.norm()))
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-5)


def test_frozen_parameters_are_neither_in_messages_nor_trained_nor_noised():
    """M24: the vector of a model is what is trained; weight decay does not move the rest."""
    model = made("frozen backbone")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert list(trainable(model)) == ["2.weight", "2.bias"]
    assert list(Layout.of(model).shapes) == ["2.weight", "2.bias"]
    assert [part.name for part in layers_of(model)] == ["2.weight", "2.bias"]
    assert list(frozen_values(model)) == ["0.weight", "0.bias"]
    for noise in (None, Noise(0.3, 1.0)):
        assert together(works(model, noise)).shape == (len(SIZES), 9)
        assert {len(train(work).parameters) for work in works(model, noise)} == {9}
    stacked = stacking.stacked_model(model, torch.device("cpu"))
    assert stacked.module[0].weight is model[0].weight  # type: ignore[index]  stored once
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_is_dropped_depends_neither_on_the_sites_beside_nor_on_the_cut():
    """The dropped sites' streams differ, and each is the one that it has alone."""
    model = made("Dropout")
    whole = together(works(model, None))
    last = together(works(model, None)[4:])
    torch.testing.assert_close(whole[4:], last, rtol=0, atol=1e-6)
    other = [replace(work, streams=replace(work.streams, layers=7)) for work in works(model, None)]
    assert (together(other)[0] - whole[0]).abs().max() > 1e-3


def test_a_mask_with_as_many_places_as_there_are_rows_is_taken_for_no_row():
    """A batch may have four rows, as many as the mask has places: it stays one mask for all."""

    class Biased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = Mix()

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.mix(inputs[:, :4], torch.ones(4, 4).triu()).sum(1, keepdim=True)

    class Mix(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 4))

        def forward(self, inputs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return (inputs * self.scale) @ mask

    model = Biased()
    check_rules(model, binary, examples(5, 16))
    stacked = stacking.stacked_model(model, torch.device("cpu"))
    stacked.bind(vector_of(model).repeat(2, 1))
    rows = examples(4, 16)
    found = stacked(rows.inputs, Rows(torch.tensor([1, 3]).numpy(), False, torch.device("cpu")))
    torch.testing.assert_close(found, model(rows.inputs))


def test_the_table_in_the_docs_says_how_each_layer_is_trained():
    lines = (Path(__file__).parents[3] / "docs" / "layers.md").read_text("utf-8").splitlines()
    cells = [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    written = {row[0]: (row[1], row[2]) for row in cells}
    for each in ARCHITECTURES.values():
        assert written[each.layer] == (each.cohort, each.serial), each.layer
