"""Canaries, records or sites made to be noticed: from their scores to lower bounds on epsilon.

Four attacks share this: a record or a whole site, many runs with one canary or one run with many.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsim import figures
from fedsim.audits.bounds import CONFIDENCE, one_run_bound, paired_bound
from fedsim.audits.finding import Measured, Row
from fedsim.audits.trade_off import one_run_noise_bound, paired_noise_bound
from fedsim.privacy.accounting import Segment, epsilon


@dataclass(frozen=True)
class CanaryAudit:
    """What canaries proved.

    Attributes:
        bound: A lower bound on epsilon that presumes nothing about the mechanism.
        noise_bound: One that presumes the claimed rate and steps, and some noise.
        estimate: Epsilon if the scores are Gaussian; not a bound. None where it was not estimated.
        trials: Trainings with the canary (and as many without), or canaries in one training.
    """

    bound: float
    noise_bound: float
    estimate: float | None
    trials: int

    def measured(self, name: str, claimed: float) -> tuple[Measured, ...]:
        """Return both bounds for a finding, each of which the claimed epsilon must not fall below."""
        return (
            Measured(name, "epsilon", self.estimate, self.bound, None, CONFIDENCE, claimed),
            Measured(
                f"{name}, if only the noise is in doubt", "epsilon", None, self.noise_bound, None, CONFIDENCE, claimed
            ),
        )

    def words(self, tried: str) -> tuple[str, ...]:
        """Return both bounds for a terminal, after a few words on how many canaries were tried."""
        about = "" if self.estimate is None else f", about {figures.estimated_epsilon(self.estimate)}"
        return (
            f"epsilon >= {figures.proven_epsilon(self.bound)}{about}; {tried}",
            f"epsilon >= {figures.proven_epsilon(self.noise_bound)} if only the noise is in doubt",
        )

    def rows(self, name: str) -> tuple[Row, ...]:
        """Return the estimate for the story's table, which holds the largest of all bounds itself."""
        if self.estimate is None:
            return ()
        return (
            Row(name, "no bound: may be above or below the truth", f"about {figures.estimated_epsilon(self.estimate)}"),
        )


def judge_pairs(inside: np.ndarray, outside: np.ndarray, claimed: Segment, delta: float) -> CanaryAudit:
    """Bound epsilon by scores of independent runs with the canary, (trials,), and of as many without."""
    return CanaryAudit(
        bound=paired_bound(inside, outside, delta),
        noise_bound=paired_noise_bound(inside, outside, claimed, delta),
        estimate=gaussian_estimate(inside, outside, delta),
        trials=len(inside),
    )


def judge_one_run(scores: np.ndarray, included: np.ndarray, claimed: Segment, delta: float) -> CanaryAudit:
    """Bound epsilon by the scores of canaries in one run, (canaries,), each included with probability one half."""
    return CanaryAudit(
        bound=one_run_bound(scores, included, delta),
        noise_bound=one_run_noise_bound(scores, included, claimed, delta),
        estimate=None,
        trials=len(scores),
    )


def gaussian_estimate(inside: np.ndarray, outside: np.ndarray, delta: float) -> float:
    """Compute the epsilon of two Gaussians with the means and the mean variance of some scores; no bound."""
    deviation = np.sqrt((inside.var() + outside.var()) / 2)
    distance = (inside.mean() - outside.mean()) / deviation
    if distance <= 1e-3:
        return 0.0
    return epsilon((Segment(1.0, 1 / float(distance), 1),), delta)
