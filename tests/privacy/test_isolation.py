"""A row's gradient is its own: it does not move when another row is replaced."""

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from opacus.grad_sample import GradSampleModuleFastGradientClipping

from fedsim.data.federation import Examples, federate
from fedsim.data.loading import task_of
from fedsim.engines.stack.layers import Rows
from fedsim.engines.stack.model import StackedModel
from fedsim.outcomes import outcome_of
from fedsim.scenario import catalog
from fedsim.scenario.files import read
from fedsim.training.losses import RowLosses, binary
from fedsim.training.model import new_model
from fedsim.training.row_gradients import _with_opacus_layers
from tests.cases import others_whole
from tests.engines.stack.test_train import MODELS
from tests.works import examples, vector

SCENARIOS = {read(name).task: name for name in catalog.titles("scenarios")}
ROWS = 6
LAYERS_OPACUS_NEEDS_HOOKS_FOR = {"gru", "lstm"}
USED_ONCE_FOR_EACH_VIEW = {"hospital/movements"}  # which Opacus' ghost norms refuse, and its hooks add up


def zoo(name: str) -> tuple[torch.nn.Module, Examples, RowLosses]:
    """Return a model of the tests or of a task, six rows for it, and its loss."""
    if name in MODELS:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return MODELS[name](), examples(ROWS, 16), binary
    scenario = read(SCENARIOS[name])
    rows = federate(scenario, 0).sites[0].train
    few = Examples(rows.inputs[:ROWS].clone(), rows.target[:ROWS].clone())
    return new_model(scenario, federate(scenario, 0).sites[0], 0, "cpu"), few, outcome_of(task_of(scenario).kind).losses


ZOO = [*MODELS, *(name for name in SCENARIOS if name)]


def swapped(rows: Examples) -> Examples:
    """Replace the last row by another."""
    inputs = rows.inputs.clone()
    inputs[-1] = inputs[0] if not inputs.is_floating_point() else inputs[-1] * -0.5 + 0.3
    return Examples(inputs, rows.target)


def opacus_gradients(net: torch.nn.Module, rows: Examples, losses: RowLosses, functorch: bool = False) -> torch.Tensor:
    """Return each row's gradient as serial has it, (rows, params)."""
    wrapped = GradSampleModule(
        _with_opacus_layers(net), batch_first=True, loss_reduction="sum", force_functorch=functorch
    )
    try:
        losses(wrapped(rows.inputs), rows.target).sum().backward()
        return torch.cat([value.grad_sample.flatten(1) for value in wrapped.parameters()], 1)  # type: ignore[attr-defined]
    finally:
        wrapped.to_standard_module()


def stacked_squares(net: torch.nn.Module, rows: Examples, losses: RowLosses) -> torch.Tensor:
    """Return the square of each row's norm as the cohort engine has it, (rows,); the rows are of two sites."""
    stacked = StackedModel(net, rows.inputs.device)
    stacked.bind(vector(net).repeat(2, 1))
    losses(stacked(rows.inputs, Rows(np.array([ROWS - 2, 2]), False, rows.target.device)), rows.target).sum().backward()
    return stacked.sizes().squares


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("name", others_whole(ZOO, *MODELS, "hospital/heart", "hospital/movements"))
def test_another_row_moves_no_gradient_by_a_single_bit(name: str):
    """B8, M10: in serial, row by row; in the stack, the norm by which a row is clipped."""
    net, rows, losses = zoo(name)
    before, after = (opacus_gradients(net, own, losses) for own in (rows, swapped(rows)))
    assert torch.equal(before[:-1], after[:-1])
    assert not torch.equal(before[-1], after[-1])
    first, second = (stacked_squares(net, own, losses) for own in (rows, swapped(rows)))
    assert torch.equal(first[:-1], second[:-1])
    torch.testing.assert_close(first, before.double().pow(2).sum(1), rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing", "ignore:In CPU autocast")
@pytest.mark.parametrize("name", [name for name in ZOO if name not in LAYERS_OPACUS_NEEDS_HOOKS_FOR])
def test_ways_to_a_rows_gradient_agree(name: str):
    """B8: Opacus' hooks, its functorch and its ghost norms."""
    net, rows, losses = zoo(name)
    hooks = opacus_gradients(net, rows, losses)
    torch.testing.assert_close(hooks, opacus_gradients(net, rows, losses, functorch=True), rtol=1e-5, atol=1e-6)
    if name in USED_ONCE_FOR_EACH_VIEW:
        norms = stacked_squares(net, rows, losses).sqrt().float()
        torch.testing.assert_close(norms, hooks.norm(dim=1), rtol=1e-5, atol=1e-6)
        return
    ghost = GradSampleModuleFastGradientClipping(
        _with_opacus_layers(net), batch_first=True, loss_reduction="sum", max_grad_norm=1.0, use_ghost_clipping=True
    )
    losses(ghost(rows.inputs), rows.target).sum().backward()
    torch.testing.assert_close(ghost.get_norm_sample(), hooks.norm(dim=1), rtol=1e-5, atol=1e-6)
