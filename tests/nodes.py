"""Small Flower pieces for tests: a model of two arrays, ClientApps that answer well or badly."""

from collections.abc import Callable

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedsim.engines.serial import execute
from fedsim.flower.grid import InProcessGrid
from fedsim.flower.records import ARRAYS, MECHANISM, METRICS, WEIGHT

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
