"""Reliability bins and the expected calibration error: right values, and all rows in some bin."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.results.calibration import BINS, calibration_error, reliability
from fedsim.results.evaluation import Answers


def answers(target: list[int], said: list, site: str = "a") -> Answers:
    return Answers(site, np.array(target), np.array(said, dtype=float), {})


def test_the_bins_of_a_binary_outcome_hold_rows_sums_and_positives():
    bins = reliability([answers([1, 0], [0.05, 0.95]), answers([1, 1], [1.0, 0.12], "b")], "binary")
    assert list(bins["rows"]) == [1, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert bins["said"].to_numpy() == pytest.approx([0.05, 0.12, 0, 0, 0, 0, 0, 0, 0, 1.95])
    assert list(bins["seen"]) == [1, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert calibration_error(bins) == pytest.approx((0.95 + 0.88 + 0.95) / 4)


def test_of_classes_the_one_that_is_named_counts():
    said = [[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]
    bins = reliability([answers([0, 1], said)], "classes")
    assert bins["rows"].sum() == 2
    assert bins["said"].sum() == pytest.approx(0.7 + 0.6)
    assert bins["seen"].sum() == 1  # the second row is of class 1, and class 2 is named
    assert calibration_error(bins) == pytest.approx((0.3 + 0.6) / 2)


def test_a_model_that_is_as_sure_as_it_is_right_has_no_error():
    bins = reliability([answers([1, 0, 0, 0, 1, 1, 1, 0], [0.25] * 4 + [0.75] * 4)], "binary")
    assert calibration_error(bins) == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_every_row_is_in_one_bin_and_the_error_is_a_share(rows: list[tuple[float, bool]]):
    """Oracle: the definition, row by row."""
    said = [probability for probability, _ in rows]
    bins = reliability([answers([int(seen) for _, seen in rows], said)], "binary")
    assert len(bins) == BINS
    assert bins["rows"].sum() == len(rows)
    naive = 0.0
    for number in range(BINS):
        inside = [row for row in rows if min(int(row[0] * BINS), BINS - 1) == number]
        if inside:
            naive += abs(sum(probability for probability, _ in inside) - sum(seen for _, seen in inside))
    assert calibration_error(bins) == pytest.approx(naive / len(rows), abs=1e-9)
    assert 0 <= calibration_error(bins) <= 1


@pytest.mark.parametrize("said", [[np.nan, 0.5], [np.inf, 0.1]])
def test_a_model_that_broke_has_no_bins(said: list[float]):
    assert reliability([answers([0, 1], said)], "binary").empty


def test_numbers_and_sites_without_rows_have_no_bins():
    assert reliability([answers([0], [0.3])], "number").empty
    assert reliability([answers([], [])], "binary").empty
