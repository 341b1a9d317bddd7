"""Persons: nobody is on two sides of a split, in two drawn sites, or taken for somebody else."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedsim.data import loading
from fedsim.data.contents import contents_of, persons_of
from fedsim.data.federation import federate, split_by_time, split_rows
from fedsim.data.partition import divide
from fedsim.data.persons import count, labels_of_persons, numbered, without_later
from fedsim.data.task import Rows, Task
from fedsim.mistakes import Mistake
from fedsim.planning.checks import check
from fedsim.scenario.schema import Partition

shares = st.sampled_from([(0.2, 0.2), (0.0, 1 / 3), (0.1, 0.25), (0.0, 0.5)])
persons = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2)), min_size=1, max_size=80)


def parts_of_each(parts: dict[str, np.ndarray], person: np.ndarray) -> list[set[str]]:
    """Return the parts in which each person has rows."""
    return [{part for part, chosen in parts.items() if number in person[chosen]} for number in np.unique(person)]


@given(persons, shares, st.integers(0, 50))
def test_all_rows_of_a_person_are_on_one_side_of_a_split(pairs: list, share: tuple[float, float], seed: int):
    """The property that data.person promises, for any persons, labels, shares and seeds; and no row is lost."""
    person, target = np.array(pairs).T
    parts = split_rows(target, *share, seed, "a", person)
    assert all(len(found) == 1 for found in parts_of_each(parts, person))
    np.testing.assert_array_equal(np.sort(np.concatenate([*parts.values()])), np.arange(len(target)))
    assert all((np.diff(chosen) > 0).all() for chosen in parts.values())


@given(persons, shares, st.integers(0, 50))
def test_shares_are_met_in_persons(pairs: list, share: tuple[float, float], seed: int):
    person, target = np.array(pairs).T
    numbers = numbered(person)
    labels = labels_of_persons(target, numbers)
    parts = split_rows(target, *share, seed, "a", person)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        tested = len(np.intersect1d(members, numbers[parts["test"]]))
        assert abs(tested - share[1] * len(members)) <= 1


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), shares, st.integers(0, 20))
def test_persons_with_one_row_each_are_split_as_rows(target: list, share: tuple[float, float], seed: int):
    labels = np.array(target)
    alone = split_rows(labels, *share, seed, "a")
    named = split_rows(labels, *share, seed, "a", np.arange(len(labels))[::-1])
    for part, chosen in alone.items():
        np.testing.assert_array_equal(named[part], chosen)


@given(persons, st.integers(0, 9))
def test_consecutive_seeds_test_every_person_exactly_once(pairs: list, repeat: int):
    person, target = np.array(pairs).T
    seeds = range(5 * repeat, 5 * repeat + 5)
    tested = [split_rows(target, 0.2, 0.2, seed, "a", person)["test"] for seed in seeds]
    np.testing.assert_array_equal(np.sort(np.concatenate(tested)), np.arange(len(target)))


@given(persons, shares)
def test_split_by_time_nobody_is_in_two_parts(pairs: list, share: tuple[float, float]):
    """The latest rows are still tested on; earlier rows of whoever has a row there are in no part."""
    person, time = np.array(pairs).T
    plain = split_by_time(time.astype(float), *share, 0.0)
    parts = without_later(plain, person)
    assert all(len(found) <= 1 for found in parts_of_each(parts, person))
    np.testing.assert_array_equal(parts["test"], plain["test"])
    for part, chosen in parts.items():
        assert set(chosen) <= set(plain[part])
    lost = set(np.concatenate([*plain.values()])) - set(np.concatenate([*parts.values()]))
    assert all(person[row] in person[np.concatenate([plain["test"], plain["validation"]])] for row in lost)


def test_a_person_goes_by_the_rarest_label_of_her_rows():
    labels = np.array([0, 0, 0, 1, 0, 2, 1])
    person = np.array([0, 1, 1, 1, 2, 2, 3])
    assert labels_of_persons(labels, person).tolist() == [0, 1, 2, 1]


def rows_of(person: np.ndarray, site: np.ndarray, by_time: bool = False) -> Rows:
    """Make rows whose one input names the person of their site: no two persons have one."""
    names = numbered(np.array([f"{a}/{b}" for a, b in zip(site, person, strict=True)]))
    inputs = (names[:, None] / (names.max() + 1)).astype(np.float32)
    target = (np.arange(len(person)) % 2).astype(np.float32)
    time = np.arange(len(person), dtype=float) if by_time else None
    return Rows(inputs, target, site, time=time, person=person)


def pretend(monkeypatch: pytest.MonkeyPatch, rows: Rows) -> None:
    task = Task(
        "t", "o", "s", (), lambda inputs: nn.Linear(inputs, 1), load=lambda: rows, by_time=rows.time is not None
    )
    monkeypatch.setattr(loading, "named", lambda name: task)


@pytest.mark.parametrize("by_time", [False, True])
def test_a_federation_keeps_persons_on_one_side_and_numbers_them(scenario, monkeypatch, by_time: bool):
    random = np.random.default_rng(0)
    person, site = random.integers(0, 60, 400), random.choice(["a", "b", "c"], 400)
    if by_time:
        person = np.sort(person)  # most people come for a while, and not again
    pretend(monkeypatch, rows_of(person, site, by_time))
    for seed in range(3):
        whole = federate(scenario(), seed)
        for one in whole.sites:
            seen = [set(part.inputs[:, 0].tolist()) for part in (one.train, one.validation, one.test)]
            assert not (seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2])
            for part, names in zip((one.train, one.validation, one.test), seen, strict=True):
                assert part.person is not None
                assert part.persons == len(names)
                pairs = set(zip(part.person.tolist(), part.inputs[:, 0].tolist(), strict=True))
                assert len(pairs) == len(names), "one number for each person"
        pooled = whole.pooled(range(3))
        assert pooled.train.persons == sum(one.train.persons or 0 for one in whole.sites)


def test_a_drawn_partition_deals_out_persons_with_all_rows():
    random = np.random.default_rng(1)
    person, site = random.integers(0, 40, 300), random.choice(["a", "b"], 300)
    rows = rows_of(person, site)
    pairs = np.array([f"{a}/{b}" for a, b in zip(site, person, strict=True)])
    sizes = {"iid": {}, "dirichlet": {"alpha": 1.0}, "quantity": {"alpha": 5.0}, "size": {"growth": "linear"}}
    for by, more in sizes.items():
        dealt = divide(rows, "binary", Partition(by=by, sites=4, **more))
        np.testing.assert_array_equal(np.sort(np.concatenate([*dealt.values()])), np.arange(300))
        homes = [{name for name, chosen in dealt.items() if pair in pairs[chosen]} for pair in np.unique(pairs)]
        assert all(len(found) == 1 for found in homes), by


def test_persons_are_counted_for_each_site_and_those_at_several():
    person = np.array([1, 1, 1, 2, 1, 3])
    site = np.array(["a", "a", "a", "a", "b", "b"])
    found = count(rows_of(person, site), {"a": np.arange(4), "b": np.array([4, 5])})
    assert found is not None
    assert (found.rows, dict(found.of_sites), found.most_rows, found.at_several_sites) == (6, {"a": 2, "b": 2}, 3, 1)
    assert "6 rows of 4 persons" in found.said
    assert "up to 3 rows at a site" in found.caution
    assert count(replace(rows_of(person, site), person=None), {"a": np.arange(6)}) is None


def test_wrong_persons_of_a_task_are_refused(scenario, monkeypatch: pytest.MonkeyPatch):
    site = np.array(["a"] * 4)
    pretend(monkeypatch, replace(rows_of(np.arange(4), site), person=np.arange(3)))
    with pytest.raises(Mistake, match="expected as many persons as inputs"):
        federate(scenario("seed=1"), 0)
    pretend(monkeypatch, replace(rows_of(np.arange(4), site), person=np.array([0.5, 1.0, 2.0, np.nan])))
    with pytest.raises(Mistake, match="expected persons as text or whole numbers"):
        federate(scenario("seed=2"), 0)


def test_a_task_that_knows_no_persons_can_not_protect_them(scenario):
    with pytest.raises(Mistake, match=r"expected a task whose rows have persons \(Rows.person\) beside 'person'"):
        check(scenario("privacy.unit=person", "privacy.noise_multiplier=2"))


def test_pupils_of_several_years_are_persons(scenario):
    """A real table: 24 613 years of 10 767 pupils, of whom 367 were at several schools."""
    found = persons_of(scenario("task=school/years", "training.expected_batch=8"))
    assert found is not None
    assert (found.rows, sum(found.of_sites.values())) == (24_613, 11_141)
    assert (found.most_rows, found.at_several_sites) == (4, 367)
    contents = contents_of(scenario("task=school/years", "training.expected_batch=8"))
    assert contents is not None
    assert contents.persons == found
