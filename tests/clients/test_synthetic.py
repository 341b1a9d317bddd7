import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from clients import synthetic
from fedsim.data import federation
from fedsim.data.federation import federate
from fedsim.experiments.arms import GLOBAL, Job, run_job
from fedsim.mistakes import Mistake
from fedsim.scenario import catalog
from fedsim.scenario.files import parse
from fedsim.scenario.schema import Scenario

TASKS = [name for name in catalog.titles("tasks") if name.startswith("synthetic/")]
MODELS = {  # parameters and outputs
    "tabular": (6_274, 2), "images": (62_006, 10), "images-large": (1_626_442, 10), "sequences": (4_098, 2),
    "noisy": (6_274, 2), "odd": (6_274, 2), "skewed": (2_634, 10), "two-kinds": (6_274, 2),
}  # fmt: skip


def made(task: str = "synthetic/tabular", sites: int = 6, **training) -> Scenario:
    return parse({
        "name": "made", "title": "Made", "task": task, "seeds": 1,
        "partition": {"by": "made", "sites": sites}, "split": {"validation": 0.0},
        "training": {"rounds": 2, "local_steps": 2, "sampling_rate": 0.2, **training},
        "privacy": {"unit": "record", "epsilon": 8.0, "delta": 1e-4},
    })  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_a_made_up_site_is_the_same_each_time_and_unlike_the_others(name: str):
    task = catalog.load("tasks", name)
    (inputs, target), (again, _), (other, _) = task.make(3), task.make(3), task.make(4)
    np.testing.assert_array_equal(inputs, again)
    assert not np.array_equal(inputs, other)
    model = task.model(*inputs.shape[1:])
    outputs = model(torch.from_numpy(inputs[:3])).shape[1]
    assert target.max() < outputs
    assert (sum(value.numel() for value in model.parameters()), outputs) == MODELS[name.partition("/")[2]]


def test_the_timed_workloads_are_these_tasks():
    """The peers run in environments without fedsim, so the models are written down twice."""
    path = Path(__file__).parents[2] / "benchmarks" / "workloads.py"
    spec = importlib.util.spec_from_file_location("workloads", path)
    assert spec is not None
    assert spec.loader is not None
    workloads = importlib.util.module_from_spec(spec)
    sys.modules["workloads"] = workloads
    spec.loader.exec_module(workloads)
    pairs = {"tabular": "tabular", "small": "images", "cifar": "images_large", "sequence": "sequences"}
    for name, ours in pairs.items():
        task, workload = getattr(synthetic, ours), workloads.WORKLOADS[name]
        shapes = [
            [value.shape for value in model.parameters()] for model in (task.model(*workload.shape), workload.model())
        ]
        assert shapes[0] == shapes[1]
        site = federate(made(f"synthetic/{ours.replace('_', '-')}"), 0).sites[0]
        assert abs(len(site.train) - workload.rows) <= 4
        assert site.train.inputs.shape[1:] == workload.shape


@pytest.mark.whole
@pytest.mark.parametrize("arm", ["federated", "centralized", "local"])
def test_arms_of_a_run_with_some_sites_a_round_stay_within_the_budget(arm):
    done = run_job(made(sites_per_round=2, rounds=4), Job(arm, True, 0), lambda number: None)
    assert done.ledger is not None
    spent = {entry.site: done.ledger.epsilon(entry.site) for entry in done.ledger.entries}
    assert 7.8 < max(spent.values()) <= 8.0
    assert len(done.ledger.entries) == (4 if arm == "centralized" else 8)
    if arm == "centralized":
        assert all(entry.mechanism.sampling_rate == pytest.approx(0.2 / 3) for entry in done.ledger.entries)


def test_learning_happens():
    done = run_job(made(rounds=5, local_steps=4, expected_batch=51.0), Job("federated", False, 0), lambda number: None)
    assert done.scores.iloc[-1]["auc"] > 0.99
    assert done.scores.iloc[-1]["accuracy"] > 0.95


@pytest.mark.whole
def test_engines_agree_on_a_recurrent_network():
    chosen = made("synthetic/sequences", sites=3)
    for private in (False, True):
        one, other = (
            run_job(chosen.model_copy(update={"engine": engine}), Job("federated", private, 0), lambda number: None)
            for engine in ("serial", "cohort")
        )
        assert (one.ledger and one.ledger.entries) == (other.ledger and other.ledger.entries)
        for name, value in one.models[GLOBAL].items():
            torch.testing.assert_close(other.models[GLOBAL][name], value, rtol=1e-4, atol=1e-5)


def test_sites_that_are_not_asked_are_not_made(monkeypatch):
    asked = []
    honest = federation._made

    def counting(*args):
        asked.append(args[-2])
        return honest(*args)

    monkeypatch.setattr(federation, "_made", counting)
    whole = federate(made(sites=100_001), 0)
    assert len(whole.sites) == len(whole.names) == 100_001
    assert whole.sites[77_777].name == "site-077777"
    assert asked == [77_777]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "hospital/heart"}, "partition.by: expected another than 'made' with a task that has rows of its own"),
        ({"partition": {}}, "partition.by: expected 'made' with a task without rows of its own, got 'natural'"),
    ],
)
def test_a_partition_for_another_task_is_a_mistake(change: dict, message: str):
    with pytest.raises(Mistake, match=message):
        federate(parse(made().model_dump(exclude_none=True) | change), 0)


def test_made_sites_need_a_number():
    with pytest.raises(Mistake, match="expected sites beside by = 'made' and nothing else, sites is missing"):
        parse(made().model_dump(exclude_none=True) | {"partition": {"by": "made"}})
