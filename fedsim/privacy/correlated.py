"""Noise whose parts cancel over rounds, for models that add up noisy means: DP-FTRL by a banded matrix.

Kalinin, Lampert, "Banded Square Root Matrix Factorization for Differentially Private Model Training", NeurIPS 2024,
https://arxiv.org/abs/2405.13763: the first b coefficients of ``1 / sqrt(1 - x)`` are the diagonals of a matrix C, and
rounds get the noise ``C^-1 Z``. Who sees the sums plus ``C^-1 Z`` sees no more than ``C`` times the sums plus ``Z``
(Denisov, McMahan, Rush, Smith, Thakurta, NeurIPS 2022, https://arxiv.org/abs/2202.08312, Theorem 2.1: also where later
sums depend on what was seen). A site whose rounds lie at least b apart is in columns of C that have no row in common,
so with a sum of at most ``clip`` in each of k rounds it moves ``C`` times the sums by at most
``clip sqrt(k) |column|``: as much as k rounds with independent noise cost, if Z is ``|column|`` times as large.
"""

import math
from collections import deque
from collections.abc import Sequence

from torch import Tensor


def diagonals(band: int) -> list[float]:
    """Return the first ``band`` coefficients of ``1 / sqrt(1 - x)``: 1, 1/2, 3/8, ..."""
    found = [1.0]
    for k in range(1, band):
        found.append(found[-1] * (2 * k - 1) / (2 * k))
    return found


def column_norm(band: int) -> float:
    """Return the norm of a whole column of C; those at the end are cut, and no longer."""
    return math.sqrt(sum(value**2 for value in diagonals(band)))


class Correlated:
    """Turns independent noise into ``C^-1`` times it, round after round.

    Args:
        band: b >= 1, the least distance of a site's rounds; 1 is independent noise.
    """

    def __init__(self, band: int) -> None:
        self._diagonals = diagonals(band)
        self._before: deque[Tensor] = deque(maxlen=max(1, band - 1))  # the newest first

    def next(self, noise: Tensor) -> Tensor:
        """Return a round's noise, float64 (params,), from independent noise of its own, (params,)."""
        found = noise.double()
        for value, before in zip(self._diagonals[1:], self._before, strict=False):
            found = found - value * before
        self._before.appendleft(found)
        return found

    def snapshot(self) -> list[Tensor]:
        """Return the noise of the rounds that the next one depends on, the newest first."""
        return list(self._before)

    def restore(self, before: Sequence[Tensor]) -> None:
        """Go on from what ``snapshot`` returned."""
        self._before.clear()
        self._before.extend(before)
