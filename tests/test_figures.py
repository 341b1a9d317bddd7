"""How numbers are written: signs, digits, bounds that stay bounds."""

import math
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.figures import (
    as_written,
    bounds,
    coefficient,
    epsilon,
    figure,
    margin,
    proven_epsilon,
    setting,
    share,
    with_article,
)
from fedsim.outcomes import names, outcome_of

NAN = math.nan


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (0.8951, False, "0.895"),
        (0.014, True, "+0.014"),
        (-0.0021, True, "−0.002"),
        (0.0002, True, "+0.0002"),
        (-0.00001, True, "0.0000"),
        (0.0, True, "0.000"),
        (-0.0, False, "0.000"),
        (1234.56, False, "1234.6"),
        (NAN, True, "–"),
    ],
)
def test_figures_have_the_digits_that_say_something(value: float, signed: bool, text: str):
    assert figure(value, signed) == text


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.014, 0.01, 0.018, "+0.014 ± 0.004"),
        (0.9, 0.7, 1.0, "+0.900 ± 0.200"),
        (0.9, 0.9, 0.9, "+0.900 ± <0.001"),
        (0.014, NAN, NAN, "+0.014"),
        (NAN, NAN, NAN, "–"),
    ],
)
def test_a_margin_is_the_longer_half_of_an_interval(value: float, low: float, high: float, text: str):
    assert margin(value, low, high, signed=True) == text


def test_the_ends_of_an_interval_can_be_told_apart():
    assert bounds(0.843, 0.947) == "0.843 to 0.947"
    assert bounds(0.84301, 0.84309) == "0.8430 to 0.8431"
    assert bounds(NAN, 1.0) == "–"


@given(st.floats(1e-6, 1e4))
def test_an_upper_bound_stays_one_and_a_lower_bound_stays_one(value: float):
    """Up to a millionth of a digit, which is what floating point does to 2.00."""
    assert float(epsilon(value)) >= value - 1e-8
    assert float(epsilon(value)) < value + 0.01
    assert float(proven_epsilon(value)) <= value + 1e-8
    assert float(proven_epsilon(value)) > value - 0.01


def test_an_epsilon_that_is_no_number_is_a_word():
    assert (epsilon(math.inf), epsilon(NAN)) == ("unbounded", "–")
    assert (proven_epsilon(math.inf), proven_epsilon(NAN)) == ("unbounded", "–")
    assert (epsilon(2.0), epsilon(7.951), proven_epsilon(7.959)) == ("2.00", "7.96", "7.95")


def test_shares_and_settings():
    assert (share(0.123), share(0.123, 1), share(NAN)) == ("12%", "12.3%", "–")
    assert (setting(1e-4), setting(8.0), setting(1e-12)) == ("0.0001", "8", "1e-12")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float64(math.inf), "inf"),
        (np.float64(0.5), "0.5"),
        (np.int64(3), "3"),
        (np.bool_(True), "true"),
        (False, "false"),
        ("adam", "'adam'"),
        (date(2026, 1, 31), "2026-01-31"),
        ([1, "a"], "[1, 'a']"),
    ],
)
def test_a_value_that_came_is_written_as_it_was_meant(value: object, text: str):
    assert as_written(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.17, "+0.170"),
        (-0.0016373, "−0.00164"),
        (12.34, "+12.3"),
        (3100.4, "+3100"),
        (-0.00001234, "−1.23e−05"),
        (12345678.0, "+1.23e+07"),
        (0.0, "0"),
        (NAN, "–"),
    ],
)
def test_a_coefficient_has_a_sign_and_three_digits(value: float, text: str):
    assert coefficient(value) == text


def test_each_kinds_headline_gets_the_article_that_its_sound_asks_for():
    labels = {outcome_of(kind).metrics[0].label for kind in names()}
    assert {with_article(label).partition(" of")[0].partition(",")[0] for label in labels} == {
        "an AUC",
        "an R²",
        "an accuracy",
        "a concordance",
        "an explained variance",
        "a share",
    }
    assert with_article("RMSE") == "an RMSE"
    assert with_article("Brier score over time") == "a Brier score over time"
