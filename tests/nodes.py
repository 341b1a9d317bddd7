"""Small Flower pieces for tests: a model of two arrays, ClientApps that answer well or badly."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedsim.engines.serial import execute
from fedsim.experiments.on_flower.ray_actors import told
from fedsim.flower.grid import OF_A_SIMULATION, InProcessGrid
from fedsim.flower.nodes import Nodes, at_hand, by_grid, wait_for
from fedsim.flower.records import ARRAYS, MECHANISM, METRICS, WEIGHT
from fedsim.scenario.schema import Scenario
from fedsim.site import node

MODEL = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(3, np.float32)}
Answer = Callable[[int, int, RecordDict], RecordDict]


def arrays(values: dict[str, np.ndarray] | None = None) -> ArrayRecord:
    return ArrayRecord({name: Array(value) for name, value in (values or MODEL).items()})


def good(site: int, weight: float = 1.0, mechanism: dict | None = None) -> RecordDict:
    """Answer with the model plus site + 1."""
    content = RecordDict({
        ARRAYS: arrays({name: value + site + 1 for name, value in MODEL.items()}),
        METRICS: MetricRecord({WEIGHT: weight}),
    })  # fmt: skip
    if mechanism:
        content[MECHANISM] = ConfigRecord(mechanism)
    return content


def grid_of(answer: Callable[[int], RecordDict], sites: int = 4) -> InProcessGrid:
    """Return a grid whose sites answer train messages with ``answer(site)``."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(answer(int(context.node_config["partition-id"])), reply_to=message)

    return InProcessGrid(execute(app), sites, {})


class Wires(InProcessGrid):
    """A grid of Flower's between whose ends there is nothing but bytes; some nodes are cut off at a message."""

    def __init__(self, count: int, cut: Mapping[int, int] | None = None) -> None:
        self.asked: dict[int, int] = {}
        self.cut = dict(cut or {})
        super().__init__(self._answer, count, {})

    def _answer(self, messages: Any, contexts: Any) -> list[Any]:
        replies: list[Any] = []
        for message, context in zip(messages, contexts, strict=True):
            number = message.metadata.dst_node_id
            self.asked[number] = self.asked.get(number, 0) + 1
            gone = number in self.cut and self.asked[number] > self.cut[number]
            replies.append(None if gone else node.app(message, context))
        return replies


@contextmanager
def nodes_of(
    scenario: Scenario, count: int, inside: str = "serial", cut: Mapping[int, int] | None = None
) -> Iterator[Wires]:
    wires = Wires(count, cut)
    ask = by_grid(wires, OF_A_SIMULATION, told(scenario, inside), None)
    with at_hand(Nodes(wait_for(wires, count, 1), ask, inside)):
        yield wires


def nodes_for(scenario: Scenario) -> AbstractContextManager[object]:
    """Have two nodes at hand where the engine of a scenario shares sites out among nodes."""
    return nodes_of(scenario, 2, scenario.trains_with) if scenario.has_nodes else nullcontext()
