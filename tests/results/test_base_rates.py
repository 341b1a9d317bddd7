"""The base rate is learned from training rows and scored on test rows; oracle: scikit-learn's dummies."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import accuracy_score, log_loss, r2_score, roc_auc_score

from fedsim.data.federation import INSIDE, POOLED, Examples, Federation, Site
from fedsim.data.scale import Scale
from fedsim.data.tables import Number
from fedsim.outcomes import outcome_of
from fedsim.results.base_rates import answer_in_words, base_rates
from fedsim.scenario.kinds import Kind

DTYPES = {"binary": np.float32, "classes": np.int64, "number": np.float32}
DRAWS = range(4)


def examples(target: np.ndarray) -> Examples:
    return Examples(torch.zeros(len(target), 1), torch.from_numpy(target))


def federation_of(trains: list[np.ndarray], tests: list[np.ndarray]) -> Federation:
    nothing = trains[0][:0]
    sites = []
    for number, (train, test) in enumerate(zip(trains, tests, strict=True)):
        sites.append(Site(number, f"site-{number}", examples(train), examples(nothing), examples(test)))
    return Federation(tuple(sites))


def drawn(kind: Kind, draw: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    random = np.random.default_rng(draw)
    parts = []
    for sizes in ((40, 7, 25), (12, 3, 20)):
        targets = []
        for size in sizes:
            if kind == "binary":
                values = random.random(size) < random.uniform(0.1, 0.9)
            elif kind == "classes":
                values = random.integers(0, 4, size)
            else:
                values = random.uniform(-1, 1, size)
            targets.append(values.astype(DTYPES[kind]))
        parts.append(targets)
    return parts[0], parts[1]


def row_of(table, site: str) -> dict:
    (row,) = table[table["site"] == site].to_dict("records")
    return row


@pytest.mark.parametrize("draw", DRAWS)
def test_a_binary_base_rate_is_that_of_the_dummy_that_knows_the_prior(draw: int):
    trains, tests = drawn("binary", draw)
    row = row_of(base_rates(federation_of(trains, tests), "binary"), POOLED)
    train, test = np.concatenate(trains), np.concatenate(tests)
    dummy = DummyClassifier(strategy="prior").fit(np.zeros((len(train), 1)), train)
    probability = dummy.predict_proba(np.zeros((len(test), 1)))[:, 1]
    assert row["answer"] == pytest.approx(train.mean())
    assert row["accuracy"] == accuracy_score(test, probability >= 0.5)
    assert row["log_loss"] == pytest.approx(log_loss(test, probability))
    assert row["auc"] == roc_auc_score(test, probability) == 0.5


@pytest.mark.parametrize("draw", DRAWS)
def test_a_base_rate_of_classes_is_that_of_the_dummy_that_knows_the_prior(draw: int):
    trains, tests = drawn("classes", draw)
    row = row_of(base_rates(federation_of(trains, tests), "classes"), POOLED)
    train, test = np.concatenate(trains), np.concatenate(tests)
    dummy = DummyClassifier(strategy="prior").fit(np.zeros((len(train), 1)), train)
    empty = np.zeros((len(test), 1))
    assert row["answer"] == np.bincount(train).argmax()
    assert row["accuracy"] == accuracy_score(test, dummy.predict(empty))
    assert row["log_loss"] == pytest.approx(log_loss(test, dummy.predict_proba(empty), labels=range(4)))
    assert row["auc"] == 0.5


@pytest.mark.parametrize("draw", DRAWS)
def test_a_base_rate_of_a_number_is_that_of_the_dummy_that_knows_the_mean(draw: int):
    trains, tests = drawn("number", draw)
    range_of_days = Number("days", 0, 60, "days")
    table = base_rates(federation_of(trains, tests), "number", range_of_days)
    row = row_of(table, POOLED)
    train, test = (np.concatenate(parts).astype(float) for parts in (trains, tests))
    said = DummyRegressor().fit(np.zeros((len(train), 1)), train).predict(np.zeros((len(test), 1)))
    assert row["answer"] == pytest.approx(range_of_days.in_units(float(train.mean())))
    assert row["r2"] == pytest.approx(r2_score(test, said), rel=1e-4, abs=1e-6)
    assert row["rmse"] == pytest.approx(30 * np.sqrt(np.mean((test - said) ** 2)))
    assert row["r2"] <= 0


def test_sites_with_scales_of_their_own_have_the_base_rate_of_the_encoded_targets():
    """In the local arm each site standardizes by its own rows; the mean is that of the outcome itself."""
    trains, tests = drawn("number", 0)
    range_of_days = Number("days", 0, 60, "days")
    expected = row_of(base_rates(federation_of(trains, tests), "number", range_of_days), POOLED)

    sites = []
    for number, site in enumerate(federation_of(trains, tests).sites):
        scale = Scale(np.zeros(1), np.ones(1), np.array([-1]), target_mean=0.1 * number - 0.2, target_spread=0.3)
        train = Examples(site.train.inputs, scale.target(site.train.target))
        test = Examples(site.test.inputs, scale.target(site.test.target))
        sites.append(replace(site, train=train, test=test, scale=scale))
    found = row_of(base_rates(Federation(tuple(sites)), "number", range_of_days), POOLED)
    for figure in ("answer", "r2", "rmse"):
        assert found[figure] == pytest.approx(expected[figure], rel=1e-5)


def test_the_majority_is_that_of_training_rows_and_not_of_test_rows():
    """Learned from test rows it would be right in three of four, and here it is right in one."""
    train = np.array([1, 1, 1, 0], np.float32)
    test = np.array([0, 0, 0, 1], np.float32)
    row = row_of(base_rates(federation_of([train], [test]), "binary"), INSIDE)
    assert row["accuracy"] == 0.25


def test_a_class_that_no_training_row_has_is_never_named():
    table = base_rates(federation_of([np.array([0, 0, 1])], [np.array([0, 3])]), "classes")
    row = row_of(table, POOLED)
    assert (row["answer"], row["accuracy"]) == (0, 0.5)
    assert np.isfinite(row["log_loss"])


def test_sites_with_few_or_no_test_rows_have_a_base_rate_together():
    nothing = np.zeros(0, np.float32)
    table = base_rates(federation_of([np.ones(3, np.float32)] * 2, [nothing, np.ones(1, np.float32)]), "binary")
    assert set(table["site"]) == {INSIDE, POOLED}
    row = row_of(table, INSIDE)
    assert (row["rows"], row["accuracy"], row["auc"]) == (1, 1.0, None)
    untested = row_of(base_rates(federation_of([np.ones(3, np.float32)], [nothing]), "binary"), POOLED)
    assert [untested[metric.name] for metric in outcome_of("binary").metrics] == [None] * 3


@pytest.mark.parametrize(
    ("kind", "learned", "words"),
    [
        ("binary", [np.array([1, 1, 0])], "always answering positive"),
        ("binary", [np.array([0, 1, 0])], "always answering negative"),
        ("classes", [np.array([0, 2, 2])], "always naming the most common class"),
        ("number", [np.array([0.5, 0.0])], "always answering the mean"),
    ],
)
def test_the_answer_has_words(kind: Kind, learned: list[np.ndarray], words: str):
    targets = [values.astype(DTYPES[kind]) for values in learned]
    assert answer_in_words(kind, base_rates(federation_of(targets, targets), kind)) == words
