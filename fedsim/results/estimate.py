"""A number with its interval, as it is written in sentences and tables."""

import math
from dataclasses import dataclass

from fedsim.results.comparison import AGREE, UNBOUNDED, verdict

_MOST_DIGITS = 6


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
        return "–" if math.isnan(self.mean) else figure(self.mean, signed)

    def bounds(self, signed: bool = False) -> str:
        """Return ``0.843 to 0.947``, with as many digits as tell them apart, or nothing without an interval."""
        if not self.verdict:
            return ""
        digits = 3
        while figure(self.low, signed, digits) == figure(self.high, signed, digits) and digits < _MOST_DIGITS:
            digits += 1
        return f"{figure(self.low, signed, digits)} to {figure(self.high, signed, digits)}"

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


def figure(value: float, signed: bool = False, least_digits: int = 3) -> str:
    """Return a number with three digits, four where three would hide its sign, fewer if it is large; no ``-0.000``."""
    digits = 4 if signed and 0 < abs(value) < 0.0005 else 3 if abs(value) < 100 else 1
    digits += least_digits - 3
    rounded = round(value, digits) + 0.0  # -0.0 + 0.0 is 0.0
    return f"{rounded:{'+' if signed and rounded else ''}.{digits}f}".replace("-", "−")
