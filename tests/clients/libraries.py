"""Models of scikit-learn for each kind of outcome, fitted to pooled rows and measured by its own metrics."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, r2_score, roc_auc_score
from sklearn.multiclass import OneVsRestClassifier

MOST_STEPS = 2_000  # of the solver of a logistic regression


@dataclass(frozen=True)
class Part:
    """Rows of a part of the split: inputs (rows, ...), target (rows, ...)."""

    inputs: np.ndarray
    target: np.ndarray


Reference = Callable[[Part, Part], float]
"""Fits a model to the first part, and returns its figure on the second."""


def one_against_rest(train: Part, tested: Part) -> float:
    """Fit a logistic regression for each label; return the mean of their AUCs."""
    model = OneVsRestClassifier(LogisticRegression(max_iter=MOST_STEPS)).fit(train.inputs, train.target)
    return float(roc_auc_score(tested.target, model.predict_proba(tested.inputs), average="macro"))


def ridge(train: Part, tested: Part) -> float:
    """Fit a ridge regression to all numbers; return the mean of their R2."""
    model = Ridge().fit(_flat(train.inputs), train.target)
    return float(r2_score(tested.target, model.predict(_flat(tested.inputs)), multioutput="uniform_average"))


def principal_components(train: Part, tested: Part, width: int = 8) -> float:
    """Fit as many principal components as the autoencoder is wide; return the share of variance that they explain."""
    inputs = _flat(tested.inputs)
    model = PCA(width).fit(_flat(train.inputs))
    again = model.inverse_transform(model.transform(inputs))
    return float(r2_score(inputs, again, multioutput="variance_weighted"))


def characters_before(train: Part, tested: Part, context: int = 5) -> float:
    """Fit a multinomial logistic regression to the last characters at each place; return its accuracy."""
    characters = int(train.target.max()) + 1
    seen = np.column_stack([_contexts(train.inputs, characters, context), train.target.ravel()])
    distinct, counts = np.unique(seen, axis=0, return_counts=True)  # the same likelihood from far fewer rows
    model = LogisticRegression(max_iter=MOST_STEPS, tol=1e-3)
    model.fit(_one_hot(distinct[:, :-1], characters), distinct[:, -1], sample_weight=counts)
    named = model.predict(_one_hot(_contexts(tested.inputs, characters, context), characters))
    return float(accuracy_score(tested.target.ravel(), named))


def nearest_by_components(train: Part, tested: Part, width: int = 8) -> float:
    """Describe each view by principal components; return how often the like view is the nearest one."""
    every_view = train.inputs.reshape(-1, np.prod(train.inputs.shape[2:]))
    model = PCA(width).fit(every_view)
    rows, views = tested.inputs.shape[:2]
    features = model.transform(tested.inputs.reshape(rows * views, -1)).reshape(rows, views, width)
    distances = np.linalg.norm(features[:, 1:] - features[:, :1], axis=2)  # (rows, views - 1)
    return float((distances.argmin(1) == 0).mean())


def _flat(inputs: np.ndarray) -> np.ndarray:
    return inputs.reshape(len(inputs), -1)


def _contexts(inputs: np.ndarray, characters: int, context: int) -> np.ndarray:
    """Return each place's last characters, (rows x places, context); before a row begins, ``characters`` stands."""
    rows, places = inputs.shape
    padded = np.full((rows, places + context - 1), characters)
    padded[:, context - 1 :] = inputs
    return np.column_stack([padded[:, back : back + places].ravel() for back in range(context)])


def _one_hot(contexts: np.ndarray, characters: int) -> csr_matrix:
    rows, context = contexts.shape
    width = characters + 1
    columns = contexts + np.arange(context) * width
    starts = np.arange(rows + 1) * context
    return csr_matrix((np.ones(rows * context), columns.ravel(), starts), shape=(rows, context * width))
