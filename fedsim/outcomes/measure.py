"""Measure predictions by the metrics of a kind of outcome."""

from collections.abc import Mapping, Sequence

import numpy as np

from fedsim.outcomes import outcome_of
from fedsim.outcomes.metric import Metric


def score(kind: str, target: np.ndarray, predicted: np.ndarray, scale: float = 1.0) -> dict[str, float | None]:
    """Compute the metrics of some rows: {name: value}, None where a metric can't be computed.

    Args:
        kind: The kind of the outcome.
        target: As in ``Rows``, (rows, ...).
        predicted: The predictions, as ``Outcome.said`` returns them, (rows, ...).
        scale: The amount of the outcome's unit in one unit of a number.
    """
    outcome = outcome_of(kind)
    if not len(target) or not np.isfinite(predicted).all():
        return {metric.name: None for metric in outcome.metrics}
    return _in_order(outcome.metrics, outcome.values(target, predicted, scale), "values", kind)


def score_inside(kind: str, target: np.ndarray, predicted: np.ndarray, site: np.ndarray) -> dict[str, float | None]:
    """Compute the metrics that compare rows, each row compared with rows of its own site only.

    These are the metrics whose ``by_site`` is true. The other metrics are means over rows, so that
    it makes no difference to them which site a row is at.

    Args:
        kind: The kind of the outcome.
        target: As in ``score``.
        predicted: As in ``score``.
        site: Each row's site, whole numbers from 0 on, (rows,).
    """
    outcome = outcome_of(kind)
    by_site = [metric for metric in outcome.metrics if metric.by_site]
    if not len(target) or not np.isfinite(predicted).all():
        return {metric.name: None for metric in by_site}
    return _in_order(by_site, outcome.values_inside(target, predicted, site), "values_inside", kind)


def _in_order(
    metrics: Sequence[Metric],
    values: Mapping[str, float | None],
    hook: str,
    kind: str,
) -> dict[str, float | None]:
    """Return the values of some metrics by name, in their order.

    Raises:
        LookupError: A metric is declared, and the kind does not compute it. Without this error
            its figure would be missing, or that of other rows would stand in its place.
    """
    missing = [metric.name for metric in metrics if metric.name not in values]
    if missing:
        raise LookupError(f"{hook} of kind {kind!r}: expected a value of {', '.join(missing)}, got none")
    return {metric.name: values[metric.name] for metric in metrics}
