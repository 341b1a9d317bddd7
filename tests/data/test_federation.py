import itertools
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedsim.data import federation, loading
from fedsim.data.federation import federate, split_by_time, split_rows
from fedsim.data.tables import Number
from fedsim.data.task import Rows, Task
from fedsim.mistakes import Mistake

labels = st.lists(st.integers(0, 1), min_size=1, max_size=80).map(np.array)
shares = st.sampled_from([(0.2, 0.2), (0.0, 1 / 3), (0.1, 0.25), (0.0, 0.5)])


@pytest.mark.whole
@given(labels, shares, st.integers(0, 50))
def test_parts_are_disjoint_and_complete(target: np.ndarray, share: tuple[float, float], seed: int):
    parts = split_rows(target, *share, seed, "a")
    together = np.concatenate([*parts.values()])
    np.testing.assert_array_equal(np.sort(together), np.arange(len(target)))


@given(labels, shares, st.integers(0, 50))
def test_each_class_is_split_in_proportion(target: np.ndarray, share: tuple[float, float], seed: int):
    parts = split_rows(target, *share, seed, "a")
    for label in (0, 1):
        members = (target == label).sum()
        for part, wanted in (("validation", share[0]), ("test", share[1])):
            assert abs((target[parts[part]] == label).sum() - wanted * members) <= 1


@given(labels, st.integers(0, 9))
def test_consecutive_seeds_test_every_row_exactly_once(target: np.ndarray, repeat: int):
    tested = [split_rows(target, 0.2, 0.2, seed, "a")["test"] for seed in range(5 * repeat, 5 * repeat + 5)]
    np.testing.assert_array_equal(np.sort(np.concatenate(tested)), np.arange(len(target)))


def test_a_split_depends_on_seed_and_site():
    target = np.arange(60) % 2
    first = split_rows(target, 0.2, 0.2, 0, "a")["test"]
    np.testing.assert_array_equal(split_rows(target, 0.2, 0.2, 0, "a")["test"], first)
    assert not np.array_equal(split_rows(target, 0.2, 0.2, 5, "a")["test"], first)
    assert not np.array_equal(split_rows(target, 0.2, 0.2, 0, "b")["test"], first)


def test_the_pooled_site_holds_everybodys_rows(scenario):
    whole = federate(scenario(), 0)
    pooled = whole.pooled(range(len(whole.sites)))
    for part in ("train", "validation", "test"):
        assert len(getattr(pooled, part)) == sum(len(getattr(site, part)) for site in whole.sites)


def test_a_site_without_a_training_row_is_an_error(scenario, monkeypatch: pytest.MonkeyPatch):
    lonely = Rows(np.zeros((1, 2), np.float32), np.ones(1, np.float32), np.array(["tiny"]))
    task = Task("t", "o", "s", (), nn.Linear, load=lambda: lonely)
    monkeypatch.setattr(loading, "named", lambda name: task)
    with pytest.raises(
        Mistake, match="site tiny: expected at least one row to train on under every seed, got 1 rows in all"
    ):
        federate(scenario(), 0)  # which would leave it its row under this seed, and not under another


@pytest.mark.whole
@given(labels, shares)
def test_a_site_trains_under_every_seed_or_under_none(target: np.ndarray, share: tuple[float, float]):
    """Oracle: what is found out at once is what all seeds would show."""
    trains = [len(split_rows(target, *share, seed, "a")["train"]) > 0 for seed in range(int(1 / share[1] + 1e-9))]
    assert federation._always_trains(target, *share) == all(trains)


moments = st.lists(st.integers(0, 30), min_size=1, max_size=60).map(lambda days: np.array(days, dtype=float))


