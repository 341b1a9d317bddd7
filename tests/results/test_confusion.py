"""Confusion matrices and their rates; oracle: scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from fedsim.results.confusion import MOST_CLASSES, confusion, counts_of, rates, rates_of_class
from fedsim.results.evaluation import Answers


def answers(target: np.ndarray, said: np.ndarray) -> list[Answers]:
    """Return predictions for two sites."""
    half = len(target) // 2
    return [Answers("a", target[:half], said[:half], {}), Answers("b", target[half:], said[half:], {})]


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.8])
def test_a_binary_matrix_and_its_rates_are_those_of_scikit_learn(threshold: float):
    random = np.random.default_rng(0)
    target = (random.random(80) < 0.4).astype(np.float32)
    said = random.random(80)
    table = confusion(answers(target, said), "binary", threshold)
    counts = counts_of(table)
    named = said >= threshold
    expected = confusion_matrix(target, named)
    assert [[counts[true, name] for name in (0, 1)] for true in (0, 1)] == expected.tolist()
    of_matrix = rates(counts)
    assert of_matrix["sensitivity"] == recall_score(target, named)
    assert of_matrix["specificity"] == recall_score(target, named, pos_label=0)
    assert of_matrix["precision"] == precision_score(target, named)


def test_a_row_at_the_threshold_is_positive():
    counts = counts_of(confusion(answers(np.array([1.0, 0.0]), np.array([0.3, 0.2999])), "binary", 0.3))
    assert (counts[1, 1], counts[0, 0]) == (1, 1)


def test_of_classes_the_most_probable_is_named_whatever_the_threshold():
    random = np.random.default_rng(1)
    target = random.integers(0, 4, 60)
    said = random.dirichlet(np.ones(4), 60)
    counts = counts_of(confusion(answers(target, said), "classes", 0.9))
    named = said.argmax(1)
    expected = confusion_matrix(target, named, labels=range(4))
    assert [[counts[true, name] for name in range(4)] for true in range(4)] == expected.tolist()
    for number in range(4):
        of_class = rates_of_class(counts, number)
        assert of_class["sensitivity"] == recall_score(target == number, named == number)
        assert of_class["precision"] == precision_score(target == number, named == number)


def test_a_rate_of_no_rows_is_not_known():
    of_matrix = rates({(0, 0): 3, (0, 1): 0, (1, 0): 0, (1, 1): 0})
    assert math.isnan(of_matrix["sensitivity"])
    assert math.isnan(of_matrix["precision"])
    assert of_matrix["specificity"] == 1.0


def test_what_has_no_matrix_has_an_empty_one():
    many = np.full((4, MOST_CLASSES + 1), 1 / (MOST_CLASSES + 1))
    assert confusion(answers(np.zeros(4, int), many), "classes", 0.5).empty
    assert confusion(answers(np.zeros(4), np.full(4, np.nan)), "binary", 0.5).empty
    assert confusion(answers(np.zeros(4), np.zeros(4)), "number", 0.5).empty
    assert confusion(answers(np.zeros(0), np.zeros(0)), "binary", 0.5).empty
