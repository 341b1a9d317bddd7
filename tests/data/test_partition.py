"""Partitions: disjoint, complete, seeded, and never a site without rows and without an error."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedsim.data.declared_sites import DECLARED
from fedsim.data.federation import federate
from fedsim.data.partition import DIVISIONS, Sites, divide, labels_of, natural, skewed
from fedsim.data.task import Rows
from fedsim.mistakes import Mistake
from fedsim.scenario.files import parse
from fedsim.scenario.kinds import Kind
from fedsim.scenario.schema import PARAMETERS, Partition
from tests.cases import others_whole

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "alpha": st.sampled_from([0.05, 0.5, 5.0]),
    "classes": st.integers(1, 3),
    "growth": st.sampled_from(["linear", "square", "exponential"]),
    "shift": st.sampled_from([0.0, 0.3]),
    "noise": st.sampled_from([0.0, 0.3]),
}
RANDOM = sorted(set(DIVISIONS) - {"time"})


def made(count: int, kind: Kind = "binary", seed: int = 0, sites: int = 30) -> Rows:
    random = np.random.default_rng(seed)
    target = {
        "binary": lambda: random.integers(0, 2, count).astype(np.float32),
        "classes": lambda: random.integers(0, 4, count),
        "number": lambda: random.uniform(-1, 1, count).astype(np.float32),
    }[kind]()
    site = np.array([f"s{number}" for number in random.integers(0, sites, count)])
    return Rows(
        random.normal(size=(count, 2)).astype(np.float32), target, site, time=random.integers(0, 40, count) * 1.0
    )


def partitions(by: str) -> st.SearchStrategy[Partition]:
    drawn = {name: VALUES[name] for name in PARAMETERS[by] if name != "sites"}
    return st.builds(Partition, by=st.just(by), sites=st.integers(1, 12), seed=st.integers(0, 3), **drawn)


def test_the_table_is_complete():
    """Every partition a scenario may name is divided here, or is not about rows that are there."""
    named = set(Partition.model_fields["by"].annotation.__args__)  # type: ignore[union-attr]
    assert named == set(PARAMETERS) == {*DIVISIONS, *DECLARED, "made"}
    assert {name for by in DIVISIONS for name in PARAMETERS[by]} == {*VALUES, "sites"}


@pytest.mark.parametrize("by", others_whole(DIVISIONS, "size"))
@settings(max_examples=12)
@given(data=st.data(), kind=st.sampled_from(["binary", "classes", "number"]), count=st.integers(1, 200))
def test_sites_are_disjoint_complete_and_seeded_or_it_is_a_mistake(
    by: str, data: st.DataObject, kind: Kind, count: int
):
    rows, chosen = made(count, kind), data.draw(partitions(by))
    try:
        sites = divide(rows, kind, chosen)
    except Mistake as mistake:
        assert str(mistake).startswith("partition")
        return
    assert list(sites) == sorted(sites)
    assert len(sites) == chosen.sites
    assert all(len(part) for part in sites.values())
    np.testing.assert_array_equal(np.sort(np.concatenate([*sites.values()])), np.arange(count))
    assert same(divide(rows, kind, chosen), sites)


@pytest.mark.parametrize("by", others_whole(RANDOM, "dirichlet"))
def test_another_seed_gives_other_sites(by: str):
    values = {"alpha": 1.0, "classes": 2, "growth": "linear", "shift": 0.1, "noise": 0.1}
    drawn = {name: values[name] for name in PARAMETERS[by] if name != "sites"}
    first, second = (divide(made(200), "binary", Partition(by=by, sites=5, seed=seed, **drawn)) for seed in (0, 1))
    assert not same(first, second)


def same(first: Sites, second: Sites) -> bool:
    return list(first) == list(second) and all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.whole
def test_rows_are_dealt_out_without_regard_to_where_they_stand():
    """The partitioners of flwr-datasets deal in order: without a draw, a site would get one end of the table."""
    rows = made(1000)
    for by in ("iid", "quantity", "size", "dirichlet"):
        extra = {"quantity": {"alpha": 5.0}, "dirichlet": {"alpha": 5.0}, "size": {"growth": "linear"}}.get(by, {})
        for part in divide(rows, "binary", Partition(by=by, sites=4, **extra)).values():
            # The mean of m row numbers drawn of 1000 has deviation 289 / sqrt(m); five of them: 1 in 10^6 a site.
            assert abs(part.mean() - 499.5) < 5 * 289 / np.sqrt(len(part))


@pytest.mark.whole
def test_small_alpha_skews_labels_and_large_does_not():
    rows = made(2000, "classes")

    def spread(alpha: float) -> float:
        sites = divide(rows, "classes", Partition(by="dirichlet", sites=8, alpha=alpha))
        return float(np.std([np.mean(rows.target[part] == 0) for part in sites.values()]))

    assert spread(0.3) > 0.15 > 0.05 > spread(1000.0)


@pytest.mark.whole
def test_quantity_skews_sizes_and_not_labels():
    rows = made(4000)
    sites = divide(rows, "binary", Partition(by="quantity", sites=6, alpha=0.3))
    sizes = [len(part) for part in sites.values()]
    assert max(sizes) > 3 * min(sizes)
    for part in sites.values():
        assert abs(rows.target[part].mean() - rows.target.mean()) < 5 * 0.5 / np.sqrt(len(part))


def test_pathological_sites_have_few_classes():
    rows = made(400, "classes")
    sites = divide(rows, "classes", Partition(by="pathological", sites=8, classes=2))
    assert {len(np.unique(rows.target[part])) for part in sites.values()} == {2}


def test_a_pathological_partition_that_would_leave_a_class_out_is_refused():
    with pytest.raises(Mistake, match="every row at one of them"):
        divide(made(400, "classes"), "classes", Partition(by="pathological", sites=2, classes=1))


@pytest.mark.parametrize(("growth", "ratio"), [("linear", 4), ("square", 16)])
def test_sizes_grow(growth: Any, ratio: float):
    sizes = [len(part) for part in divide(made(3000), "binary", Partition(by="size", sites=4, growth=growth)).values()]
    assert sizes == sorted(sizes)
    assert sizes[-1] / sizes[0] == pytest.approx(ratio, rel=0.05)


def test_time_is_cut_into_blocks():
    rows = made(500)
    assert rows.time is not None
    sites = [*divide(rows, "binary", Partition(by="time", sites=5)).values()]
    for earlier, later in itertools.pairwise(sites):
        assert rows.time[earlier].max() < rows.time[later].min()
    with pytest.raises(Mistake, match="rows that have no time"):
        divide(Rows(rows.inputs, rows.target, rows.site), "binary", Partition(by="time", sites=5))


def test_too_few_moments_for_as_many_sites_are_a_mistake():
    rows = made(500)
    with pytest.raises(Mistake, match="take fewer sites"):
        divide(Rows(rows.inputs, rows.target, rows.site, time=np.zeros(500)), "binary", Partition(by="time", sites=2))


@given(st.integers(1, 30))
def test_natural_sites_are_kept_whole_when_they_are_regrouped(groups: int):
    rows = made(200)
    assume(groups <= len(np.unique(rows.site)))
    parts = divide(rows, "binary", Partition(sites=groups)).values()
    owners = [site for part in parts for site in np.unique(rows.site[part])]
    assert len(owners) == len(set(owners))
    counts = [len(np.unique(rows.site[part])) for part in parts]
    assert max(counts) - min(counts) <= 1


def test_natural_sites_are_those_of_the_data():
    """Oracle."""
    rows = made(300)
    naive = {str(site): np.flatnonzero(rows.site == site) for site in np.unique(rows.site)}
    assert same(natural(rows), naive)


def test_numbers_are_labelled_by_their_tenth():
    target = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    labels = labels_of(target, "number")
    assert np.bincount(labels).tolist() == [100] * 10
    assert [target[labels == n].max() for n in range(9)] == sorted(target[labels == n].max() for n in range(9))


def test_feature_skew_is_the_sites_own_and_public():
    chosen, inputs = Partition(by="feature-skew", sites=4, shift=0.5, noise=0.2), np.zeros((5000, 3), np.float32)
    sites = [skewed(inputs, chosen, number) for number in range(4)]
    assert sites[0].dtype == np.float32
    for number, site in enumerate(sites):
        assert np.abs(site.mean(axis=0)).max() > 0.1  # moved
        np.testing.assert_allclose(site.std(axis=0), 0.2 * (number + 1) / 4, rtol=0.06)
        np.testing.assert_array_equal(skewed(inputs, chosen, number), site)
    assert not np.allclose(sites[0].mean(axis=0), sites[1].mean(axis=0), atol=0.05)
    np.testing.assert_array_equal(skewed(inputs, Partition(by="iid", sites=4), 1), inputs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"by": "iid"}, "expected sites beside by = 'iid' and nothing else, sites is missing"),
        ({"by": "iid", "sites": 3, "alpha": 1.0}, "alpha is not for it"),
        ({"by": "dirichlet", "sites": 3}, "expected sites and alpha beside by = 'dirichlet'.*alpha is missing"),
        ({"alpha": 1.0}, "expected sites beside by = 'natural' and nothing else, alpha is not for it"),
        (
            {"by": "size", "sites": 3, "growth": "cubic"},
            "partition.growth: expected 'linear', 'square' or 'exponential'",
        ),
        ({"by": "dirichlet", "sites": 3, "alpha": 0}, "partition.alpha: expected a number > 0, got 0"),
        ({"by": "random", "sites": 3}, "partition.by: expected"),
        ({"by": "iid", "sites": 3, "beta": 1}, "partition.beta: unknown key"),
    ],
)
def test_parameters_are_checked(changes: dict, message: str):
    with pytest.raises(Mistake, match=message):
        parse({"name": "x", "title": "t", "task": "hospital/heart", "partition": changes})


def test_a_federation_has_the_partitions_sites(scenario):
    chosen = scenario('partition={by="feature-skew", sites=5, shift=0.5, noise=0.0}', "training.expected_batch=64")
    whole = federate(chosen, 0)
    plain = federate(scenario('partition={by="feature-skew", sites=5, shift=0.0, noise=0.0}'), 0)
    assert whole.names == ["site-00", "site-01", "site-02", "site-03", "site-04"]
    moved = whole.sites[2].train.inputs - plain.sites[2].train.inputs
    assert moved.std(0).max() < 1e-5 < moved.abs().max()
    # A site is the same site under every seed, so that seeds are folds of it.
    rows = [{*map(bytes, part.inputs.numpy())} for part in (whole.sites[0].test, federate(chosen, 1).sites[0].test)]
    assert rows[0] != rows[1]
    everything = [
        sorted(bytes(row) for part in (site.train, site.validation, site.test) for row in part.inputs.numpy())
        for site in (whole.sites[0], federate(chosen, 1).sites[0])
    ]
    assert everything[0] == everything[1]
