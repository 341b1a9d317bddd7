import math

import pytest

from fedsim.mistakes import Mistake
from fedsim.privacy.calibration.search import least_noise


class Curve:
    """An epsilon that falls as a power of the noise, and that counts how often it is asked."""

    def __init__(self, scale: float = 3.0, steepness: float = 1.5) -> None:
        self.scale = scale
        self.steepness = steepness
        self.asked: list[float] = []

    def __call__(self, noise: float) -> float:
        self.asked.append(noise)
        return self.scale * noise**-self.steepness


def least_of_four_digits(curve: Curve, target: float) -> float:
    """Return the answer by the formula, rounded up."""
    root = (curve.scale / target) ** (1 / curve.steepness)
    unit = 10.0 ** (math.floor(math.log10(root)) - 3)
    return math.ceil(root / unit) * unit


@pytest.mark.parametrize("target", [0.013, 0.5, 1.0, 2.9, 7.7])
def test_the_least_noise_of_four_digits_is_found_by_two_exact_values_at_most(target: float):
    exact = Curve()
    found = least_noise(exact, Curve(), target, guess=1.0, least=1e-3)
    assert found == pytest.approx(least_of_four_digits(exact, target), rel=1e-9)
    assert exact(found) <= target
    assert len(exact.asked) - 1 <= 2


@pytest.mark.parametrize("wrong", [0.5, 0.9, 0.999, 1.001, 1.1, 2.0])
@pytest.mark.parametrize("steepness", [1.2, 1.5, 2.0])
def test_a_wrong_estimate_does_not_change_the_answer(wrong: float, steepness: float):
    exact = Curve()
    found = least_noise(exact, Curve(3.0 * wrong, steepness), 1.0, guess=1.0, least=1e-3)
    assert found == pytest.approx(least_of_four_digits(exact, 1.0), rel=1e-9)
    assert found in exact.asked


def test_an_estimate_that_promises_too_much_is_not_believed():
    def far_too_low(noise: float) -> float:
        return 1e-6 / noise

    exact = Curve()
    found = least_noise(exact, far_too_low, 1.0, guess=1.0, least=0.3)
    assert exact(found) <= 1.0


def test_the_least_noise_that_is_allowed_may_be_enough():
    exact = Curve()
    assert least_noise(exact, Curve(), 1e6, guess=1.0, least=0.3) == 0.3
    assert exact.asked == [0.3]


def test_a_target_that_no_noise_reaches_is_refused():
    def never(noise: float) -> float:
        return 5.0 + 1 / noise

    with pytest.raises(Mistake, match="more noise than a multiplier of 1e\\+06"):
        least_noise(never, never, 1.0, guess=1.0, least=0.3)
    with pytest.raises(Mistake, match="more noise than a multiplier of 1e\\+06"):
        least_noise(never, Curve(), 1.0, guess=1.0, least=0.3)


@pytest.mark.parametrize("enough", [0.4, 0.01, 0.99])
def test_an_epsilon_of_zero_says_that_less_noise_may_do(enough: float):
    """As where delta alone covers all that a step tells."""

    def nothing_told(noise: float) -> float:
        return 0.0 if noise >= enough else 10.0

    found = least_noise(nothing_told, Curve(3.0), 3.0, guess=1.0, least=1e-3)
    assert found == pytest.approx(enough)
