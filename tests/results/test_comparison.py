import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fedsim.outcomes import outcome_of
from fedsim.results.comparison import (
    AGREE,
    ONE_SEED,
    SAME,
    TWO_SEEDS,
    UNBOUNDED,
    compare,
    compare_with_base,
    interval,
    state,
)
from fedsim.results.evaluation import INSIDE, POOLED
from fedsim.scenario.schema import Split
from tests.calls import calls_in

NAMES = [metric.name for metric in outcome_of("binary").metrics]
SPLIT = Split(validation=0.2, test=0.2).overlap


def scores(**arms: list[float]) -> pd.DataFrame:
    return pd.DataFrame([
        {"arm": arm, "private": False, "seed": seed, "site": POOLED, **dict.fromkeys(NAMES, value)}
        for arm, values in arms.items()
        for seed, value in enumerate(values)
    ])  # fmt: skip


def test_the_interval_is_the_corrected_resampled_t():
    """Oracle: variance (1/J + test/train) s^2, J - 1 degrees of freedom, worked out by hand for J = 3."""
    mean, low, high = interval(pd.Series([0.8, 0.9, 1.0]), SPLIT)
    half = 4.302652729911275 * 0.1 * math.sqrt(1 / 3 + 0.2 / 0.6)
    assert (mean, low, high) == pytest.approx((0.9, 0.9 - half, 0.9 + half))


def test_the_interval_holds_what_it_says():
    """Repeated splits of one sample: the mean of overlapping seeds holds the truth about 95 times in 100.

    False alarm below 1e-6: 400 intervals, at least 350 must hold it. The plain t interval holds it about 300 times.
    """
    random, held, plain = np.random.default_rng(0), 0, 0
    for _ in range(400):
        rows = random.normal(size=200)
        means = []
        for seed in range(5):
            order = np.random.default_rng((seed, 7)).permutation(200)
            train, test = rows[order[:120]], rows[order[160:]]
            means.append(test.mean() - 0.2 * train.mean())
        _, low, high = interval(pd.Series(means), SPLIT)
        held += low <= 0 <= high
        plain += abs(np.mean(means)) <= stats.t.ppf(0.975, 4) * np.std(means, ddof=1) / math.sqrt(5)
    assert held >= 350
    assert held > plain


@pytest.mark.parametrize("values", [[], [None, None]])
def test_nothing_known_gives_nothing(values: list):
    assert all(math.isnan(bound) for bound in interval(pd.Series(values, dtype=float), SPLIT))


def test_one_seed_has_a_mean_and_no_interval():
    mean, low, high = interval(pd.Series([0.9, None]), SPLIT)
    assert mean == 0.9
    assert math.isnan(low)
    assert math.isnan(high)


def test_differences_are_paired_by_seed():
    """Seeds differ a lot, arms by a constant: unpaired, nothing could be told."""
    federated, local = [0.5, 0.7, 0.9], [0.501, 0.699, 0.9]
    table = compare(scores(federated=federated, centralized=[0.551, 0.75, 0.949], local=local), SPLIT)
    auc = table[table["metric"] == "auc"].set_index("arm")
    assert auc["difference"]["federated"] == pytest.approx(-0.05)
    assert auc["difference_high"]["federated"] == pytest.approx(-0.05, abs=0.005)
    assert auc["verdict"]["federated"] == auc["here_verdict"]["federated"] == "lower"
    assert auc["gain_verdict"]["federated"] == auc["gain_here_verdict"]["federated"] == SAME
    assert auc["gain_verdict"]["centralized"] == "higher"
    assert math.isnan(auc["difference"]["centralized"])


def test_an_interval_that_holds_zero_is_not_distinguishable():
    table = compare(scores(federated=[0.6, 0.7, 0.8], centralized=[0.7, 0.7, 0.7]), SPLIT)
    assert set(table[table["arm"] == "federated"]["verdict"]) == {SAME}


def test_without_the_other_arm_there_is_no_difference():
    table = compare(scores(federated=[0.6, 0.7]), SPLIT)
    assert table[["difference", "gain"]].isna().all().all()
    assert table["verdict"].isna().all()
    assert (table["difference_why"] == "").all()


def test_each_question_has_an_interval():
    """Of differences, the narrow one is the plain t over seeds, the wide one the corrected resampled t."""
    federated, centralized = [0.6, 0.7, 0.8, 0.75], [0.61, 0.7, 0.83, 0.77]
    row = compare(scores(federated=federated, centralized=centralized), SPLIT).query("arm == 'federated'").iloc[0]
    change = np.subtract(federated, centralized)
    for name, share in (("difference_here", 0.0), ("difference", SPLIT)):
        half = stats.t.ppf(0.975, 3) * change.std(ddof=1) * math.sqrt(1 / 4 + share)
        ends = (row[f"{name}_low"], row[f"{name}_high"])
        assert ends == pytest.approx((change.mean() - half, change.mean() + half))
    wide = state(pd.Series(federated), SPLIT)
    assert (row["low"], row["high"]) == pytest.approx((wide.low, min(1.0, wide.high)))


