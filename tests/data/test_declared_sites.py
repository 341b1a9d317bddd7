"""Declared sites: by a column, a mapping or shares, every row is at exactly one site."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.data.contents import contents_of
from fedsim.data.declared_sites import DECLARED, WITHOUT_VALUE
from fedsim.data.federation import federate
from fedsim.data.partition import divide
from fedsim.data.tables import Levels, Number, encode
from fedsim.data.task import POOLED, Rows
from fedsim.mistakes import Mistake
from fedsim.scenario.files import parse
from fedsim.scenario.schema import Partition, SizeClass

COLUMNS = (
    Number("age", 0, 100),
    Levels("ward", ("north", "south"), missing=True),
    Levels("stage", (1, 2, 2.5)),
)
SEXES = np.array(["female", "male"])


def made(count: int, seed: int = 0, sites: int = 5) -> tuple[Rows, pd.DataFrame]:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": random.uniform(0, 100, count),
            "ward": random.choice(np.array(["north", "south", None], dtype=object), count),
            "stage": random.choice([1, 2, 2.5], count),
        }
    )
    rows = Rows(
        inputs=encode(frame, COLUMNS),
        target=random.integers(0, 2, count).astype(np.float32),
        site=np.array([f"s{number}" for number in random.integers(0, sites, count)]),
        groups={"sex": random.choice(SEXES, count)},
    )
    return rows, frame


def shares_of(weights: list[int]) -> list[float]:
    return [weight / sum(weights) for weight in weights]


WEIGHTS = st.lists(st.integers(1, 30), min_size=1, max_size=8)
PARTITIONS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "column": st.builds(lambda name: {"column": name}, st.sampled_from(["sex", "ward", "stage"])),
    "mapping": st.builds(
        lambda places: {"mapping": {f"s{number}": f"region {place}" for number, place in enumerate(places)}},
        st.lists(st.integers(0, 2), min_size=5, max_size=5),
    ),
    "shares": st.builds(lambda weights: {"shares": shares_of(weights)}, WEIGHTS),
    "size-classes": st.builds(
        lambda weights, counts: {
            "size_classes": {
                f"class {number}": SizeClass(sites=count, share=share)
                for number, (share, count) in enumerate(zip(shares_of(weights), counts, strict=False))
            }
        },
        st.lists(st.integers(1, 30), min_size=3, max_size=3),
        st.lists(st.integers(1, 12), min_size=3, max_size=3),
    ),
}


def test_every_declared_partition_is_tried():
    assert set(PARTITIONS) == set(DECLARED)


@pytest.mark.parametrize("by", DECLARED)
@settings(max_examples=15)
@given(data=st.data(), count=st.integers(1, 200), seed=st.integers(0, 3))
def test_every_row_is_at_exactly_one_site_and_a_seed_repeats_it(by: str, data: st.DataObject, count: int, seed: int):
    rows, _ = made(count)
    chosen = Partition(by=by, seed=seed, **data.draw(PARTITIONS[by]))  # type: ignore[arg-type]
    try:
        sites = divide(rows, "binary", chosen, COLUMNS)
    except Mistake as mistake:
        assert str(mistake).startswith("partition")
        return
    assert list(sites) == sorted(sites)
    assert all(len(part) for part in sites.values())
    np.testing.assert_array_equal(np.sort(np.concatenate([*sites.values()])), np.arange(count))
    assert all((np.diff(part) > 0).all() for part in sites.values())

    again = divide(rows, "binary", chosen, COLUMNS)
    assert list(again) == list(sites)
    for name, part in sites.items():
        np.testing.assert_array_equal(again[name], part)


def test_each_value_of_a_column_is_a_site():
    rows, frame = made(300)
    for column, values in {
        "sex": rows.groups["sex"],
        "ward": frame["ward"].fillna(WITHOUT_VALUE),
        "stage": frame["stage"].map({1: "1", 2: "2", 2.5: "2.5"}),
    }.items():
        sites = divide(rows, "binary", Partition(by="column", column=column), COLUMNS)
        expected = {value: np.flatnonzero(np.asarray(values) == value) for value in sorted(set(values))}
        assert list(sites) == list(expected)
        for name, part in expected.items():
            np.testing.assert_array_equal(sites[name], part)


def test_a_column_must_be_an_attribute_or_a_category():
    rows, _ = made(50)
    known = "there is 'sex', 'ward', 'stage'"
    with pytest.raises(Mistake, match=f"expected a protected attribute or a category, got 'zip'; {known}"):
        divide(rows, "binary", Partition(by="column", column="zip"), COLUMNS)
    with pytest.raises(Mistake, match="did you mean 'ward'"):
        divide(rows, "binary", Partition(by="column", column="wards"), COLUMNS)

    images = Rows(np.zeros((50, 1, 4, 4), np.float32), rows.target, rows.site)
    with pytest.raises(Mistake, match="expected a task with a protected attribute or a category, got 'sex'"):
        divide(images, "binary", Partition(by="column", column="sex"))


def test_a_value_may_not_have_the_name_that_stands_for_all_sites():
    rows, _ = made(50)
    odd = Rows(rows.inputs, rows.target, rows.site, groups={"sex": np.where(rows.target == 1, POOLED, "male")})
    with pytest.raises(Mistake, match=r"partition.column: expected values other than .*, got '\(pooled\)'"):
        divide(odd, "binary", Partition(by="column", column="sex"), COLUMNS)


def test_a_mapping_joins_whole_sites():
    rows, _ = made(300)
    mapping = {"s0": "west", "s1": "east", "s2": "west", "s3": "east", "s4": "s4"}
    sites = divide(rows, "binary", Partition(by="mapping", mapping=mapping))
    assert list(sites) == ["east", "s4", "west"]
    for name, part in sites.items():
        assert set(rows.site[part]) == {site for site, joined in mapping.items() if joined == name}


def test_a_mapping_names_all_sites_of_the_data_and_no_other():
    rows, _ = made(300)
    mapping = {"s0": "west", "s1": "east", "s3": "east", "s 4": "east"}
    with pytest.raises(Mistake) as caught:
        divide(rows, "binary", Partition(by="mapping", mapping=mapping))
    left_out, unknown = str(caught.value).splitlines()
    assert left_out.endswith("got none for 's2', 's4'")
    assert "got 's 4'; did you mean 's4'?" in unknown

    many, _ = made(3000, sites=40)
    with pytest.raises(Mistake, match=r"and 29 more"):
        divide(many, "binary", Partition(by="mapping", mapping={"s0": "west"}))


def test_sites_have_their_shares_of_the_rows():
    rows, _ = made(1000)
    sites = divide(rows, "binary", Partition(by="shares", shares=[0.5, 0.3, 0.15, 0.05]))
    assert [len(part) for part in sites.values()] == [500, 300, 150, 50]
    for part in sites.values():
        # The mean of m row numbers drawn of 1000 has deviation 289 / sqrt(m); five of them: 1 in 10^6 a site.
        assert abs(part.mean() - 499.5) < 5 * 289 / np.sqrt(len(part))


def test_sites_of_a_class_are_of_one_size():
    rows, _ = made(1000)
    classes = {"small": SizeClass(sites=20, share=0.2), "large": SizeClass(sites=2, share=0.8)}
    sites = divide(rows, "binary", Partition(by="size-classes", size_classes=classes))
    assert Counter((name[:-3], len(part)) for name, part in sites.items()) == {("large", 400): 2, ("small", 10): 20}
    assert {"large-00", "large-01", "small-00", "small-19"} <= set(sites)


@pytest.mark.parametrize(
    "partition",
    [
        Partition(by="shares", shares=[0.4, 0.6]),
        Partition(by="size-classes", size_classes={"any": SizeClass(sites=2, share=1.0)}),
    ],
)
def test_another_seed_gives_other_rows(partition: Partition):
    rows, _ = made(100)
    first = divide(rows, "binary", partition)
    second = divide(rows, "binary", partition.model_copy(update={"seed": 1}))
    assert list(first) == list(second)
    assert not any(np.array_equal(first[name], second[name]) for name in first)


def test_no_site_is_left_without_rows():
    rows, _ = made(30)
    with pytest.raises(Mistake, match="got none for 'site-01'; take fewer sites or larger shares"):
        divide(rows, "binary", Partition(by="shares", shares=[0.99, 0.01]))
    classes = {name: SizeClass(sites=1_000_000, share=0.5) for name in ("one", "two")}
    with pytest.raises(Mistake, match="at most one site for each of the 30 rows, got 2000000 sites"):
        divide(rows, "binary", Partition(by="size-classes", size_classes=classes))


@pytest.mark.parametrize(
    ("partition", "message"),
    [
        ({"by": "column"}, "expected column beside by = 'column' and nothing else, column is missing"),
        ({"by": "column", "column": "sex", "sites": 3}, "sites is not for it"),
        ({"by": "mapping"}, "expected mapping beside by = 'mapping' and nothing else, mapping is missing"),
        ({"by": "mapping", "mapping": {"cleveland": "a/b"}}, "mapping.cleveland: expected the name of a site"),
        ({"by": "mapping", "mapping": {"cleveland": 3}}, "partition.mapping.cleveland: expected text, got 3"),
        ({"by": "mapping", "mapping": {}}, "partition.mapping: expected"),
        ({"by": "shares", "shares": [0.5, 0.3]}, "partition.shares: expected shares of all rows that add up to 1"),
        ({"by": "shares", "shares": [1.0, 0]}, "partition.shares.1: expected a number > 0, got 0"),
        ({"by": "shares", "shares": [3, 2]}, "partition.shares.0: expected a number <= 1, got 3"),
        ({"by": "shares", "shares": [0.5, 0.5], "sites": 2}, "sites is not for it"),
        ({"by": "size-classes", "size_classes": {"large": 2}}, "expected a section, got 2; it has the keys sites"),
        ({"by": "size-classes", "size_classes": {"large": {"sites": 2}}}, "size_classes.large.share: expected a value"),
        (
            {"by": "size-classes", "size_classes": {"large": {"sites": 2, "share": 0.5}}},
            "partition.size_classes: expected shares of all rows that add up to 1, got 0.5",
        ),
        ({"by": "size-classes", "size_classes": {"a/b": {"sites": 2, "share": 1.0}}}, "expected the name of a site"),
        ({"by": "iid", "sites": 3, "partition_by": "sex"}, "partition.partition_by: unknown key; .*partition.column"),
        ({"by": "shares", "partition_sizes": [1.0]}, "partition.partition_sizes: unknown key; .*partition.shares"),
    ],
)  # fmt: skip
def test_parameters_are_checked(partition: dict, message: str):
    with pytest.raises(Mistake, match=message):
        parse({"name": "x", "title": "t", "task": "hospital/heart", "partition": partition})


def test_a_mapping_of_a_table_needs_its_column_of_sites():
    mapping = {"by": "mapping", "mapping": {"a": "b"}}
    with pytest.raises(Mistake, match=r"data.site: expected the column that names each row's site"):
        parse({"name": "x", "title": "t", "data": {"path": "a.csv", "target": "ill"}, "partition": mapping})


def test_a_federation_has_the_declared_sites_and_the_card_counts_them(scenario):
    joined = 'mapping={cleveland="america", va_long_beach="america", hungarian="europe", switzerland="europe"}'
    chosen = scenario(f'partition={{by="mapping", {joined}}}', "training.expected_batch=64")
    assert federate(chosen, 0).names == ["america", "europe"]
    contents = contents_of(chosen)
    assert contents is not None
    assert {site: facts["rows"] for site, facts in contents.sites.items()} == {"america": 503, "europe": 417}
    by_category = scenario('partition={by="column", column="cp"}', "training.expected_batch=64")
    assert federate(by_category, 0).names == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    "partition",
    [
        Partition(by="shares", shares=[0.5, 0.3, 0.2]),
        Partition(
            by="size-classes",
            size_classes={"large": SizeClass(sites=1, share=0.5), "small": SizeClass(sites=2, share=0.5)},
        ),
    ],
)
def test_drawn_sites_have_all_rows_of_their_persons(partition: Partition):
    person = np.random.default_rng(0).integers(0, 40, 200)
    rows = Rows(np.zeros((200, 1), np.float32), np.zeros(200, np.float32), np.full(200, "a"), person=person)
    dealt = divide(rows, "binary", partition)
    np.testing.assert_array_equal(np.sort(np.concatenate([*dealt.values()])), np.arange(200))
    for number in np.unique(person):
        assert sum(number in person[chosen] for chosen in dealt.values()) == 1
