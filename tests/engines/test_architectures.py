"""Architectures that people bring: both engines agree, plainly and privately, as docs/architectures.md says."""

from pathlib import Path

import pytest
import torch
from torch import nn

from fedsim.engines.stack import train as stacking
from fedsim.engines.stack.generic import Generic
from fedsim.engines.stack.layers import NoRule, Rows
from fedsim.engines.stack.train import check_rules, train_together
from fedsim.randomness import Words
from fedsim.scenario.schema import Optimizer
from fedsim.strategy.trainable import trainable, vector_of
from fedsim.training.functional import outputs_with
from fedsim.training.row_gradients import find_way
from fedsim.training.steps import train
from fedsim.training.work import Noise, Plan, Streams, Work
from tests.engines.architectures import ANY, ARCHITECTURES, BOTH, FAST, SERIAL, Architecture

DOCS = Path(__file__).parents[2] / "docs" / "architectures.md"
SIZES = (7, 4, 1, 0)
STEPS = 4
AGREES = 1e-4
NOISE = Noise(0.5, 0.7)


def made(architecture: Architecture) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return architecture.model()


def works(architecture: Architecture, model: nn.Module, noise: Noise | None) -> list[Work]:
    """Return the work of four sites, one of them without rows."""
    return [
        Work(
            model,
            vector_of(model),
            architecture.examples(size, seed=site),
            Plan(STEPS, 0.7, 3.0, Optimizer(lr=0.1), noise),
            Streams(Words.of(0, "b", site), Words.of(0, "n", site), layers=site),
            architecture.losses,
        )
        for site, size in enumerate(SIZES)
    ]


def how_stacked(architecture: Architecture, model: nn.Module) -> str:
    """Return how the cohort engine trains a model; raise NoRule where it can't."""
    check_rules(model, architecture.losses, architecture.examples(5, seed=9))
    layers = stacking.stacked_model(model, torch.device("cpu")).layers
    generic = {isinstance(layer, Generic) for layer in layers}
    if len(generic) > 1:
        return BOTH
    return ANY if generic == {True} else FAST


def difference(architecture: Architecture, model: nn.Module, noise: Noise | None) -> float:
    """Return the largest difference between the parameters that both engines trained, after some steps."""
    alone = torch.stack([train(work).parameters for work in works(architecture, model, noise)])
    stack = works(architecture, model, noise)
    found = torch.stack([work.start for work in stack])
    train_together(stack, found)
    moved = (alone - stack[0].start).abs().max()
    assert moved > 100 * AGREES, "what nothing trains agrees with everything"
    return float((alone - found).abs().max())


def difference_of_rows(architecture: Architecture, model: nn.Module) -> float:
    """Return the largest difference of rows' gradients, in a stack of two sites, to autograd on each row alone."""
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
        if isinstance(layer, nn.RNNBase | nn.MultiheadAttention):
            layer.dropout = 0.0
    rows = architecture.examples(5, seed=9)
    check_rules(model, architecture.losses, rows)
    stacked = stacking.stacked_model(model, torch.device("cpu"))
    starts = torch.stack([vector_of(model), 0.9 * vector_of(model)])
    stacked.bind(starts)
    outputs = stacked(rows.inputs, Rows(torch.tensor([2, 3]).numpy(), False, torch.device("cpu")))
    architecture.losses(outputs, rows.target).sum().backward()
    found = stacked.row_gradients(torch.arange(5))
    names = list(trainable(model))
    assert list(found) == names

    largest = 0.0
    for row in range(5):
        views = stacked.views(starts)
        own = {name: view[int(row >= 2)].clone().requires_grad_() for name, view in zip(names, views, strict=True)}
        alone = outputs_with(model, own, rows.inputs[row : row + 1])
        loss = architecture.losses(alone, rows.target[row : row + 1]).sum()
        for name, expected in zip(names, torch.autograd.grad(loss, list(own.values())), strict=True):
            largest = max(largest, float((found[name][row] - expected).abs().max()))
    return largest


def agrees(difference: float) -> str:
    return "agrees" if difference <= AGREES else f"differs by {difference:.1g}"


def measured(architecture: Architecture) -> list[str]:
    """Measure an architecture's line of the table."""
    model = made(architecture)
    count = sum(value.numel() for value in trainable(model).values())
    way = find_way(works(architecture, model, NOISE)[0])
    try:
        stacked = how_stacked(architecture, model)
    except NoRule:
        return [architecture.title, str(count), SERIAL, way, "runs", "runs", "by autograd"]
    figures = [difference(architecture, model, noise) for noise in (None, NOISE)]
    figures.append(difference_of_rows(architecture, made(architecture)))
    return [architecture.title, str(count), stacked, way, *map(agrees, figures)]


def lines_of_the_docs() -> list[str]:
    lines = DOCS.read_text("utf-8").splitlines()
    return [line for line in lines if line.startswith("| ")][1:]


@pytest.mark.whole
@pytest.mark.filterwarnings("ignore:There is a performance drop", "ignore:In CPU autocast")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_is_what_the_docs_say(name: str):
    """What is written was measured: how it is trained, and that a stack and rows agree with sites and rows alone."""
    architecture = ARCHITECTURES[name]
    line = f"| {' | '.join(measured(architecture))} |"
    assert line in lines_of_the_docs()
    assert f" {architecture.stacked} | {architecture.rows} " in line, "the expectation of the architecture's file"


def test_the_docs_hold_all_architectures_and_no_other():
    titles = [line.split("|")[1].strip() for line in lines_of_the_docs()]
    assert titles == [architecture.title for architecture in ARCHITECTURES.values()]
    assert len(titles) == 25
