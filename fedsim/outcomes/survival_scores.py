"""Compute the figures of survival in intervals: concordance, Brier score, Kaplan-Meier.

Targets are as in ``kinds/survival.py``: intervals survived in full, and whether an event came in the next one, (rows,
2). So a row that survived s intervals and was lost from sight was lost after interval s - 1, and before any event of
interval s. Predictions are the probability of surviving each interval and those before it, (rows, intervals).
"""

import numpy as np

_LEAST = 1e-15  # probability below which a loss is cut: it would be infinite at 0


def concordance(target: np.ndarray, predicted: np.ndarray, site: np.ndarray | None = None) -> float | None:
    """Compute Harrell's C: the share of pairs in order, of those whose order is known; ties of predictions count half.

    The order of two rows is known if one has an event in an interval that the other has survived. They are in order if
    the model gives the first fewer intervals to survive, which is the sum of its probabilities.

    Args:
        target: (rows, 2).
        predicted: (rows, intervals).
        site: Each row's site, (rows,), to compare rows of the same site only.

    Returns:
        None where no pair's order is known.
    """
    survived, event = target.T
    expected = predicted.sum(1)
    sites = np.zeros(len(target), int) if site is None else site
    in_order = pairs = 0.0
    for number in np.unique(sites):
        here = sites == number
        for interval in np.unique(survived[here & (event == 1)]):
            longer = np.sort(expected[here & (survived > interval)])
            ended = expected[here & (event == 1) & (survived == interval)]
            pairs += len(longer) * len(ended)
            below = np.searchsorted(longer, ended, side="left")
            not_above = np.searchsorted(longer, ended, side="right")
            in_order += float((len(longer) - (below + not_above) / 2).sum())
    return in_order / pairs if pairs else None


def at_risk_and_events(target: np.ndarray, intervals: int) -> tuple[np.ndarray, np.ndarray]:
    """Count the rows at risk in each interval and their events in it, int64 (intervals,) each."""
    survived = target[:, 0].astype(int)
    is_event = target[:, 1] == 1
    events = np.bincount(survived[is_event], minlength=intervals)[:intervals]
    outlasted = np.bincount(survived, minlength=intervals + 1)[::-1].cumsum()[::-1]  # rows with survived >= s
    return outlasted[1 : intervals + 1] + events, events


def kaplan_meier(target: np.ndarray, intervals: int) -> np.ndarray:
    """Estimate the probability of surviving each interval and those before it, (intervals,).

    Each hazard is the share of rows with an event among those at risk: the maximum likelihood. An interval in which no
    row is at risk keeps the probability of the one before.
    """
    at_risk, events = at_risk_and_events(target, intervals)
    return np.cumprod(1 - events / np.maximum(at_risk, 1))


def kept_in_sight(target: np.ndarray, intervals: int) -> np.ndarray:
    """Estimate the probability of not being lost from sight before each moment s = 0, ..., intervals, (intervals + 1,).

    This is the Kaplan-Meier estimate of censoring; s = 0 is before anybody may be lost.
    """
    survived = target[:, 0].astype(int)
    lost = np.bincount(survived[target[:, 1] == 0], minlength=intervals + 1)[:intervals]
    there = np.bincount(survived, minlength=intervals + 1)[::-1].cumsum()[::-1][:intervals]
    return np.concatenate([[1.0], np.cumprod(1 - lost / np.maximum(there, 1))])


def integrated_brier(target: np.ndarray, predicted: np.ndarray) -> float | None:
    """Compute the mean over the intervals' ends of the Brier score, weighted by the inverse probability of censoring.

    Each end weighs the same. The probability of censoring is the Kaplan-Meier estimate from the same rows (Graf and
    others 1999). Ends that no row is known to have reached in sight are left out; None if there is no other.
    """
    survived, event = target.T
    intervals = predicted.shape[1]
    kept = kept_in_sight(target, intervals)
    of_event = kept[np.minimum(survived.astype(int) + 1, intervals)]  # in sight at the event, (rows,)
    scores = []
    for end in range(1, intervals + 1):
        if kept[end] <= 0:
            break
        said = predicted[:, end - 1]
        alive = survived >= end
        ended = (event == 1) & ~alive
        errors = np.zeros(len(target))
        errors[alive] = (1 - said[alive]) ** 2 / kept[end]
        errors[ended] = said[ended] ** 2 / of_event[ended]
        scores.append(float(errors.mean()))
    return float(np.mean(scores)) if scores else None


def calibration_error(target: np.ndarray, predicted: np.ndarray) -> float | None:
    """Compute the distance between the mean probability of surviving all intervals and its Kaplan-Meier estimate.

    None if no row is at risk in the last interval: then nothing is known of the horizon.
    """
    intervals = predicted.shape[1]
    at_risk, _ = at_risk_and_events(target, intervals)
    if not at_risk[-1]:
        return None
    return abs(float(predicted[:, -1].mean()) - float(kaplan_meier(target, intervals)[-1]))


def hazards_of(predicted: np.ndarray) -> np.ndarray:
    """Return the probability of an event in each interval for whoever survived those before, (rows, intervals)."""
    before = np.concatenate([np.ones((len(predicted), 1)), predicted[:, :-1]], 1)
    return 1 - np.divide(predicted, before, out=np.zeros_like(before), where=before > 0)


def predicted_events(target: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the sum of the predicted hazards over the intervals in which a row was at risk, (rows,)."""
    interval = np.arange(predicted.shape[1])
    was_at_risk = interval < target.sum(1)[:, None]
    return (hazards_of(predicted) * was_at_risk).sum(1)


def losses_of(target: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return each row's negative log likelihood, (rows,)."""
    rows = np.arange(len(target))
    survived = target[:, 0].astype(int)
    curve = np.concatenate([np.ones((len(predicted), 1)), predicted], 1)  # at the moments 0, 1, ..., (rows, moments)
    last = np.minimum(survived, curve.shape[1] - 1)
    after = np.minimum(last + 1, curve.shape[1] - 1)
    likelihood = np.where(target[:, 1] == 1, curve[rows, last] - curve[rows, after], curve[rows, last])
    return -np.log(np.maximum(likelihood, _LEAST))
