"""The contract every strategy keeps, run over all there are."""

import dataclasses

import pytest
import torch

from fedsim import catalog
from strategies.fedavg import FedAvg

NAMES = list(catalog.titles("strategies"))


@pytest.fixture(params=NAMES)
def strategy(request: pytest.FixtureRequest):
    return catalog.load("strategies", request.param)()


def some(sites: int, params: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(sites)
    weights = torch.rand(sites, generator=random) + 0.1
    return torch.randn(params, generator=random), torch.randn(sites, params, generator=random), weights / weights.sum()


def test_it_is_a_frozen_dataclass(strategy):
    assert dataclasses.is_dataclass(strategy)
    assert strategy.__dataclass_params__.frozen


@pytest.mark.parametrize("sites", [1, 5])
def test_equal_updates_give_that_update(strategy, sites: int):
    center, updates, weights = some(sites)
    new, _ = strategy.aggregate(center, updates[:1].expand(sites, -1), weights, {})
    torch.testing.assert_close(new, updates[0])


def test_the_order_of_sites_does_not_matter(strategy):
    center, updates, weights = some(5)
    order = torch.tensor([3, 1, 4, 0, 2])
    first, _ = strategy.aggregate(center, updates, weights, {})
    second, _ = strategy.aggregate(center, updates[order], weights[order], {})
    torch.testing.assert_close(first, second)


def test_inputs_are_left_as_they_were(strategy):
    center, updates, weights = some(5)
    copies = [tensor.clone() for tensor in (center, updates, weights)]
    strategy.aggregate(center, updates, weights, {})
    assert all(torch.equal(a, b) for a, b in zip((center, updates, weights), copies, strict=True))


def test_shape_type_and_state_are_kept(strategy):
    center, updates, weights = some(5)
    new, state = strategy.aggregate(center, updates, weights, {})
    assert new.shape == center.shape
    assert new.dtype == center.dtype
    assert all(isinstance(value, torch.Tensor) for value in state.values())


def test_fedavg_is_the_weighted_mean():
    """Oracle: ten naive lines."""
    center, updates, weights = some(6)
    expected = [sum(float(w) * float(u[i]) for w, u in zip(weights, updates, strict=True)) for i in range(7)]
    torch.testing.assert_close(FedAvg().aggregate(center, updates, weights, {})[0], torch.tensor(expected))


def test_fedavg_moves_less_when_weight_is_missing():
    """With a public denominator an absent site counts as unmoved."""
    center, updates, weights = some(4)
    new, _ = FedAvg().aggregate(center, updates[:2], weights[:2], {})
    expected = center + sum(weights[k] * (updates[k] - center) for k in range(2))
    torch.testing.assert_close(new, expected)
