"""Define the public intervals of time after which patients, loans or machines are asked about again."""

from dataclasses import dataclass

import numpy as np

from fedsim.mistakes import Mistake


@dataclass(frozen=True)
class FollowUp:
    """The intervals of a follow-up; they are public, and chosen without looking at rows.

    Attributes:
        ends: The end of each interval, ascending, > 0; the first interval begins at 0. The last end is the horizon.
        unit: The unit of time, e.g. ``days``.
    """

    ends: tuple[float, ...]
    unit: str

    def __post_init__(self) -> None:
        steps = np.diff((0.0, *self.ends))
        if not self.ends or not np.isfinite(steps).all() or not (steps > 0).all():
            raise Mistake(f"follow-up: expected the ends of intervals, ascending and above 0, got {self.ends}")

    def intervals(self, time: np.ndarray, event: np.ndarray) -> np.ndarray:
        """Return the targets of rows: intervals survived in full, and whether an event ended the next one.

        An event at the end of an interval is in it. Whoever was last seen in the second half of an interval counts as
        having survived it, and in the first half as not having been there (the half-interval rule of Gensheimer and
        Narasimhan 2019). Whoever is still there at the horizon has survived all intervals, whatever came later.

        Args:
            time: When the event came or the row was last seen, >= 0, (rows,).
            event: Whether it was the event, 0 or 1, (rows,).

        Returns:
            float32 (rows, 2).

        Raises:
            Mistake: A time is missing or below 0, or an event is neither 0 nor 1.
        """
        if not (time >= 0).all() or not np.isfinite(time).all():
            raise Mistake("follow-up: expected a time of 0 or more in each row")
        if not np.isin(event, (0, 1)).all():
            raise Mistake("follow-up: expected an event of 0 or 1 in each row")
        ends = np.array(self.ends)
        middles = (ends + np.array((0.0, *self.ends[:-1]))) / 2
        seen = (event == 1) & (time <= ends[-1])
        survived = np.where(seen, np.searchsorted(ends, time), np.searchsorted(middles, time, side="right"))
        return np.stack([survived, seen], 1).astype(np.float32)

    def fault_of(self, target: np.ndarray) -> str | None:
        """Return what targets (rows, 2) should be, in words, where they name an interval that is not there."""
        if (target.sum(1) <= len(self.ends)).all():
            return None
        return f"at most {len(self.ends)} intervals in each row, those of the follow-up"
