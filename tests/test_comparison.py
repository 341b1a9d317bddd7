import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fedsim.comparison import SAME, compare, interval
from fedsim.evaluation import POOLED
from fedsim.metrics import METRICS
from fedsim.scenario import Split

NAMES = [metric.name for metric in METRICS["binary"]]
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
    table = compare(scores(federated=[0.5, 0.7, 0.9], centralized=[0.55, 0.75, 0.95], local=[0.5, 0.7, 0.9]), SPLIT)
    auc = table[table["metric"] == "auc"].set_index("arm")
    assert auc["difference"]["federated"] == pytest.approx(-0.05)
    assert auc["difference_high"]["federated"] == pytest.approx(-0.05)
    assert auc["verdict"]["federated"] == "lower"
    assert auc["gain_verdict"]["federated"] == SAME
    assert auc["gain_verdict"]["centralized"] == "higher"
    assert math.isnan(auc["difference"]["centralized"])


def test_an_interval_that_holds_zero_is_not_distinguishable():
    table = compare(scores(federated=[0.6, 0.7, 0.8], centralized=[0.7, 0.7, 0.7]), SPLIT)
    assert set(table[table["arm"] == "federated"]["verdict"]) == {SAME}


def test_without_the_other_arm_there_is_no_difference():
    table = compare(scores(federated=[0.6, 0.7]), SPLIT)
    assert table[["difference", "gain"]].isna().all().all()
    assert table["verdict"].isna().all()
