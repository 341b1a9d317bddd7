"""A clip that follows a quantile of the sites' norms.

Andrew, Thakkar, McMahan, Ramaswamy, "Differentially Private Learning with Adaptive Clipping", NeurIPS 2021,
https://arxiv.org/abs/1905.03871, Algorithm 1: geometric updates, and each site's bit counted as plus or minus one half.
"""

import math
from dataclasses import dataclass

from fedsim.mistakes import Mistake

_FARTHEST = math.log(1e12)  # noise alone never drives the clip, from 1, out of what float32 can hold


@dataclass
class AdaptiveClip:
    """The clip of the next round, and what moves it.

    Attributes:
        clip: The clip that the next round's updates are clipped to.
        quantile: The share of sites whose updates are to be within the clip, in (0, 1).
        rate: How fast the clip moves, > 0.
        bit_noise: The standard deviation of the noise on the sum of the bits, each plus or minus one half.
    """

    clip: float
    quantile: float
    rate: float
    bit_noise: float

    def learn(self, bits: float, sites: float) -> None:
        """Move the clip after a round: down where more sites than wanted are within it.

        Args:
            bits: The noisy sum of the bits: one half for a norm within the clip that was applied, else minus one half.
            sites: The public number of sites that were expected in the round.
        """
        within = bits / sites + 0.5
        moved = math.log(self.clip) - self.rate * (within - self.quantile)
        self.clip = math.exp(min(max(moved, -_FARTHEST), _FARTHEST))


def noise_on_the_sum(together: float, bit_noise: float) -> float:
    """Return the noise multiplier for the updates that costs, beside the bits, as much as ``together`` alone would.

    The bits' sum changes by one half for one site, so their noise multiplier is ``2 bit_noise``: z_delta in Theorem 1.

    Raises:
        Mistake: The bits alone would already cost more.
    """
    left = together**-2 - (2 * bit_noise) ** -2
    if left <= 0:
        raise Mistake(f"privacy.adaptive_clip.bit_noise: expected more than {together / 2:g}, half the noise "
                      f"multiplier, got {bit_noise:g}")  # fmt: skip
    return left**-0.5
