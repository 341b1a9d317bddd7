from importlib.metadata import version

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg

from fedsim.engines.serial import execute
from fedsim.flower.grid import InProcessGrid, node_of
from fedsim.flower.records import ARRAYS, METRICS, WEIGHT
from tests.nodes import arrays, good, grid_of


def test_the_private_parts_of_flower_are_those_of_a_version_we_know():
    """TaskIdentity, Run and the message id are not public: look at flower/grid.py before you add a version here."""
    assert version("flwr") in ("1.41.0", "1.42.0")


@pytest.mark.parametrize("strategy", [FedAvg, FedMedian, FedTrimmedAvg])
def test_flowers_own_strategies_run_on_it(strategy: type[FedAvg]):
    """Oracle of our engine: Flower's server loop and aggregation, unchanged."""
    settings = {"fraction_evaluate": 0.0, "min_available_nodes": 4, "min_train_nodes": 4}
    result = strategy(**settings).start(grid=grid_of(good), initial_arrays=arrays(), num_rounds=1)
    np.testing.assert_allclose(result.arrays["b"].numpy(), 2.5, rtol=1e-6)


def test_a_site_keeps_its_state_between_rounds_and_shares_nothing():
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        calls = context.state.metric_records["calls"]["n"] if "calls" in context.state else 0
        context.state["calls"] = MetricRecord({"n": calls + 1})
        assert "seen" not in message.content
        message.content["seen"] = MetricRecord({"n": 1})  # must not reach the next site
        content = RecordDict({ARRAYS: arrays(), METRICS: MetricRecord({WEIGHT: 1.0})})
        return Message(content, reply_to=message)

    grid = InProcessGrid(execute(app), 3, {})
    FedAvg(fraction_evaluate=0.0).start(grid=grid, initial_arrays=arrays(), num_rounds=2)
    assert [grid.context(node_of(site)).state.metric_records["calls"]["n"] for site in range(3)] == [2, 2, 2]


def test_of_sites_that_remember_nothing_the_grid_remembers_nothing():
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if context.node_id == node_of(1):
            context.state["seen"] = MetricRecord({"n": 1})
        return Message(RecordDict({ARRAYS: arrays(), METRICS: MetricRecord({WEIGHT: 1.0})}), reply_to=message)

    grid = InProcessGrid(execute(app), 3, {})
    FedAvg(fraction_evaluate=0.0).start(grid=grid, initial_arrays=arrays(), num_rounds=2)
    assert list(grid.contexts) == [node_of(1)]


def test_an_unknown_node_is_refused():
    message = Message(RecordDict({ARRAYS: ArrayRecord()}), dst_node_id=99, message_type="train")
    with pytest.raises(ValueError, match="expected a node in"):
        grid_of(good).push_messages([message])
