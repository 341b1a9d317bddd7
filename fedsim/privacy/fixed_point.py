"""Updates as integers modulo 2^64, so that their sum is exact in any order and can be masked."""

import numpy as np

BITS = 32  # after the point: steps of 2.3e-10


def encode(update: np.ndarray, weight: float, sites: int) -> np.ndarray:
    """Return weight x update, and the weight itself, as uint64 (params + 1,), rounded to a multiple of 2^-32.

    Args:
        update: (params,), finite.
        weight: The site's share in the mean, > 0. It stays inside the mask.
        sites: How many are summed at most; so many times any value must fit.

    Raises:
        ValueError: A value is not finite, or too large: the sum could wrap around.
    """
    values = np.append(np.asarray(update, np.float64) * weight, weight) * 2.0**BITS
    limit = 2.0**62 / sites
    if not (weight > 0 and np.isfinite(values).all() and np.abs(values).max() <= limit):
        raise ValueError(f"expected finite values of at most {limit / 2**BITS:g} after weighing, and a weight > 0")
    return np.rint(values).astype(np.int64).view(np.uint64)


def decode(total: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the weighted mean, float64 (params,), and the sum of weights, from a sum of encoded updates."""
    sums = total.view(np.int64) / 2.0**BITS
    return sums[:-1] / sums[-1], float(sums[-1])
