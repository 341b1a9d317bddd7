"""Noise that cancels over rounds: what it is, what a site can do to it, and where it helps."""

import itertools
import math

import numpy as np
import pytest
import torch

from fedsim.flower.grid import node_of
from fedsim.privacy.accounting import Segment, epsilon, noise_multiplier
from fedsim.privacy.correlated import Correlated, column_norm, diagonals
from tests.privacy.test_central import noise_of


def prefix_noise(rounds: int, band: int) -> list[float]:
    """Return the deviation of the noise on the sum of the first t rounds, for each t, over that of one round.

    With independent noise it is ``sqrt(t)``.
    """
    diagonal = diagonals(band)

    # The weight in the sum of the independent noise of t rounds ago: a coefficient of 1 / ((1 - x) C(x)).
    weights: list[float] = []
    for t in range(rounds):
        known = sum(diagonal[i] * weights[t - i] for i in range(1, min(band, t + 1)))
        weights.append(1.0 - known)

    variance = 0.0
    deviations = []
    for weight in weights:
        variance += weight**2
        deviations.append(column_norm(band) * math.sqrt(variance))
    return deviations


def matrix(rounds: int, band: int) -> np.ndarray:
    """Return C, lower triangular (rounds, rounds)."""
    found = np.zeros((rounds, rounds))
    for distance, value in enumerate(diagonals(band)[:rounds]):
        found += value * np.eye(rounds, k=-distance)
    return found


def test_the_whole_matrix_is_the_square_root_of_prefix_sums():
    whole = matrix(12, 12)
    np.testing.assert_allclose(whole @ whole, np.tril(np.ones((12, 12))), atol=1e-12)


@pytest.mark.parametrize("band", [1, 2, 5, 20])
def test_a_rounds_noise_is_a_row_of_the_inverse(band: int):
    independent = torch.randn(12, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    correlated = Correlated(band)
    found = torch.stack([correlated.next(row) for row in independent])
    np.testing.assert_allclose(found.numpy(), np.linalg.inv(matrix(12, band)) @ independent.numpy(), atol=1e-12)


@pytest.mark.parametrize(("rounds", "band"), [(6, 1), (7, 2), (8, 3), (9, 4)])
def test_the_sensitivity_is_that_of_brute_force(rounds: int, band: int):
    """Over all patterns in which a site's rounds lie at least ``band`` apart, and all signs of its updates."""
    c, most = matrix(rounds, band), 0.0
    for pattern in itertools.product((0, 1), repeat=rounds):
        there = [number for number, joined in enumerate(pattern) if joined]
        if not there or any(later - earlier < band for earlier, later in itertools.pairwise(there)):
            continue
        declared = math.sqrt(len(there)) * column_norm(band)
        for signs in itertools.product((-1, 1), repeat=len(there)):
            moved = float(np.linalg.norm(c[:, there] @ np.array(signs)))
            assert moved <= declared * (1 + 1e-12)
            most = max(most, moved / declared)
    assert most == pytest.approx(1)  # a site that is only in early rounds


def test_closer_rounds_would_break_the_bound():
    c = matrix(6, 3)
    assert np.linalg.norm(c[:, [0, 1]].sum(1)) > math.sqrt(2) * column_norm(3)


def test_a_site_is_not_asked_again_too_early():
    noise, nodes = noise_of(band=3, rate=None), [node_of(1)]
    noise.release(1, nodes, torch.zeros(4), torch.zeros(0, 4), [])
    noise.release(3, [node_of(2)], torch.zeros(4), torch.zeros(0, 4), [])
    with pytest.raises(ValueError, match="expected site1 at most once in 3 rounds, got it in rounds 1 and 3"):
        noise.release(3, nodes, torch.zeros(4), torch.zeros(0, 4), [])
    noise.release(4, nodes, torch.zeros(4), torch.zeros(0, 4), [])


def test_what_the_server_adds_is_what_is_accounted_for():
    """C times the released sums is the sums plus independent noise, of the column's norm times sigma times the clip."""
    band, rounds, params = 4, 8, 50_000
    noise = noise_of((1.0,) * 8, band=band, rate=None)
    drawn = []
    for number in range(1, rounds + 1):
        asked = [node_of((number - 1) % band)]
        mean = noise.release(number, asked, torch.zeros(params), torch.zeros(0, params), [])
        drawn.append(mean.double().numpy() * noise.planned(number).denominator)
    independent = matrix(rounds, band) @ np.stack(drawn)
    wanted = 2.0 * 0.5 * column_norm(band)
    assert independent.std(1) / wanted == pytest.approx(np.ones(rounds), abs=5 / math.sqrt(2 * params))
    assert np.abs(np.corrcoef(independent) - np.eye(rounds)).max() < 6 / math.sqrt(params)
    assert np.stack(drawn).sum(0).std() == pytest.approx(prefix_noise(rounds, band)[-1], rel=0.05)
    assert noise.ledger.epsilon("site0") == epsilon([Segment(1.0, 2.0, rounds // band)], 1e-3)
    assert {entry.mechanism.band for entry in noise.ledger.entries} == {band}  # type: ignore[union-attr]


@pytest.mark.parametrize(("rounds", "band"), [(10, 1), (10, 4), (9, 9), (5, 20)])
def test_the_noise_on_sums_is_that_of_the_matrices(rounds: int, band: int):
    sums = np.tril(np.ones((rounds, rounds))) @ np.linalg.inv(matrix(rounds, band))
    expected = column_norm(band) * np.linalg.norm(sums, axis=1)
    np.testing.assert_allclose(prefix_noise(rounds, band), expected, rtol=1e-9)
    if band == 1:
        np.testing.assert_allclose(expected, np.sqrt(np.arange(1, rounds + 1)))


def over_rounds(noise: list[float]) -> float:
    return math.sqrt(sum(value**2 for value in noise) / len(noise))


@pytest.mark.whole
@pytest.mark.parametrize("band", [4, 16])
def test_it_beats_independent_noise_always_and_sampling_where_turns_are_rare_and_epsilon_is_large(band: int):
    """The table of decision 9: 64 rounds, delta 1e-4, root mean square of the noise on sums."""
    independent, correlated = over_rounds(prefix_noise(64, 1)), over_rounds(prefix_noise(64, band))
    assert correlated < 0.6 * independent
    for target in (1, 4):
        turns, sampled = noise_multiplier(target, 1.0, 64 // band, 1e-4), noise_multiplier(target, 1 / band, 64, 1e-4)
        assert (turns * correlated < sampled * independent) == (band == 16 and target == 4)
