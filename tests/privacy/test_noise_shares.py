"""Shares of noise under secure aggregation: each test fails when a part of the claim is broken."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedsim.mistakes import Mistake
from fedsim.privacy.accounting import epsilon
from fedsim.privacy.noise_shares import NoiseShare, _rounded, clipped, noisy
from fedsim.randomness import Words

SHARE = NoiseShare(noise_multiplier=2.0, clip=0.5, params=20_000, asked=10, drop_outs=3, colluding=2)


def words(*name: object) -> Words:
    return Words.of(0, "test shares", *map(str, name))


def sum_of(sites: range, share: NoiseShare = SHARE) -> np.ndarray:
    """Return the noise of some sites, whose updates are zeros."""
    return sum(noisy(torch.zeros(share.params), 1.0, share, words(site)) for site in sites)  # type: ignore


@pytest.mark.parametrize("gone", range(4))
def test_the_noise_of_the_sum_is_enough_however_many_drop_out(gone: int):
    """Variance at least (sigma sensitivity)^2 for every number of drop-outs that is tolerated, those who collude apart.

    One-sided, at 5 standard errors of a variance of 20 000 numbers; with all drop-outs and colluders it is no more.
    """
    honest = range(SHARE.asked - gone - SHARE.colluding)
    claimed = (SHARE.noise_multiplier * SHARE.sensitivity) ** 2
    found = sum_of(honest).var() / claimed
    error = 5 * math.sqrt(2 / SHARE.params)
    assert found >= 1 - error
    assert found == pytest.approx(len(honest) / SHARE.sure, rel=error)


def test_with_one_drop_out_more_it_would_not_be():
    """Why such a sum is refused."""
    honest = range(SHARE.asked - SHARE.drop_outs - 1 - SHARE.colluding)
    claimed = (SHARE.noise_multiplier * SHARE.sensitivity) ** 2
    assert sum_of(honest).var() / claimed < 1 - 5 * math.sqrt(2 / SHARE.params)


def test_the_noise_is_normal_and_every_site_has_its_own():
    shares = [noisy(torch.zeros(SHARE.params), 1.0, SHARE, words(site)) for site in range(4)]
    for one in shares:
        assert stats.kstest(one / SHARE.deviation, "norm").pvalue > 1e-6
    assert np.abs(np.corrcoef(shares) - np.eye(4)).max() < 6 / math.sqrt(SHARE.params)


@pytest.mark.parametrize("size", [0.0, 0.1, 0.5, 7.0, 1e30, math.inf, math.nan])
@pytest.mark.parametrize("weight", [0.2, 1.0])
def test_one_site_moves_the_sum_by_at_most_the_sensitivity(size: float, weight: float):
    """B5: the same noise, with the site's update and with none, rounding included."""
    update = torch.from_numpy(np.random.default_rng(1).normal(size=SHARE.params)).float()
    update *= size / update.norm()
    moved = noisy(update, weight, SHARE, words("x")) - noisy(torch.zeros(SHARE.params), weight, SHARE, words("x"))
    length = float(np.linalg.norm(moved))
    assert length <= SHARE.sensitivity * weight * (1 + 1e-6)
    if math.isfinite(size):
        assert length == pytest.approx(weight * min(size, SHARE.clip), abs=SHARE.sensitivity - SHARE.clip)
    else:
        assert length == 0


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=30), st.floats(0.05, 3), st.floats(0.3, 50))
def test_rounding_is_in_the_sensitivity(values: list[float], clip: float, sigma: float):
    """Any update, also one whose numbers all lie between two steps of the grid."""
    share = NoiseShare(sigma, clip, len(values), 5, 1, 0)
    between = torch.full((len(values),), 0.499999 * share.grid.resolution, dtype=torch.float64)
    for update in (torch.tensor(values), torch.tensor(values) + between, between):
        assert np.linalg.norm(_rounded(clipped(update, clip), share)) <= share.sensitivity * (1 + 1e-9)


def test_the_worst_rounding_is_nearly_what_is_declared():
    share = NoiseShare(0.5, 1.0, 10_000, 3, 0, 0)
    step = share.grid.resolution
    update = torch.full((10_000,), 0.01).double()  # norm 1
    up = (torch.ceil(update / step) - 0.4999) * step
    length = float(np.linalg.norm(_rounded(up, share)) - up.norm())
    assert length == pytest.approx(share.sensitivity - share.clip, rel=0.01)