@given(moments, shares, st.sampled_from([0.0, 1.0, 5.0]))
def test_parts_follow_each_other_in_time(time: np.ndarray, share: tuple[float, float], horizon: float):
    """The latest rows are for testing; nothing that looks into a later part is in an earlier one."""
    parts = split_by_time(time, *share, horizon)
    order = [time[parts[part]] for part in ("train", "validation", "test") if len(parts[part])]
    for place, (earlier, later) in enumerate(itertools.pairwise(order)):
        assert later.min() - earlier.max() > horizon, place
    used = np.concatenate([*parts.values()])
    assert len(used) == len(set(used))
    lost = np.setdiff1d(np.arange(len(time)), used)
    begins = [time[parts[part]].min() for part in ("validation", "test") if len(parts[part])]
    assert all(any(0 < begin - time[row] <= horizon for begin in begins) for row in lost)
    assert horizon or not len(lost)


def test_shares_are_met_where_every_row_has_a_moment_of_its_own():
    parts = split_by_time(np.random.default_rng(0).permutation(100).astype(float), 0.2, 0.3, 0.0)
    assert {part: len(rows) for part, rows in parts.items()} == {"train": 50, "validation": 20, "test": 30}


def test_rows_of_one_moment_stay_together():
    parts = split_by_time(np.array([1.0, 2, 2, 2, 2, 2, 3]), 0.2, 0.2, 0.0)
    assert {part: rows.tolist() for part, rows in parts.items()} == {
        "train": [0],
        "validation": [1, 2, 3, 4, 5],
        "test": [6],
    }


def test_a_task_split_by_time_has_the_same_parts_under_every_seed(scenario, monkeypatch: pytest.MonkeyPatch):
    random = np.random.default_rng(0)
    rows = Rows(
        random.normal(size=(60, 2)).astype(np.float32),
        random.uniform(-1, 1, 60).astype(np.float32),
        np.array(["a", "b"] * 30),
        time=np.arange(60.0),
    )
    task = Task("t", "o", "s", (), nn.Linear, load=lambda: rows, kind="number", range=Number("y", 0, 1), by_time=True)
    monkeypatch.setattr(loading, "named", lambda name: task)
    first, second = (federate(scenario("training.expected_batch=4"), seed).sites[0] for seed in (0, 1))
    assert first.test.inputs.equal(second.test.inputs)
    assert first.test.inputs.equal(torch.from_numpy(rows.inputs[rows.site == "a"][-6:]))


@given(st.integers(5, 60), st.integers(0, 9))
def test_numbers_are_split_like_one_class(count: int, seed: int):
    parts = split_rows(np.zeros(count, np.float32), 0.2, 0.2, seed, "a")
    assert abs(len(parts["test"]) - 0.2 * count) <= 1


@pytest.mark.parametrize("sizes", [(1, 1, 2, 30), (2, 1, 2), (1,) * 60])
def test_all_sites_that_are_too_small_are_named_at_once(scenario, monkeypatch: pytest.MonkeyPatch, sizes: tuple):
    """A line for each number of rows; a site with enough rows is not named."""
    names = [f"clinic-{number:02}" for number in range(len(sizes))]
    site = np.repeat(names, sizes)
    classes = np.concatenate([np.arange(size) % 2 for size in sizes]).astype(np.float32)
    rows = Rows(np.zeros((len(site), 2), np.float32), classes, site)
    task = Task("t", "o", "s", (), nn.Linear, load=lambda: rows)
    monkeypatch.setattr(loading, "named", lambda name: task)
    with pytest.raises(Mistake) as caught:
        federate(scenario(), 0)
    first, *by_size, last = str(caught.value).splitlines()
    small = [name for name, size in zip(names, sizes, strict=True) if size <= 2]
    assert first.startswith(f"{len(small)} sites: expected at least one row to train on at each under every seed")
    assert len(by_size) == len({size for size in sizes if size <= 2})
    assert sorted(re.findall(r"clinic-\d\d", str(caught.value))) == small
    assert "clinic-00" in by_size[0 if sizes[0] == 1 else -1]
    assert last == "  leave these sites out, or join them with others (partition.sites)"
