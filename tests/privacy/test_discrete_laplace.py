"""Noise in whole numbers: it has exactly the distribution that the claim rests on, and nobody can repeat it."""

import itertools
import secrets
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from fedsim.privacy import discrete_laplace
from fedsim.privacy.discrete_laplace import Below, draw, margin, probability, standard_deviation, system_random
from fedsim.randomness import Words

FALSE_ALARM = 1e-6
EPSILONS = (Fraction(1, 7), Fraction(1, 2), Fraction(3, 2), Fraction(4))


def source(*name: int | str) -> Below:
    """Return a source of whole numbers that tests can repeat: 64 random bits, of which too large ones are dropped."""
    words = Words.of(0, "discrete Laplace", *name)

    def below(limit: int) -> int:
        bits = max(1, (limit - 1).bit_length())
        while True:
            high, low = map(int, words.draw(2))
            value = (high << 32 | low) >> (64 - bits)
            if value < limit:
                return value

    return below


def exact(epsilon: Fraction, most: int) -> np.ndarray:
    """Return the probabilities of -most to most, with all of the tails in the two ends."""
    decay = np.exp(-float(epsilon))
    values = np.arange(-most, most + 1)
    mass = (1 - decay) / (1 + decay) * decay ** np.abs(values)
    mass[[0, -1]] /= 1 - decay  # everything from here on
    return mass


def some(epsilons: Sequence[Fraction], often: Sequence[Fraction]) -> list[Any]:
    """Return all as parameters, of which those that are not tried often are for whole trials."""
    return [pytest.param(one, marks=[] if one in often else pytest.mark.whole) for one in epsilons]


@pytest.mark.whole
@pytest.mark.parametrize("epsilon", some(EPSILONS, often=EPSILONS[1:2]))
def test_draws_have_the_exact_distribution(epsilon: Fraction):
    below = source("chi-square", str(epsilon))
    draws = np.array([draw(epsilon, below) for _ in range(40_000)])
    most = max(1, int(4 / float(epsilon)))
    observed = np.bincount(np.clip(draws, -most, most) + most, minlength=2 * most + 1)
    expected = exact(epsilon, most) * len(draws)
    assert expected.min() > 20
    assert chisquare(observed, expected).pvalue > FALSE_ALARM


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_probabilities_add_up_and_fall_by_e_to_the_epsilon(epsilon: Fraction):
    values = range(-400, 401)
    assert sum(probability(epsilon, value) for value in values) == pytest.approx(1)
    for value in (0, 1, 5):
        ratio = probability(epsilon, value) / probability(epsilon, value + 1)
        assert ratio == pytest.approx(np.exp(float(epsilon)))
    variance = sum(value**2 * probability(epsilon, value) for value in values)
    assert standard_deviation(float(epsilon)) == pytest.approx(variance**0.5)


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("terms", [1, 2, 13])
def test_a_margin_is_the_least_that_holds_the_noise(epsilon: Fraction, terms: int):
    most = 600
    of_one = np.array([probability(epsilon, value) for value in range(-most, most + 1)])
    mass = of_one
    for _ in itertools.repeat(None, terms - 1):
        mass = np.convolve(mass, of_one, mode="same")
    found = margin(epsilon, terms)
    assert mass[most - found : most + found + 1].sum() >= 0.95
    if found:
        assert mass[most - found + 1 : most + found].sum() < 0.95


def test_noise_comes_from_the_operating_system():
    """A seed would let whoever knows it take the noise away; no two draws of many share it either."""
    assert system_random is secrets.randbelow
    assert draw.__defaults__ == (secrets.randbelow,)
    first = [draw(Fraction(1, 50)) for _ in range(40)]
    assert first != [draw(Fraction(1, 50)) for _ in range(40)]


def test_no_floating_point_number_is_drawn_with():
    """Every number that the source is asked for is whole, also of an epsilon with many decimals."""
    asked = []

    def watched(limit: int) -> int:
        asked.append(limit)
        return secrets.randbelow(limit)

    for _ in range(50):
        discrete_laplace.draw(Fraction("0.123456789") / 7, watched)
    assert all(type(limit) is int for limit in asked)