@given(st.floats(0.01, 1e3), st.floats(1e-4, 1e4), st.integers(1, 10**7), st.integers(3, 500))
def test_the_grid_is_finer_than_a_share_and_the_sum_fits(sigma: float, clip: float, params: int, asked: int):
    share = NoiseShare(sigma, clip, params, asked, (asked - 1) // 2, 0)
    assert 2**10 <= share.deviation / share.grid.resolution <= 2**33  # and no place is beyond the noise's 36 bits
    assert share.sensitivity <= share.clip * (1 + 2**-9)
    assert share.grid.fits(asked)
    assert share.sensitivity + 6.7 * share.deviation <= share.grid.range * (1 + 1e-9)


@pytest.mark.parametrize("sites", [1, 2, 5])
@pytest.mark.parametrize("deviation", [1.0, 3.0])
def test_a_sum_of_rounded_shares_is_a_rounded_gaussian_and_more_noise(sites: int, deviation: float):
    """The lemma, by convolution: the sum of n rounded Gaussians is R(G + V), V the sum of n - 1 uniforms.

    On a grid of whole numbers, with so coarse a grid that aliasing would show (it is below 5 n exp(-pi^2 s^2 / 2)).
    """
    whole = np.arange(-200, 201)
    cell = stats.norm.cdf(whole + 0.5, scale=deviation) - stats.norm.cdf(whole - 0.5, scale=deviation)
    summed = cell
    for _ in range(sites - 1):
        summed = np.convolve(summed, cell, mode="same")
    fine = 100  # points of V in a cell, for the integral over it
    at = (np.arange(-fine * 10, fine * 10 + 1)) / fine
    density = np.zeros_like(at)
    density[len(at) // 2] = fine
    box = np.ones(fine + 1) / fine
    box[[0, -1]] /= 2
    for _ in range(sites - 1):
        density = np.convolve(density, box, mode="same")
    spread = deviation * math.sqrt(sites)
    gaps = whole[:, None] - at
    cells = stats.norm.cdf(gaps + 0.5, scale=spread) - stats.norm.cdf(gaps - 0.5, scale=spread)
    expected = cells @ density / fine
    assert np.abs(summed - expected).max() <= 5 * sites * math.exp(-(math.pi**2) * deviation**2 / 2) + 1e-6


@pytest.mark.parametrize("shift", [1, 3, 8])
@pytest.mark.parametrize("sites", [1, 4])
def test_rounded_shares_promise_what_the_gaussian_of_their_sum_does(shift: int, sites: int):
    """The delta of whole-number outcomes, added up exactly, is at most that of the accountant's epsilon."""
    deviation = 4.0
    whole = np.arange(-400, 401)
    cell = stats.norm.cdf(whole + 0.5, scale=deviation) - stats.norm.cdf(whole - 0.5, scale=deviation)
    summed = cell
    for _ in range(sites - 1):
        summed = np.convolve(summed, cell, mode="same")
    share = NoiseShare(deviation * math.sqrt(sites) / shift, float(shift), 1, sites, 0, 0)
    for delta in (1e-2, 1e-4, 1e-6):
        bound = epsilon([share.segment()], delta)
        for one, other in ((summed[shift:], summed[:-shift]), (summed[:-shift], summed[shift:])):
            exact = np.maximum(0.0, one - math.exp(bound) * other).sum()
            assert exact <= delta * (1 + 1e-6)
            assert exact >= 0.5 * delta  # and it is not the bound of something else


@pytest.mark.parametrize("wrong", [{"asked": 5}, {"drop_outs": -1}, {"colluding": 7}, {"clip": 0.0}, {"params": 0}])
def test_shares_that_leave_no_noise_are_refused(wrong: dict):
    with pytest.raises(ValueError, match="expected a clip > 0 and more than"):
        replace(NoiseShare(1.0, clip=1.0, params=3, asked=9, drop_outs=3, colluding=2), **wrong)


def test_a_noise_that_is_none_is_refused():
    with pytest.raises(Mistake, match="noise_multiplier: expected a finite number > 0"):
        NoiseShare(0.0, 1.0, 3, 9, 3, 2)


def test_what_is_sent_lies_on_the_grid():
    found = noisy(torch.ones(SHARE.params), 1.0, SHARE, words("y")) / SHARE.grid.resolution
    np.testing.assert_array_equal(found, np.rint(found))


def test_noise_falls_on_every_step_of_a_fine_grid():
    """A float32 has no more than 24 binary places: alone it would leave out most of the steps of this grid."""
    share = NoiseShare(noise_multiplier=1000.0, clip=1.0, params=20_000, asked=3, drop_outs=0, colluding=0)
    assert share.deviation / share.grid.resolution > 2**25
    numbers = noisy(torch.zeros(share.params), 1.0, share, words("z")) / share.deviation / math.sqrt(1 - 2**-24)
    large = numbers[np.abs(numbers) > 1]  # where places of a float32 are at least 2^-23 apart
    off = np.abs(large - large.astype(np.float32)) * share.deviation / share.grid.resolution  # in steps
    assert (off <= 0.51).mean() < 0.5
