"""A mean over seeds with its interval, for sentences and tables; ``fedsim.figures`` writes the numbers."""

import math
from dataclasses import dataclass

from fedsim import figures
from fedsim.results.comparison import AGREE, UNBOUNDED, verdict


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % interval; what there is none of is NaN, and ``why`` says why."""

    mean: float
    low: float
    high: float
    why: str = ""

    @property
    def verdict(self) -> str:
        """``higher`` or ``lower`` than zero, ``not distinguishable`` from it, or nothing without an interval."""
        return verdict(self.low, self.high) or ""

    def value(self, signed: bool = False) -> str:
        """Return the mean, or a dash."""
        return figures.figure(self.mean, signed)

    def bounds(self, signed: bool = False) -> str:
        """Return ``0.843 to 0.947``, with as many digits as tell them apart, or nothing without an interval."""
        return figures.bounds(self.low, self.high, signed) if self.verdict else ""

    def interval(self, signed: bool = False) -> str:
        """Return ``95 % interval 0.843 to 0.947``, or why there is none, or nothing where nothing is known."""
        return f"95 % interval {self.bounds(signed)}" if self.verdict else self.why

    def below(self, signed: bool = False) -> str:
        """Return what stands below the number in a table: the bounds, or what the seeds say in place of them."""
        return self.bounds(signed) or (self.why if self.why in (AGREE, UNBOUNDED) else "")

    def text(self, signed: bool = False) -> str:
        """Return ``0.895 (95 % interval 0.843 to 0.947)``, ``0.895 (all seeds agree)`` or so, or ``unknown``."""
        if math.isnan(self.mean):
            return "unknown"
        said = self.interval(signed)
        return self.value(signed) + (f" ({said})" if said else "")
