from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import nn

from fedsim.data import loading
from fedsim.data.tables import Number
from fedsim.data.task import Rows, Task
from fedsim.mistakes import Mistake
from fedsim.scenario.schema import Data

GOOD = {"inputs": np.zeros((2, 3), np.float32), "target": np.array([0, 1], np.float32), "site": np.array(["a", "b"])}


def task(rows: Callable[[], Rows], **changes: Any) -> Task:
    return Task("t", "o", "s", (), nn.Linear, load=rows, **changes)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Rows]:
    """Load the rows of a task that stands for all tasks."""

    def load(change: dict, **kind: Any) -> Rows:
        return loading.load(task(lambda: Rows(**(GOOD | change)), **kind), "x/y", Data())

    return load


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": np.array([0, 2], np.float32)}, "a target of 0 or 1"),
        ({"target": np.array([0, np.nan], np.float32)}, "a target of 0 or 1"),
        ({"target": np.array([1], np.float32)}, "as many targets as inputs"),
        ({"site": np.array(["a"])}, "as many targets and sites as inputs"),
        ({"inputs": np.full((2, 3), np.nan, np.float32)}, "finite inputs"),
        ({"inputs": np.zeros((2, 3))}, "inputs of int64 .for a model that begins with an embedding. or float32 inputs"),
        ({"target": np.zeros(2)}, "a target of float32"),
        ({"site": np.array(["a", "(pooled)"])}, "sites with names other than .inside sites. and .pooled."),
        ({"site": np.array(["a", "(inside sites)"])}, "sites with names other than .inside sites. and .pooled."),
        ({"time": np.zeros(3)}, "as many times as inputs"),
        ({"time": np.array([0, np.nan])}, "finite times"),
        ({"groups": {"sex": np.array(["f"])}}, "as many values of each protected attribute as inputs"),
        ({key: value[:0] for key, value in GOOD.items()}, "rows"),
    ],
)
def test_what_a_task_loads_is_checked(load: Callable[..., Rows], change: dict, message: str):
    with pytest.raises(Mistake, match=f"task x/y: expected {message} from what it loads"):
        load(change)


def test_classes_are_whole_and_numbers_scaled(load: Callable[..., Rows]):
    with pytest.raises(Mistake, match="a target of int64"):
        load({}, kind="classes")
    with pytest.raises(Mistake, match="class numbers, int64 from 0 on"):
        load({"target": np.array([0, -1])}, kind="classes")
    with pytest.raises(Mistake, match=r"a target in \[-1, 1\]"):
        load({"target": np.array([0, 1.5], np.float32)}, kind="number", range=Number("y", 0, 10))
    with pytest.raises(Mistake, match="times, since it is split by time"):
        load({}, by_time=True)
    assert load({"target": np.array([-0.2, 1.0], np.float32)}, kind="number", range=Number("y", 0, 10)).groups == {}


@pytest.mark.parametrize("changes", [{"kind": "number"}, {"range": Number("y", 0, 1)}, {"make": lambda site: site}])
def test_a_task_that_contradicts_itself_is_refused(changes: dict):
    with pytest.raises(Mistake, match="task 't': expected"):
        task(lambda: Rows(**GOOD), **changes)
