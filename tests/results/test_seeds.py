"""How many seeds tell a difference apart: against a simulation, and where no number of seeds can."""

import math

import numpy as np
import pytest

from fedsim.results.multiple_comparisons import differences
from fedsim.results.seeds import MOST_SEEDS, seeds_needed

SPREAD = np.array([-0.02, 0.0, 0.02])  # a standard deviation of .02


def test_that_many_seeds_find_the_difference_four_times_out_of_five():
    """2000 draws of so many seeds: the share that is told apart is .8 within three standard errors."""
    needed = int(seeds_needed(SPREAD, 0.02, overlap=0.0))
    random = np.random.default_rng(4)
    found = 0
    for _ in range(2000):
        change = random.normal(0.02, 0.02, needed)
        scores = np.stack([change, np.zeros(needed)], axis=1)
        found += differences(scores, overlap=0.0).verdict(0, 1) == "higher"
    assert found / 2000 == pytest.approx(0.8, abs=0.04)


def test_smaller_differences_and_more_comparisons_take_more_seeds():
    wide, narrow = seeds_needed(SPREAD, 0.02, 0.0), seeds_needed(SPREAD, 0.005, 0.0)
    assert wide < narrow
    assert wide < seeds_needed(SPREAD, 0.02, 0.0, comparisons=10)


def test_where_records_are_the_limit_no_number_of_seeds_suffices():
    assert seeds_needed(SPREAD, 0.01, overlap=1 / 3) == math.inf
    assert seeds_needed(SPREAD, 0.0001, overlap=0.0) == math.inf
    assert seeds_needed(SPREAD, 0.2, overlap=1 / 3) < MOST_SEEDS


@pytest.mark.parametrize("known", [[0.1, 0.2], [0.1, 0.1, 0.1], [0.1, math.nan, 0.2]])
def test_without_a_spread_nothing_is_said(known: list[float]):
    assert math.isnan(seeds_needed(np.array(known), 0.01, 0.0))
