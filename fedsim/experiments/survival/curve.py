"""Estimate a Kaplan-Meier curve from noisy counts of all sites, with a band that includes the noise.

Unit: one row. Relation: two tables are neighbours if one has one row more and they are otherwise equal.
Trusted: each site, which draws the noise of its own counts. Not trusted: whoever gets them, the server included.
Mechanism: a row is in one cell of its site's histogram, which says how many intervals it survived, and whether an event
ended the next one. A row more or less changes one count by one. Every count gets discrete Laplace noise of its own
(``fedsim.privacy.looks``). How many were at risk in an interval is a sum of noisy counts, and is never asked of rows.
Cost: the epsilon of one histogram, delta 0. Sites share no row, so all of them together cost what one costs.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pandas as pd

from fedsim.data.federation import sites_of
from fedsim.data.follow_up import FollowUp
from fedsim.data.loading import rows_of, task_of
from fedsim.mistakes import Mistake
from fedsim.scenario.schema import Scenario

LEVEL = 0.95
_DRAWS = 4000
_LITTLE = 0.5  # Jeffreys' prior of a hazard


@dataclass(frozen=True)
class Counts:
    """The rows of each site in each cell, exact: nobody but the site may see them.

    Attributes:
        sites: The sites' names.
        cells: int64 (sites, 2 intervals + 1): first those with an event in each interval, then those who were lost
            from sight, or still there, after 0, 1, ..., all intervals.
        follow_up: The intervals.
    """

    sites: tuple[str, ...]
    cells: np.ndarray
    follow_up: FollowUp


def counted(scenario: Scenario) -> Counts:
    """Count the rows of a scenario's sites.

    Raises:
        Mistake: The scenario's outcome is no survival.
    """
    task = task_of(scenario)
    if task.follow_up is None:
        raise Mistake(f"{scenario.name}: expected a task of kind 'survival', got one of kind {task.kind!r}")
    target = rows_of(scenario).target
    intervals = len(task.follow_up.ends)
    by_site = {name: cells_of(target[numbers], intervals) for name, numbers in sites_of(scenario).items()}
    return Counts(tuple(by_site), np.stack(list(by_site.values())), task.follow_up)


def cells_of(target: np.ndarray, intervals: int) -> np.ndarray:
    """Count rows in the cells of a histogram, each in one cell, int64 (2 intervals + 1,).

    Args:
        target: As of the kind ``survival``, (rows, 2).
        intervals: The number of intervals.
    """
    survived, event = target.T.astype(np.int64)
    cell = np.where(event == 1, survived, intervals + survived)
    return np.bincount(cell, minlength=2 * intervals + 1)


def curve_of(noisy: np.ndarray, follow_up: FollowUp, epsilon: Fraction) -> pd.DataFrame:
    """Estimate the curve from the noisy counts alone; this costs nothing more.

    The band holds, for each interval by itself, the true probability of surviving it in about 95 of 100 releases. It is
    made of draws: what the exact counts may have been, given the noise, and what the hazards may be, given such counts.

    Args:
        noisy: The released counts, int64 (sites, cells).
        follow_up: The intervals.
        epsilon: That of each count's noise.

    Returns:
        A line for each interval: ``end``, the estimates ``at_risk`` and ``events``, which may be below 0, ``survival``,
        ``low`` and ``high``.
    """
    total = noisy.sum(0)
    events, outlasted = _events_and_outlasted(total)
    survived = np.cumprod(1 - _hazards(events, outlasted))
    low, high = _band(total, len(noisy), float(epsilon))
    return pd.DataFrame(
        {
            "end": follow_up.ends,
            "at_risk": events + outlasted,
            "events": events,
            "survival": survived,
            "low": np.minimum(low, survived),
            "high": np.maximum(high, survived),
        }
    )


def _events_and_outlasted(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the events in each interval, and how many are known to have survived it, (..., intervals) each."""
    intervals = cells.shape[-1] // 2
    events = cells[..., :intervals]
    lost = cells[..., intervals:]
    lost_later = np.flip(np.flip(lost, -1).cumsum(-1), -1)[..., 1:]
    events_later = np.flip(np.flip(events, -1).cumsum(-1), -1) - events
    return events, lost_later + events_later


def _hazards(events: np.ndarray, outlasted: np.ndarray) -> np.ndarray:
    happened = np.maximum(events, 0)
    return happened / np.maximum(happened + np.maximum(outlasted, 0), 1)


def _band(total: np.ndarray, sites: int, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)  # it draws no noise that is to hide anything
    shape = (_DRAWS, len(total))
    stop = -np.expm1(-epsilon)
    noise = random.negative_binomial(sites, stop, shape) - random.negative_binomial(sites, stop, shape)
    events, outlasted = _events_and_outlasted(total - noise)
    hazards = random.beta(np.maximum(events, 0) + _LITTLE, np.maximum(outlasted, 0) + _LITTLE)
    outside = (1 - LEVEL) / 2
    low, high = np.quantile(np.cumprod(1 - hazards, -1), (outside, 1 - outside), axis=0)
    return low, high
