"""Survival against plain implementations that follow the definitions pair by pair and row by row."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.nn.functional import binary_cross_entropy_with_logits

from fedsim.outcomes import outcome_of
from fedsim.outcomes.measure import score, score_inside
from fedsim.outcomes.survival_scores import (
    calibration_error,
    concordance,
    integrated_brier,
    kaplan_meier,
    losses_of,
    predicted_events,
)

SURVIVAL = outcome_of("survival")


def drawn(seed: int, rows: int = 60, intervals: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Draw targets, of which a half ends with an event, and predictions with ties."""
    random = np.random.default_rng(seed)
    survived = random.integers(0, intervals + 1, rows)
    event = random.integers(0, 2, rows) * (survived < intervals)
    hazards = random.choice([0.05, 0.1, 0.3], (rows, 1)) * np.ones(intervals)
    return np.stack([survived, event], 1).astype(np.float32), np.cumprod(1 - hazards, 1)


def naive_concordance(target: np.ndarray, predicted: np.ndarray, site: np.ndarray) -> float:
    """Compare every two rows. An event comes half an interval after the last one that was survived."""
    moment = target[:, 0] + target[:, 1] / 2
    right = pairs = 0.0
    for one, other in itertools.permutations(range(len(target)), 2):
        if site[one] == site[other] and target[one, 1] and moment[one] < moment[other]:
            said, of_other = predicted[one].sum(), predicted[other].sum()
            pairs += 1
            right += 1.0 if said < of_other else 0.5 if said == of_other else 0.0
    return right / pairs


def naive_brier(target: np.ndarray, predicted: np.ndarray) -> float:
    """Weigh every row by one over the Kaplan-Meier estimate of still being in sight."""
    moment = target[:, 0] + target[:, 1] / 2

    def in_sight(until: float, including: bool) -> float:
        left = 1.0
        for lost in np.unique(moment[target[:, 1] == 0]):
            if lost < until or (including and lost == until):
                now = (moment == lost) & (target[:, 1] == 0)
                left *= 1 - now.sum() / (moment >= lost).sum()
        return left

    scores = []
    for end in range(1, predicted.shape[1] + 1):
        total = 0.0
        for row, (at, event) in enumerate(zip(moment, target[:, 1], strict=True)):
            if at >= end:
                total += (1 - predicted[row, end - 1]) ** 2 / in_sight(end, including=False)
            elif event:
                total += predicted[row, end - 1] ** 2 / in_sight(at, including=True)
        scores.append(total / len(target))
    return float(np.mean(scores))


@pytest.mark.parametrize("seed", range(5))
def test_concordance_is_the_share_of_pairs_in_order(seed: int):
    target, predicted = drawn(seed)
    nowhere = np.zeros(len(target), int)
    assert concordance(target, predicted) == pytest.approx(naive_concordance(target, predicted, nowhere), rel=1e-12)
    site = np.arange(len(target)) % 3
    inside = score_inside("survival", target, predicted, site)["concordance"]
    assert inside == pytest.approx(naive_concordance(target, predicted, site), rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_brier_score_over_time_weighs_by_the_censoring(seed: int):
    target, predicted = drawn(seed)
    assert integrated_brier(target, predicted) == pytest.approx(naive_brier(target, predicted), rel=1e-12)


def test_without_censoring_the_brier_score_is_a_mean_square():
    target, predicted = drawn(0)
    target = target[target[:, 1] == 1]
    predicted = predicted[: len(target)]
    lived = target[:, :1] >= np.arange(1, 6)
    assert integrated_brier(target, predicted) == pytest.approx(((lived - predicted) ** 2).mean())


def test_kaplan_meier_is_the_curve_that_makes_the_rows_likeliest():
    """The loss is its negative log likelihood, so that no other constant answer has a lower one."""
    target, _ = drawn(3, rows=200)

    def loss(logits: np.ndarray) -> float:
        outputs = torch.from_numpy(logits).expand(len(target), 5)
        return float(SURVIVAL.losses(outputs, torch.from_numpy(target)).mean())

    found = minimize(loss, np.zeros(5), tol=1e-12).x
    best = np.cumprod(1 / (1 + np.exp(found)))
    curve = kaplan_meier(target, 5)
    np.testing.assert_allclose(curve, best, atol=1e-4)
    constant = SURVIVAL.constant([target], target)
    assert constant is not None
    np.testing.assert_array_equal(constant, curve)
    assert calibration_error(target, np.tile(curve, (len(target), 1))) == pytest.approx(0, abs=1e-12)


def test_a_rows_loss_is_the_sum_over_the_intervals_in_which_it_was_at_risk():
    """As for a logistic regression of one line for each row and interval."""
    target, _ = drawn(1)
    outputs = torch.randn(len(target), 5, generator=torch.Generator().manual_seed(0))
    found = SURVIVAL.losses(outputs, torch.from_numpy(target))
    for row, (survived, event) in enumerate(target.astype(int)):
        there = outputs[row, : survived + event]
        happened = torch.zeros(len(there))
        if event:
            happened[-1] = 1
        expected = binary_cross_entropy_with_logits(there, happened, reduction="sum")
        torch.testing.assert_close(found[row], expected)
    said = SURVIVAL.said(outputs, torch.from_numpy(target))
    np.testing.assert_allclose(losses_of(target, said), found.numpy(), rtol=1e-5)
    for row, (survived, event) in enumerate(target.astype(int)):
        hazards = outputs[row, : survived + event].sigmoid().sum()
        assert predicted_events(target, said)[row] == pytest.approx(float(hazards), rel=1e-5)


def test_intervals_after_a_row_was_lost_change_nothing_of_its_loss():
    target = torch.tensor([[2.0, 0.0], [2.0, 1.0]])
    outputs = torch.zeros(2, 5, requires_grad=True)
    SURVIVAL.losses(outputs, target).sum().backward()
    assert outputs.grad is not None
    moved = outputs.grad != 0
    assert moved.tolist() == [[True, True, False, False, False], [True, True, True, False, False]]


def test_figures_that_nothing_is_known_of_are_missing():
    lost = np.array([[0, 0], [0, 0]], np.float32)
    said = np.full((2, 3), 0.5)
    assert score("survival", lost, said) == {"concordance": None, "integrated_brier": None, "horizon_error": None}
    early = np.array([[1, 0], [0, 1]], np.float32)
    assert score("survival", early, said)["horizon_error"] is None
    assert score("survival", early, said)["concordance"] == 0.5
