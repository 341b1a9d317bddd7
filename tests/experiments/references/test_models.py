"""References are scikit-learn's models with the settings that validation rows speak for; oracle: fitting by hand."""

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, root_mean_squared_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fedsim.experiments.references import models
from fedsim.experiments.references.models import STRENGTHS, Rows, candidates_of, fit
from fedsim.scenario.kinds import Kind


def rows(kind: Kind, count: int, draw: int = 0) -> Rows:
    """Make rows whose outcome depends on the first input, and on two others together."""
    random = np.random.default_rng([draw, count])
    inputs = random.normal(size=(count, 4)) * [1, 5, 1, 0.2]
    signal = 1.5 * inputs[:, 0] + inputs[:, 2] * inputs[:, 1] / 5 + 0.5 * random.normal(size=count)
    if kind == "number":
        return Rows(inputs, np.tanh(signal).astype(np.float32))
    if kind == "classes":
        return Rows(inputs, np.digitize(signal, [-0.5, 0.5]))
    return Rows(inputs, (signal > 0).astype(np.float32))


@pytest.fixture
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "TREES", (5, 10))


@pytest.mark.parametrize("draw", range(2))
def test_the_linear_reference_is_the_logistic_regression_with_the_least_log_loss_on_validation_rows(draw: int):
    train, validation = rows("binary", 60, draw), rows("binary", 40, draw)
    by_hand = []
    for strength in STRENGTHS:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000))
        model.fit(train.inputs, train.target)
        by_hand.append((log_loss(validation.target, model.predict_proba(validation.inputs)), strength, model))
    _, strength, model = min(by_hand, key=lambda each: each[0])
    fitted = fit("linear", "binary", 1, train, validation, 0, "all sites")
    assert fitted.settings == f"logistic regression, C {strength:g}"
    np.testing.assert_allclose(fitted.said(validation.inputs), model.predict_proba(validation.inputs)[:, 1], rtol=1e-12)


def test_the_linear_reference_of_a_number_is_the_ridge_regression_with_the_least_error():
    train, validation = rows("number", 60), rows("number", 40)
    by_hand = []
    for strength in STRENGTHS:
        model = make_pipeline(StandardScaler(), Ridge(alpha=1 / strength)).fit(train.inputs, train.target)
        by_hand.append((root_mean_squared_error(validation.target, model.predict(validation.inputs)), strength, model))
    _, strength, model = min(by_hand, key=lambda each: each[0])
    fitted = fit("linear", "number", 1, train, validation, 0, "all sites")
    assert fitted.settings == f"ridge regression, alpha {1 / strength:g}"
    np.testing.assert_allclose(fitted.said(validation.inputs), model.predict(validation.inputs), rtol=1e-12)


@pytest.mark.usefixtures("few_trees")
@pytest.mark.parametrize("kind", ["binary", "number"])
def test_boosting_is_scikit_learns_with_the_settings_of_the_least_loss(kind: Kind):
    train, validation = rows(kind, 80), rows(kind, 40)
    losses = {}
    said = {}
    for leaves in models.LEAVES:
        for rate in models.LEARNING_RATES:
            for trees in models.TREES:
                make = HistGradientBoostingRegressor if kind == "number" else HistGradientBoostingClassifier
                model = make(
                    learning_rate=rate, max_leaf_nodes=leaves, max_iter=trees, min_samples_leaf=10, early_stopping=False
                ).fit(train.inputs, train.target)
                name = f"gradient boosting, {trees} trees of {leaves} leaves, learning rate {rate:g}"
                if kind == "number":
                    said[name] = model.predict(validation.inputs)
                    losses[name] = root_mean_squared_error(validation.target, said[name])
                else:
                    said[name] = model.predict_proba(validation.inputs)[:, 1]
                    losses[name] = log_loss(validation.target, said[name])
    best = min(losses, key=lambda name: losses[name])
    fitted = fit("boosting", kind, 1, train, validation, 0, "all sites")
    assert fitted.settings == best
    np.testing.assert_allclose(fitted.said(validation.inputs), said[best], rtol=1e-12)


def test_a_class_that_was_not_seen_has_probability_zero():
    train, validation = rows("classes", 60), rows("classes", 30)
    seen = train.target != 1
    fitted = fit("linear", "classes", 3, Rows(train.inputs[seen], train.target[seen]), validation, 0, "all sites")
    said = fitted.said(validation.inputs)
    assert said.shape == (30, 3)
    assert (said[:, 1] == 0).all()
    np.testing.assert_allclose(said.sum(1), 1)


@pytest.mark.parametrize(
    ("target", "why"),
    [([], "0 training rows"), ([1.0], "1 training row:"), ([1.0, 1.0, 1.0], "one class only")],
)
@pytest.mark.parametrize("reference", ["linear", "boosting"])
def test_without_something_to_learn_there_is_no_model_and_a_reason(reference: str, target: list[float], why: str):
    train = Rows(np.zeros((len(target), 2)), np.array(target, np.float32))
    fitted = fit(reference, "binary", 1, train, rows("binary", 9), 0, "all sites")  # type: ignore[arg-type]
    assert why in fitted.note
    assert np.isnan(fitted.said(np.zeros((4, 2)))).all()


def test_without_validation_rows_the_settings_are_scikit_learns_own():
    nothing = Rows(np.zeros((0, 4)), np.zeros(0, np.float32))
    train = rows("binary", 60)
    fitted = fit("linear", "binary", 1, train, nothing, 0, "all sites")
    assert fitted.settings == "logistic regression, C 1"
    assert "no validation row" in fitted.note
    by_hand = make_pipeline(StandardScaler(), LogisticRegression()).fit(train.inputs, train.target)
    np.testing.assert_allclose(fitted.said(train.inputs), by_hand.predict_proba(train.inputs)[:, 1], atol=1e-4)


def test_each_candidate_is_named_once():
    for reference in ("linear", "boosting"):
        names = [candidate.settings for candidate in candidates_of(reference, "binary", 0)]
        assert len(set(names)) == len(names) >= 4
