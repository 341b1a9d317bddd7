import re

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MessageType, MetricRecord, RecordDict

from fedsim.flower.adapter import Adapter
from fedsim.flower.grid import node_of
from fedsim.flower.records import ARRAYS, METRICS, WEIGHT
from fedsim.flower.rounds import run_rounds
from fedsim.flower.screening import screen
from strategies.fedavg import FedAvg
from tests.nodes import MODEL, arrays, good, grid_of


def changed(name: str, value: np.ndarray) -> RecordDict:
    content = good(1)
    content[ARRAYS] = arrays({**{k: v + 2 for k, v in MODEL.items()}, name: value})
    return content


def metric(value: object) -> RecordDict:
    content = good(1)
    content[METRICS] = MetricRecord({WEIGHT: value})  # type: ignore[dict-item]
    return content


def without(record: str) -> RecordDict:
    content = good(1)
    del content[record]
    return content


def full(value: float) -> np.ndarray:
    return np.full(3, value, np.float32)


def raising() -> RecordDict:
    raise KeyError("lost")


def tampered() -> RecordDict:
    content = good(1)
    array = content.array_records[ARRAYS]["b"]
    array.data = array.data[:-4]
    return content


BAD = {
    "NaN": (lambda: changed("b", full(np.nan)), "b: expected finite numbers, got 3 NaN or Inf"),
    "Inf": (lambda: changed("b", np.array([0, np.inf, 0], np.float32)), "b: expected finite numbers, got 1 NaN or Inf"),
    "another shape": (lambda: changed("b", np.zeros(4, np.float32)), r"b: expected float32 \(3,\), got float32 \(4,\)"),
    "a shape that would broadcast": (lambda: changed("b", np.zeros(1, np.float32)), r"got float32 \(1,\)"),
    "another type": (lambda: changed("b", np.zeros(3)), "got float64"),
    "objects": (lambda: changed("b", np.zeros(3, np.int64)), "got int64"),
    "one key too many": (lambda: changed("c", full(0)), r"expected the keys \['a', 'b'\], got \['a', 'b', 'c'\]"),
    "a missing key": (
        lambda: RecordDict({ARRAYS: arrays({"a": MODEL["a"]}), METRICS: MetricRecord({WEIGHT: 1.0})}),
        r"expected the keys \['a', 'b'\], got \['a'\]",
    ),
    "no arrays": (lambda: without(ARRAYS), "expected one ArrayRecord 'arrays', got"),
    "no metrics": (lambda: without(METRICS), "expected one MetricRecord 'metrics', got"),
    "nothing at all": (RecordDict, "expected one ArrayRecord"),
    "two models": (lambda: RecordDict({**good(1), "more": ArrayRecord()}), "expected one ArrayRecord 'arrays', got"),
    "a weight of 0": (lambda: metric(0), "num-examples: expected a finite number > 0, got 0"),
    "a negative weight": (lambda: metric(-39.0), "got -39.0"),
    "a weight of NaN": (lambda: metric(float("nan")), "got nan"),
    "an infinite weight": (lambda: metric(float("inf")), "got inf"),
    "a list of weights": (lambda: metric([1.0]), "got \\[1.0\\]"),
    "an exception": (raising, r"failed: KeyError: 'lost' \(test_screening.py"),
    "cut bytes": (tampered, "b: expected an array"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_reply_is_set_aside_and_named_and_the_round_goes_on(kind: str):
    """Site 1 answers badly: the mean is that of the other three."""
    bad, reason = BAD[kind]
    grid = grid_of(lambda site: bad() if site == 1 else good(site))
    finished = run_rounds(Adapter(FedAvg()), grid, arrays(), 1, None, lambda number, model: None)
    rejected = finished.rejected[1]
    assert [one.node for one in rejected] == [node_of(1)]
    assert re.search(reason, rejected[0].reason)
    np.testing.assert_allclose(finished.arrays["b"].numpy(), np.full(3, (1 + 3 + 4) / 3), rtol=1e-6)


def test_replies_are_sorted_by_site_and_counted_once():
    grid = grid_of(good)
    messages = list(Adapter(FedAvg()).configure_train(1, arrays(), ConfigRecord(), grid))
    replies = list(grid.send_and_receive(messages))
    usable, rejected = screen([*reversed(replies), replies[2]], arrays(), [m.metadata.dst_node_id for m in messages])
    assert [reply.metadata.src_node_id for reply in usable] == [node_of(site) for site in range(4)]
    assert [(one.node, one.reason) for one in rejected] == [(node_of(2), "replied twice")]


def test_a_site_that_was_not_asked_is_not_heard():
    grid = grid_of(good)
    messages = list(Adapter(FedAvg()).configure_train(1, arrays(), ConfigRecord(), grid))
    replies = list(grid.send_and_receive(messages))
    _, rejected = screen(replies, arrays(), [node_of(0)])
    assert {one.reason for one in rejected} == {"was not asked"}
    assert messages[0].metadata.message_type == MessageType.TRAIN
