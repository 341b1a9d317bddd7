"""The time until an event, which not every row has lived to see: survival in public intervals of time.

Gensheimer and Narasimhan 2019, "A scalable discrete-time survival model for neural networks", PeerJ 7:e6257.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsim.outcomes.metric import Metric, Rate
from fedsim.outcomes.outcome import Outcome, PublicRange
from fedsim.outcomes.scores import share
from fedsim.outcomes.survival_scores import (
    calibration_error,
    concordance,
    integrated_brier,
    kaplan_meier,
    losses_of,
    predicted_events,
)

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

CONCORDANCE = Metric(
    "concordance",
    "concordance",
    "higher",
    0.0,
    1.0,
    by_site=True,
    meaning=(
        "The concordance (Harrell's C) says how often, of two rows of which one is known to have had its event in an "
        "earlier interval, the model expects fewer intervals of that one: 0.5 is guessing, 1 is perfect."
    ),
    meaning_inside=(
        "The concordance inside sites compares rows of the same site only: of two of them of which one is known to "
        "have had its event in an earlier interval, how often the model expects fewer intervals of that one."
    ),
)
BRIER = Metric(
    "integrated_brier",
    "Brier score over time",
    "lower",
    0.0,
    np.inf,
    meaning=(
        "The Brier score over time, or integrated Brier score, is the mean squared error of the probability of being "
        "free of the event, over the ends of all intervals; rows that were lost from sight are stood in for by others, "
        "weighted by the censoring of the rows that are measured: 0 is perfect, always saying one half gives 0.25."
    ),
)
CALIBRATION_ERROR = Metric(
    "horizon_error",
    "calibration error at the horizon",
    "lower",
    0.0,
    1.0,
    meaning=(
        "The calibration error is the distance between the mean probability of surviving all intervals and the "
        "Kaplan-Meier estimate of it from the rows that are measured."
    ),
)
LOSS_RATE = Rate("survival_loss", "negative log likelihood of a row", "rows", "lower", 0.0, np.inf)
EVENTS_RATE = Rate("events_too_many", "events expected minus observed", "rows", "neither", -1.0, np.inf)


class Survival(Outcome):
    """Targets are intervals survived in full, and whether an event came in the next one, float32 (rows, 2).

    Outputs are logits of the hazard in each interval, (rows, intervals), the probability of an event in it for whoever
    survived those before. ``FollowUp.intervals`` makes targets from times. An event in interval j of K, counted
    from 0, is (j, 1); a row that is lost from sight, or there at the end, after j of them is (j, 0), with j up to K.

    The loss of a row is its own negative log likelihood: a sum over the intervals in which it was at risk. That is why
    clipping a row's gradient bounds what it can do. Cox's partial likelihood has no such sum: each of its terms
    divides by all rows that were at risk at that moment, so that a row is in the terms of others.
    """

    name = "survival"
    in_words = "a time until an event, with rows that are lost from sight"
    outputs_in_words = "logits of hazards (rows, intervals)"
    metrics = (CONCORDANCE, BRIER, CALIBRATION_ERROR)
    rates = (LOSS_RATE, EVENTS_RATE)
    sums = ("losses", "expected", "observed")
    summary_columns = ("events",)
    about_rows = ("Events",)
    learned_from = "The answer is the Kaplan-Meier curve of the training rows of all sites."
    on_few_rows = (
        "Few rows, or few with an event, make wide intervals. The concordance is missing where no row is known to have "
        "outlasted another's event."
    )
    on_rates = (
        "Events expected minus observed is the sum of the predicted hazards over the intervals in which rows were at "
        "risk, less their events, per row: above 0 the model expects more events than came."
    )
    split_where = "for those with and without an event, at each site"

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return each row's negative log likelihood, over the intervals in which it was at risk."""
        import torch
        from torch.nn.functional import softplus

        interval = torch.arange(outputs.shape[1], device=outputs.device)
        survived = (interval < target[:, :1]).to(outputs)  # (rows, intervals)
        ended = (interval == target[:, :1]).to(outputs) * target[:, 1:]
        return (survived * softplus(outputs) + ended * softplus(-outputs)).sum(1)

    def fault_of(self, target: np.ndarray) -> str | None:  # noqa: D102
        if target.ndim != 2 or target.shape[1] != 2:
            return "a target of shape (rows, 2)"
        survived, event = target.T
        if not (survived >= 0).all() or not (survived == np.round(survived)).all():
            return "a whole number of intervals survived"
        return None if np.isin(event, (0, 1)).all() else "an event of 0 or 1"

    def fault_of_outputs(self, outputs: Tensor, target: Tensor) -> str | None:  # noqa: D102
        fits = outputs.ndim == 2
        return None if fits else self.outputs_in_words

    def said(self, outputs: Tensor, target: Tensor) -> np.ndarray:
        """Return the probability of surviving each interval and those before, (rows, intervals)."""
        from torch.nn.functional import logsigmoid

        return logsigmoid(-outputs.double()).cumsum(1).exp().cpu().numpy()

    def values(self, target: np.ndarray, predicted: np.ndarray, scale: float) -> dict[str, float | None]:  # noqa: D102
        return {
            "concordance": concordance(target, predicted),
            "integrated_brier": integrated_brier(target, predicted),
            "horizon_error": calibration_error(target, predicted),
        }

    def values_inside(self, target: np.ndarray, predicted: np.ndarray, site: np.ndarray) -> dict[str, float | None]:
        """Compare pairs of rows of the same site; each pair weighs the same."""
        return {"concordance": concordance(target, predicted, site)}

    def summary(self, target: np.ndarray, range: PublicRange | None) -> dict[str, object]:  # noqa: D102
        return {"events": int(target[:, 1].sum())}

    def summands(self, target: np.ndarray, predicted: np.ndarray, range: PublicRange | None) -> dict[str, np.ndarray]:  # noqa: D102
        known = np.where(np.isfinite(predicted).all(1), 1.0, np.nan)  # makes a summand NaN, (rows,)
        filled = np.nan_to_num(predicted)
        return {
            "losses": known * losses_of(target, filled),
            "expected": known * predicted_events(target, filled),
            "observed": target[:, 1].astype(float),
        }

    def rates_of(self, sums: pd.DataFrame) -> dict[str, pd.Series]:  # noqa: D102
        return {
            LOSS_RATE.name: share(sums["losses"], sums["rows"]),
            EVENTS_RATE.name: share(sums["expected"] - sums["observed"], sums["rows"]),
        }

    def constant(self, targets: Sequence[np.ndarray], learned: np.ndarray) -> np.ndarray | None:
        """Return the Kaplan-Meier curve, up to the last interval that a row is known to have entered."""
        return kaplan_meier(learned, max(int(of_some.sum(1).max(initial=1)) for of_some in (*targets, learned)))

    def answer(self, constant: np.ndarray, range: PublicRange | None) -> float:
        """Return the probability of surviving all intervals."""
        return float(constant[-1])

    def answer_in_words(self, answers: pd.Series) -> str:  # noqa: D102
        return "always answering the Kaplan-Meier curve"

    def labels(self, target: np.ndarray) -> np.ndarray | None:  # noqa: D102
        return target[:, 1].astype(np.int64)

    def strata(self, target: np.ndarray) -> np.ndarray:
        """Return whether a row has an event."""
        return target[:, 1]

    def label_names(self, count: int) -> list[str]:  # noqa: D102
        return ["no event seen", "event"]

    def about(self, target: np.ndarray, range: PublicRange | None) -> dict[str, Any]:  # noqa: D102
        events = float(target[:, 1].mean())
        return {"events": round(events, 3), "about": f"{events:.1%} with an event"}
