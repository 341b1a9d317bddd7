"""Updates as integers modulo 2^64, so that their sum is exact in any order and can be masked."""

from dataclasses import dataclass

import numpy as np

_MODULUS = 2.0**64


class OutOfRange(Exception):
    """A vector is not sent, since it can't be written down; its values are not said."""


@dataclass(frozen=True)
class FixedPoint:
    """How numbers are written down.

    Attributes:
        bits: After the point: numbers are rounded to a multiple of ``2^-bits``.
        range: The largest absolute value of one number of an update.
    """

    bits: int = 32
    range: float = 1000.0

    @property
    def resolution(self) -> float:
        """The distance of two neighbouring numbers."""
        return 2.0**-self.bits

    def fits(self, weight: float) -> bool:
        """Whether a sum of updates with so much weight in all can't wrap around, with a bit to spare."""
        return max(self.range, 1.0) * weight / self.resolution <= _MODULUS / 4

    def encode(self, update: np.ndarray, weight: float = 1.0) -> np.ndarray:
        """Return weight x update, and the weight itself, as uint64 (params + 1,), rounded to the resolution.

        Args:
            update: (params,).
            weight: The site's share in the mean, > 0. It stays inside the mask.

        Raises:
            OutOfRange: A value is not finite or beyond the range. It is not cut off: a mean of values that were is
                another one.
            ValueError: The weight is not > 0, or too large.
        """
        if not (weight > 0 and self.fits(weight)):
            raise ValueError(f"expected a weight > 0 that fits into 64 bits, got {weight}")
        values = np.asarray(update, np.float64)
        if not (np.abs(values) <= self.range).all():  # false of NaN, too
            raise OutOfRange(f"expected finite values of at most {self.range:g}")
        return self.write(values * weight, weight)

    def write(self, weighted: np.ndarray, weight: float) -> np.ndarray:
        """Return values that are weighted already and known to fit, and the weight, as ``encode`` does."""
        return np.rint(np.append(weighted, weight) / self.resolution).astype(np.int64).view(np.uint64)

    def decode(self, total: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the weighted sum of updates, float64 (params,), and the sum of weights, from a sum of vectors."""
        sums = total.view(np.int64) * self.resolution
        return sums[:-1], float(sums[-1])
