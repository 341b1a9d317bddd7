import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim import federation
from fedsim.federation import federate, split_rows
from fedsim.mistakes import Mistake
from fedsim.task import Rows

labels = st.lists(st.integers(0, 1), min_size=1, max_size=80).map(np.array)
shares = st.sampled_from([(0.2, 0.2), (0.0, 1 / 3), (0.1, 0.25), (0.0, 0.5)])


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
    monkeypatch.setattr(federation, "rows_of", lambda scenario: lonely)
    federation._federate.cache_clear()
    federation._sites_of.cache_clear()
    with pytest.raises(Mistake, match="site tiny: expected at least one row to train on, got 1 rows in all"):
        for seed in range(5):  # its one row is a test row under one of five seeds
            federate(scenario("split.validation=0.4", "split.test=0.4"), seed)
    federation._federate.cache_clear()
    federation._sites_of.cache_clear()
