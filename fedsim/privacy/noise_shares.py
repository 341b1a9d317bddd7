"""Differential privacy of whole sites that needs no trusted server: each site adds a share of the noise itself.

The sites clip their updates, round them to a grid, add their shares, and a secure aggregation sums them up. The server
learns the noisy sum alone. Kairouz, Liu, Steinke 2021, "The distributed discrete Gaussian mechanism for federated
learning with secure aggregation", https://arxiv.org/abs/2102.06387, with rounded Gaussians in place of discrete ones.

Guarantee. The noise is ``noise_multiplier`` times the sensitivity, or more, on these conditions: at least ``asked -
drop_outs`` sites are in the sum, or there is none; no more than ``colluding`` of them tell their shares to whoever
looks; everybody keeps to the protocol. A site is removed by counting as no change; it moves the sum by at most its
clipped update's norm, and rounding makes that at most ``clip + sqrt(params) resolution / 2``.

Why rounding costs no more. Let ``R`` round to the grid of resolution g, and ``Z_k`` be n independent Gaussians of
standard deviation s. The probability that ``R(Z)`` is i g is the density of Z + U at i g, times g, with U uniform on a
cell of the grid. So the sum of n of them has, up to aliasing, the density of ``Z_1 + ... + Z_n + U_1 + ... + U_n`` on
the grid: that of ``R(G + V)`` with a Gaussian G of variance n s^2 and V the sum of n - 1 such uniforms, which depends
on no data. With updates x_k on the grid, ``sum(x_k + R(Z_k))`` is distributed as ``R(sum(x_k) + G + V)``: the Gaussian
mechanism, and then something that only sees its result. Aliasing changes no probability by more than
5 n exp(-pi^2 s^2 / (2 g^2)); with s at least 2^10 g that is no number a computer knows. What this takes for granted is
a Gaussian; ours is made of two with 32 bits each and ends at 6.66 standard deviations.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fedsim.mistakes import Mistake
from fedsim.privacy.accounting import Segment
from fedsim.privacy.fixed_point import FixedPoint
from fedsim.privacy.ledger import Release, check_size
from fedsim.randomness import Normals, Random, Words, check_random

_COST = 2**-9  # of the clip: the most that rounding adds to the sensitivity
_FINE = 2**-10  # of a share's standard deviation: the coarsest grid
_LOW = 2**-12  # the weight of the second of two normal numbers: it fills places that the first, a float32, leaves out
_FARTHEST = 6.7  # standard deviations from 0; see Normals
_MOST_SITES = 2**31


@dataclass(frozen=True)
class NoiseShare(Release):
    """One site's clipped update with its share of the noise, as it left under masks, and its worth in the sum.

    Attributes:
        noise_multiplier: The least standard deviation of the noise on the sum that is not known to those who collude,
            over the sensitivity.
        clip: The largest Euclidean norm of one site's change of the model.
        params: How many numbers an update has.
        asked: How many sites were asked, m.
        drop_outs: How many may be missing from the sum, t.
        colluding: How many sites' shares of the noise may be known to whoever looks, c.
        rng: Where the site's share came from: a key that follows from the seed, or the operating system's.

    Raises:
        Mistake: A value is out of its range.
        ValueError: No share of the noise would be left.
    """

    kind: ClassVar[str] = "noise-share"
    site_may_be_absent: ClassVar[bool] = True

    noise_multiplier: float
    clip: float
    params: int
    asked: int
    drop_outs: int
    colluding: int
    rng: Random = "reproducible"

    def __post_init__(self) -> None:
        self.segment()
        check_random(self.rng)
        if not (self.clip > 0 and self.params >= 1 and self.drop_outs >= 0 and self.colluding >= 0 and self.sure >= 1):
            raise ValueError(f"expected a clip > 0 and more than {self.drop_outs} + {self.colluding} sites, "
                             f"got {self.clip:g} and {self.asked}")  # fmt: skip

    def segment(self) -> Segment:
        """Return the cost of one step in which nothing is sampled."""
        return Segment(1.0, self.noise_multiplier, 1)

    def check_claim(self, planned: Release) -> None:
        """Make sure that a site can have added this share where it was asked for that; see ``Release``."""
        super().check_claim(planned)
        check_size("clip", self.clip)
        for name in ("params", "drop_outs", "colluding"):
            claimed, told = getattr(self, name), getattr(planned, name)
            if claimed != told:
                raise Mistake(f"{name}: expected {told}, got {claimed}")

        if type(self.asked) is not int or self.asked > _MOST_SITES:
            raise Mistake(f"asked: expected a whole number up to {_MOST_SITES}, got {self.asked}")

    @property
    def sure(self) -> int:
        """How many sites' noise is in any sum and known to nobody who looks."""
        return self.asked - self.drop_outs - self.colluding

    @property
    def sensitivity(self) -> float:
        """How far one site moves the sum: the largest norm of an update after rounding."""
        return self.clip + math.sqrt(self.params) * self.grid.resolution / 2

    @property
    def deviation(self) -> float:
        """The standard deviation of one site's share."""
        return self.noise_multiplier * self.sensitivity / math.sqrt(self.sure)

    @property
    def grid(self) -> FixedPoint:
        """How numbers are written down: finer than any share, and public."""
        least = self.noise_multiplier * self.clip / math.sqrt(self.sure)
        step = min(2 * _COST * self.clip / math.sqrt(self.params), _FINE * least)
        return FixedPoint(-math.floor(math.log2(step)), (1 + _COST) * (self.clip + _FARTHEST * least))


def noisy(update: Tensor, weight: float, share: NoiseShare, words: Words) -> np.ndarray:
    """Return what a site sends under masks, float64 (params,), on the share's grid.

    Args:
        update: What training changed, (params,). One with a NaN or an infinity in it counts as no change.
        weight: How much the site counts, from 0 to 1, public.
        share: What to do.
        words: The site's random words for this round; no two rounds share any.
    """
    two = torch.empty(1, 2 * len(update), device=update.device)
    Normals([words], update.device).fill(two)
    high, low = two[0].double().view(2, -1)  # (params,) each
    noise = share.deviation * (math.sqrt(1 - _LOW**2) * high + _LOW * low)
    return _rounded(weight * clipped(update, share.clip), share) + _rounded(noise, share)


def clipped(update: Tensor, clip: float) -> Tensor:
    """Return an update, float64 (params,), made shorter if its norm is above ``clip``; zeros if it is not finite."""
    change = update.double()
    if not change.isfinite().all():
        return torch.zeros_like(change)
    return change * min(1.0, clip / max(float(change.norm()), 1e-300))


def _rounded(values: Tensor, share: NoiseShare) -> np.ndarray:
    return np.rint(values.cpu().numpy() / share.grid.resolution) * share.grid.resolution
