"""A number with its interval, as it is written in sentences and tables."""

import math
from dataclasses import dataclass

from fedsim.comparison import verdict


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % interval; what there is none of is NaN."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """``higher`` or ``lower`` than zero, ``not distinguishable`` from it, or nothing without an interval."""
        return verdict(self.low, self.high) or ""

    def value(self, signed: bool = False) -> str:
        """Return the mean, or a dash."""
        return "–" if math.isnan(self.mean) else figure(self.mean, signed)

    def bounds(self, signed: bool = False) -> str:
        """Return ``0.843 to 0.947``, or nothing without an interval."""
        return f"{figure(self.low, signed)} to {figure(self.high, signed)}" if self.verdict else ""

    def text(self, signed: bool = False) -> str:
        """Return ``0.895 (95 % interval 0.843 to 0.947)``, the mean alone, or ``unknown``."""
        if math.isnan(self.mean):
            return "unknown"
        return self.value(signed) + (f" (95 % interval {self.bounds(signed)})" if self.verdict else "")


def figure(value: float, signed: bool = False) -> str:
    """Return a number with three digits, four where three would hide its sign, fewer if it is large; no ``-0.000``."""
    digits = 4 if signed and 0 < abs(value) < 0.0005 else 3 if abs(value) < 100 else 1
    rounded = round(value, digits) + 0.0  # -0.0 + 0.0 is 0.0
    return f"{rounded:{'+' if signed and rounded else ''}.{digits}f}".replace("-", "−")
