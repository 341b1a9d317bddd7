import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord

from fedsim.flower.adapter import Adapter
from fedsim.flower.grid import node_of
from fedsim.mistakes import Mistake
from fedsim.strategy import Strategy
from strategies.fedavg import FedAvg
from tests.nodes import arrays, good, grid_of


def aggregate(adapter: Adapter, grid, keep=lambda site: True) -> np.ndarray:
    messages = list(adapter.configure_train(1, arrays(), ConfigRecord(), grid))
    replies = [r for r in grid.send_and_receive(messages) if keep(r.metadata.src_node_id - node_of(0))]
    new, _ = adapter.aggregate_train(1, replies)
    assert new is not None
    assert {name: (value.shape, value.dtype) for name, value in new.items()} == {
        name: (value.shape, value.dtype) for name, value in arrays().items()
    }
    return new["b"].numpy()


def test_without_public_weights_the_replies_weights_count():
    grid = grid_of(lambda site: good(site, weight=float(site + 1)))
    np.testing.assert_allclose(aggregate(Adapter(FedAvg()), grid), (1 + 4 + 9 + 16) / 10, rtol=1e-6)


@pytest.mark.parametrize("claimed", [1.0, 10.0, 1e12])
def test_with_public_weights_what_a_site_claims_changes_nothing(claimed: float):
    """M4: a site that says it has 1e12 rows does not own the model."""
    grid = grid_of(lambda site: good(site, weight=claimed if site == 3 else 1.0))
    adapter = Adapter(FedAvg(), {node_of(site): 1.0 for site in range(4)}, fixed_denominator=True)
    np.testing.assert_allclose(aggregate(adapter, grid), 2.5, rtol=1e-6)


@pytest.mark.parametrize("dropped", [0, 1, 2, 3])
def test_under_privacy_the_denominator_is_that_of_all_asked_sites(dropped: int):
    """M5: with k of 4 sites gone, the rest count for a quarter each, not for more."""
    adapter = Adapter(FedAvg(), {node_of(site): 1.0 for site in range(4)}, fixed_denominator=True)
    found = aggregate(adapter, grid_of(good), keep=lambda site: site >= dropped)
    np.testing.assert_allclose(found, sum(range(dropped + 1, 5)) / 4, rtol=1e-6)


def test_without_privacy_the_rest_is_averaged():
    adapter = Adapter(FedAvg(), {node_of(site): 1.0 for site in range(4)})
    np.testing.assert_allclose(aggregate(adapter, grid_of(good), keep=lambda site: site >= 2), 3.5, rtol=1e-6)


def test_a_fixed_denominator_needs_public_weights():
    with pytest.raises(ValueError, match="expected public weights"):
        Adapter(FedAvg(), fixed_denominator=True)


def test_the_order_of_replies_does_not_change_a_bit():
    grid = grid_of(lambda site: good(site, weight=0.1 * (site + 1)))
    adapter = Adapter(FedAvg())
    messages = list(adapter.configure_train(1, arrays(), ConfigRecord(), grid))
    replies = list(grid.send_and_receive(messages))
    first, _ = adapter.aggregate_train(1, replies)
    second, _ = adapter.aggregate_train(1, reversed(replies))
    assert first["a"].data == second["a"].data  # type: ignore[index]


def test_no_reply_means_no_new_model():
    adapter = Adapter(FedAvg())
    list(adapter.configure_train(1, arrays(), ConfigRecord(), grid_of(good)))
    assert adapter.aggregate_train(1, []) == (None, None)


def test_no_site_is_asked_for_metrics():
    assert list(Adapter(FedAvg()).configure_evaluate(1, arrays(), ConfigRecord(), grid_of(good))) == []


def test_it_runs_under_flowers_own_loop():
    """Strategy.start is Flower's; our strategy is one of its strategies."""
    result = Adapter(FedAvg()).start(grid=grid_of(good), initial_arrays=arrays(), num_rounds=2)
    np.testing.assert_allclose(result.arrays["b"].numpy(), 2.5, rtol=1e-6)


@pytest.mark.parametrize("wrong", [torch.zeros(8), torch.zeros(10), torch.full((9,), torch.nan), np.zeros(9), None])
def test_a_strategy_that_gives_something_else_is_named(wrong):
    class Odd(Strategy):
        def aggregate(self, center, updates, weights, state):
            return wrong, state

    with pytest.raises(Mistake, match=r"strategy Odd: expected a finite vector \(9,\), got"):
        aggregate(Adapter(Odd()), grid_of(good))
