"""The models that arms are held against, with a small grid of settings for each.

They are meant to be as good as a data scientist would make them in an afternoon: inputs are standardized for the linear
model, and validation rows choose the regularization, the size of the trees, the learning rate and the number of trees.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from fedsim.outcomes.measure import score
from fedsim.randomness import torch_seed
from fedsim.scenario.kinds import Kind
from fedsim.scenario.schema import Reference

# Regularization, from much to little: C of the logistic regression, one over alpha of the ridge regression.
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
LEARNING_RATES = (0.03, 0.1)
LEAVES = (4, 15)
TREES = (25, 50, 100, 200)

# What scikit-learn takes by itself, where there is no validation row to choose by.
_USUAL_STRENGTH = 1.0
_USUAL_BOOSTING = (0.1, 31, 100)

_FEWEST_ROWS = 2
_LEAST_ROWS_OF_LEAF = 10
_MOST_STEPS = 5000  # of the solver of the logistic regression
_CHOSEN_BY = {"binary": "log_loss", "classes": "log_loss", "number": "rmse"}  # of each, less is better


@dataclass(frozen=True)
class Rows:
    """Rows as an arm's model gets them: inputs float64 (rows, inputs), target (rows,)."""

    inputs: np.ndarray
    target: np.ndarray


@dataclass(frozen=True)
class Candidate:
    """A model with settings, not yet trained."""

    settings: str
    estimator: Any  # with fit, and predict or predict_proba


@dataclass(frozen=True)
class Fitted:
    """A trained reference.

    Attributes:
        settings: The settings that were chosen, in words.
        note: What a reader has to know of the training; mostly empty.
        estimator: The trained model; None where there is none.
        kind: The kind of the targets.
        classes: The number of classes that the task has.
    """

    settings: str
    note: str
    estimator: Any
    kind: Kind
    classes: int

    def said(self, inputs: np.ndarray) -> np.ndarray:
        """Predict rows as ``evaluation.said`` does; NaN where there is no model."""
        shape = (len(inputs), self.classes) if self.kind == "classes" else (len(inputs),)
        if self.estimator is None:
            return np.full(shape, math.nan)
        if not len(inputs):
            return np.zeros(shape)
        if self.kind == "number":
            return np.asarray(self.estimator.predict(inputs), dtype=np.float64)

        probabilities = self.estimator.predict_proba(inputs)  # (rows, classes that were seen)
        if self.kind == "binary":
            return probabilities[:, 1]
        predicted = np.zeros(shape)
        predicted[:, self.estimator.classes_.astype(int)] = probabilities
        return predicted


def fit(reference: Reference, kind: Kind, classes: int, train: Rows, validation: Rows, seed: int, place: str) -> Fitted:
    """Train a reference: each candidate on the training rows, and the one that validation rows speak for is kept.

    By the log loss on validation rows, or the root mean square error of a number. The first of equals is kept; where
    there is no validation row, the settings are those that scikit-learn takes by itself.

    Args:
        reference: Which one.
        kind: The kind of the targets.
        classes: The number of classes that the task has.
        train: The rows to learn from.
        validation: The rows to choose by.
        seed: The seed of the run.
        place: What it learns from, a site's name or another, for its random numbers.

    Returns:
        The trained model; without one, and with the reason, where there are too few rows or there is one class only.
    """
    lack = _lack_of(kind, train)
    if lack:
        return Fitted("", lack, None, kind, classes)

    random_state = torch_seed(seed, "reference", reference, place) % 2**32
    note = ""
    if len(validation.target):
        candidates = candidates_of(reference, kind, random_state)
    else:
        candidates = [_usual(reference, kind, random_state)]
        note = "no validation row to choose by: scikit-learn's own settings"

    best: Fitted | None = None
    least = math.inf
    with threadpool_limits(limits=1):  # sums in one order, so that any machine gives the same
        for candidate in candidates:
            fitted = _fitted(candidate, note, train, kind, classes)
            loss = _loss(fitted, validation)
            if best is None or loss < least:
                best = fitted
                least = loss
    assert best is not None  # noqa: S101  there is a candidate
    return best


def _lack_of(kind: Kind, train: Rows) -> str:
    """Return why there is nothing to learn; empty where there is."""
    if len(train.target) < _FEWEST_ROWS:
        return f"{len(train.target)} training row{'s' if len(train.target) != 1 else ''}: too few for a model"
    if kind != "number" and len(np.unique(train.target)) == 1:
        return "training rows of one class only: there is nothing to tell apart"
    return ""


def _fitted(candidate: Candidate, note: str, train: Rows, kind: Kind, classes: int) -> Fitted:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        candidate.estimator.fit(train.inputs, train.target)
    if any(issubclass(warning.category, ConvergenceWarning) for warning in told):
        note = f"{note}; the solver did not converge" if note else "the solver did not converge"
    return Fitted(candidate.settings, note, candidate.estimator, kind, classes)


def _loss(fitted: Fitted, validation: Rows) -> float:
    """Return the figure on validation rows by which settings are chosen; infinite where there is none."""
    if not len(validation.target):
        return math.inf
    figures = score(fitted.kind, validation.target, fitted.said(validation.inputs))
    loss = figures[_CHOSEN_BY[fitted.kind]]
    return math.inf if loss is None else loss


def candidates_of(reference: Reference, kind: Kind, random_state: int) -> Sequence[Candidate]:
    """Return the candidates of a reference, simple ones first."""
    if reference == "linear":
        return [_linear(kind, strength) for strength in STRENGTHS]
    return list(_boostings(kind, random_state))


def _usual(reference: Reference, kind: Kind, random_state: int) -> Candidate:
    if reference == "linear":
        return _linear(kind, _USUAL_STRENGTH)
    return _boosting(kind, *_USUAL_BOOSTING, random_state)


def _linear(kind: Kind, strength: float) -> Candidate:
    if kind == "number":
        alpha = 1 / strength
        return Candidate(f"ridge regression, alpha {alpha:g}", make_pipeline(StandardScaler(), Ridge(alpha=alpha)))
    model = LogisticRegression(C=strength, max_iter=_MOST_STEPS)
    return Candidate(f"logistic regression, C {strength:g}", make_pipeline(StandardScaler(), model))


def _boostings(kind: Kind, random_state: int) -> Iterator[Candidate]:
    for leaves in LEAVES:
        for rate in LEARNING_RATES:
            for trees in TREES:
                yield _boosting(kind, rate, leaves, trees, random_state)


def _boosting(kind: Kind, rate: float, leaves: int, trees: int, random_state: int) -> Candidate:
    make = HistGradientBoostingRegressor if kind == "number" else HistGradientBoostingClassifier
    model = make(
        learning_rate=rate,
        max_leaf_nodes=leaves,
        max_iter=trees,
        min_samples_leaf=_LEAST_ROWS_OF_LEAF,
        early_stopping=False,  # type: ignore[arg-type]  its annotation is guessed from the default
        random_state=random_state,
    )
    return Candidate(f"gradient boosting, {trees} trees of {leaves} leaves, learning rate {rate:g}", model)