def test_the_table_says_of_every_site_what_state_says():
    """They share one computation; here against each other, with values that are missing."""
    random = np.random.default_rng(0)
    table = scores(federated=list(random.random(5)), centralized=list(random.random(5)))
    sites = pd.concat([table.assign(site=site, auc=random.random(len(table))) for site in ("a", "b", POOLED)])
    sites.loc[(sites["site"] == "b") & (sites["seed"] == 2), "auc"] = None
    sites.loc[(sites["site"] == "b") & (sites["seed"] == 3) & (sites["arm"] == "federated"), "auc"] = None
    for row in compare(sites, SPLIT).query("metric == 'auc' and arm == 'federated'").to_dict("records"):
        own = sites[sites["site"] == row["site"]].pivot(index="seed", columns="arm", values="auc")
        found = state(own["federated"] - own["centralized"], SPLIT, (-1.0, 1.0))
        assert row["difference_why"] == found.why
        assert row["difference"] == pytest.approx(found.mean)
        assert (row["difference_low"], row["difference_high"]) == pytest.approx((found.low, found.high), nan_ok=True)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([0.7], ONE_SEED),
        ([0.7, None, None], ONE_SEED),
        ([0.7, 0.9], TWO_SEEDS),
        ([0.7, 0.9, None], TWO_SEEDS),
        ([0.7, 0.7, 0.7], AGREE),
        ([0.1 + 0.2, 0.3, 0.3], AGREE),  # they differ by rounding only
        ([0.0, 1.0, 0.0, 1.0], UNBOUNDED),
        ([None], ""),
        ([0.7, 0.8, 0.9], ""),
    ],
)
def test_an_interval_that_says_nothing_is_not_stated(values: list, why: str):
    found = state(pd.Series(values, dtype=float), SPLIT, (0.0, 1.0))
    assert found.why == why
    if why or values == [None]:
        assert math.isnan(found.low)
        assert math.isnan(found.high)
    else:
        assert 0 <= found.low < found.mean < found.high <= 1


def test_two_seeds_and_seeds_that_agree_have_no_verdict():
    two = compare(scores(federated=[0.6, 0.601], centralized=[0.7, 0.7]), SPLIT).query("arm == 'federated'")
    assert two["verdict"].isna().all()
    assert two["here_verdict"].isna().all()
    agree = compare(scores(federated=[0.6, 0.7, 0.8], centralized=[0.65, 0.75, 0.85]), SPLIT)
    agree = agree.query("arm == 'federated'")
    assert agree["difference"].tolist() == pytest.approx([-0.05] * 3)
    assert set(agree["difference_why"]) == set(agree["difference_here_why"]) == {AGREE}
    assert agree[["verdict", "here_verdict"]].isna().all().all()
    assert agree[["difference_low", "difference_here_high"]].isna().all().all()


@pytest.mark.whole
def test_many_sites_are_compared_at_once():
    """A further site costs a few calls for each of its intervals: hundreds when each interval was made by itself."""
    arms = ("federated", "centralized", "local")
    keys = [(arm, private, seed) for arm in arms for private in (False, True) for seed in range(5)]
    random = np.random.default_rng(0)

    def figures_of(sites: int) -> pd.DataFrame:
        tables = []
        for arm, private, seed in keys:
            figures = {name: random.random(sites) for name in NAMES}
            names = [f"site-{number}" for number in range(sites)]
            tables.append(pd.DataFrame({"arm": arm, "private": private, "seed": seed, "site": names, **figures}))
        return pd.concat(tables)

    few, many = figures_of(20), figures_of(2000)
    assert len(compare(many, SPLIT)) == 2000 * 6 * 3
    more = calls_in(lambda: compare(many, SPLIT)) - calls_in(lambda: compare(few, SPLIT))
    assert more <= 10 * 1980 * 6 * 3


@pytest.mark.parametrize("overlap", [0.0, 1 / 3])
def test_a_base_rate_is_compared_as_an_arm_would_be(overlap: float):
    """Oracle: with the centralized arm's scores as base rates, differences are those to the centralized arm."""
    random = np.random.default_rng(0)
    rows = []
    for seed, arm, site in itertools.product(range(5), ("federated", "centralized"), ("a", INSIDE, POOLED)):
        figures = {"auc": random.uniform(0.6, 0.9), "log_loss": random.uniform(0.3, 0.6)}
        rows.append({"arm": arm, "private": False, "seed": seed, "site": site, **figures})
    scores = pd.DataFrame(rows)
    centralized = scores[(scores["arm"] == "centralized") & scores["site"].isin([INSIDE, POOLED])]
    base = centralized.drop(columns=["arm", "private"]).assign(answer=0.4)

    found = compare_with_base(scores, base, overlap)
    assert set(found["site"]) == {INSIDE, POOLED}
    keys = ["arm", "site", "metric"]
    federated = found[found["arm"] == "federated"].set_index(keys).sort_index()
    expected = compare(scores, overlap).set_index(keys).loc[federated.index]
    for column in ("difference", "difference_low", "difference_high", "difference_here_low", "difference_here_high"):
        np.testing.assert_allclose(federated[column].astype(float), expected[column].astype(float))
    assert list(federated["verdict"]) == list(expected["verdict"])
    assert (found.loc[found["arm"] == "centralized", "difference"] == 0).all()
