"""Every metric is scikit-learn's; what can't be computed is None."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, r2_score, roc_auc_score, root_mean_squared_error

from fedsim.outcomes import is_metric, metric_named, names, outcome_of
from fedsim.outcomes.measure import score, score_inside
from fedsim.outcomes.metric import Metric


def test_every_kind_has_its_metrics_and_a_headline_of_which_more_is_better():
    for kind in names():
        metrics = outcome_of(kind).metrics
        assert metrics[0].better == "higher", kind
        assert any(metric.better == "lower" for metric in metrics), kind  # a learning curve shows one of them
    assert {outcome_of(kind).metrics[0].name for kind in ("binary", "classes", "number")} == {"auc", "accuracy", "r2"}


def test_a_metric_has_one_meaning_whatever_the_kind():
    found: dict[str, Metric] = {}
    for kind in names():
        for metric in outcome_of(kind).metrics:
            assert found.setdefault(metric.name, metric) == metric
            assert metric_named(metric.name) == metric
            assert is_metric(metric.name)
    assert not is_metric("kappa")


@pytest.mark.whole
@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.01, 0.2, 0.5, 0.7, 0.99])), min_size=2, max_size=40))
def test_binary(pairs: list[tuple[int, float]]):
    """Oracle, ties included."""
    target, probability = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    found = score("binary", target, probability)
    assert found["accuracy"] == pytest.approx(accuracy_score(target, probability >= 0.5))
    assert found["log_loss"] == pytest.approx(log_loss(target, probability, labels=[0, 1]))
    if len(set(target)) == 2:
        assert found["auc"] == pytest.approx(roc_auc_score(target, probability))
    else:
        assert found["auc"] is None


@pytest.mark.whole
@given(st.integers(0, 10_000), st.integers(6, 40))
def test_classes(seed: int, count: int):
    """Oracle: the AUC is the mean of each class against the rest."""
    random = np.random.default_rng(seed)
    target, probability = random.integers(0, 3, count), random.dirichlet(np.ones(3), count)
    found = score("classes", target, probability)
    assert list(found) == ["accuracy", "log_loss", "auc"]
    assert found["accuracy"] == pytest.approx(accuracy_score(target, probability.argmax(1)))
    assert found["log_loss"] == pytest.approx(log_loss(target, probability, labels=[0, 1, 2]))
    if len(set(target)) == 3:
        assert found["auc"] == pytest.approx(roc_auc_score(target, probability, multi_class="ovr"))


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-3, 3)), min_size=2, max_size=40))
def test_number(pairs: list[tuple[float, float]]):
    """Oracle; the error is in the outcome's unit, R² has none."""
    target, said = (np.array(column) for column in zip(*pairs, strict=True))
    found = score("number", target, said, scale=7.0)
    assert found["rmse"] == pytest.approx(root_mean_squared_error(7 * target, 7 * said))
    if target.std() > 1e-3:
        assert found["r2"] == pytest.approx(r2_score(target, said), rel=1e-6, abs=1e-9)
    if len(set(target)) == 1:
        assert found["r2"] is None


@pytest.mark.parametrize("kind", ["binary", "classes", "number"])
def test_what_can_not_be_measured_is_none(kind):
    shape = (2, 3) if kind == "classes" else (2,)
    for target, found in ((np.zeros(0, int), np.zeros((0, *shape[1:]))), (np.zeros(2, int), np.full(shape, np.nan))):
        assert set(score(kind, target, found).values()) == {None}


@pytest.mark.parametrize(("kind", "target", "predicted"), [
    ("binary", np.array([0.0, 1.0]), np.array([0.2, 0.7])),
    ("classes", np.array([0, 1]), np.array([[0.8, 0.2], [0.3, 0.7]])),
    ("number", np.array([0.1, 0.5]), np.array([0.2, 0.4])),
])  # fmt: skip
def test_a_metric_that_is_declared_and_not_computed_is_an_error(kind, target, predicted, monkeypatch):
    """Otherwise the pooled figure would stand where the one inside sites belongs."""
    own = Metric("kappa", "kappa", "higher", -1.0, 1.0, by_site=True)
    monkeypatch.setattr(type(outcome_of(kind)), "metrics", (*outcome_of(kind).metrics, own))
    with pytest.raises(LookupError, match=f"values of kind '{kind}': expected a value of kappa"):
        score(kind, target, predicted)
    with pytest.raises(LookupError, match=f"values_inside of kind '{kind}': expected a value of kappa"):
        score_inside(kind, target, predicted, np.array([0, 0]))
