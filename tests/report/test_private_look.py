"""What a private page makes of its noisy counts, and how panels are chosen and drawn."""

from fractions import Fraction

import numpy as np
import pytest

from fedsim.data.own_table.looking.histograms import Histogram
from fedsim.privacy.looks import noisy, shared_out
from fedsim.report.look_panels import MOST_SITES, Noise, counts_table, panels, site_groups
from fedsim.report.private_look import rows_by_site
from tests.privacy.test_discrete_laplace import source


def histogram(counts: np.ndarray, scale: str = "numbers", apart: int = 1) -> Histogram:
    labels = tuple(f"b{number}" for number in range(counts.shape[1]))
    return Histogram("age", "feature", scale, labels, apart, counts, ("0", "9"))  # type: ignore[arg-type]


@pytest.mark.whole
def test_the_rows_of_a_site_are_estimated_with_the_error_that_is_stated():
    """400 looks: the mean error is 0, and intervals of 1.96 standard deviations hold the rows in 95 % of them."""
    shapes = {"age": (2, 11), "sex": (2, 4), "ill": (2, 3)}
    truth = np.array([70, 0])
    releases = shared_out(Fraction(1), shapes)
    below = source("rows by site")
    errors = []
    deviation = 0.0
    for _ in range(400):
        drawn = []
        for release in releases:
            counts = np.zeros((2, release.bins), np.int64)
            counts[0, 0] = 70
            drawn.append(histogram(noisy(counts, release, below)))
        estimate, deviation = rows_by_site(drawn, releases)
        errors.extend(estimate - truth)
    spread = np.std(errors)
    assert abs(np.mean(errors)) < 5 * deviation / len(errors) ** 0.5
    assert spread == pytest.approx(deviation, rel=0.16)  # six standard errors of a spread of 800
    assert np.mean(np.abs(errors) <= 1.96 * deviation) == pytest.approx(0.95, abs=0.04)

    # Better than the best histogram alone.
    alone = [(release.bins * 2) ** 0.5 / float(release.epsilon) for release in releases]
    assert deviation < min(alone)


def test_the_largest_sites_have_a_panel_each_and_the_others_one_together():
    rows = [float(5 * (number % 7) + number) for number in range(30)]
    groups = site_groups([f"s{number}" for number in range(30)], rows, lambda members: f"{len(members)}")
    assert groups[0].members == tuple(range(30))
    alone = [group.members[0] for group in groups[1:-1]]
    assert len(alone) == MOST_SITES
    assert alone == sorted(alone)
    assert min(rows[number] for number in alone) >= max(rows[number] for number in groups[-1].members)
    assert groups[-1].name == "other 18 sites"
    assert sorted([*alone, *groups[-1].members]) == list(range(30))


def test_counts_of_several_sites_are_added_up_with_the_margin_of_their_sum():
    counts = np.arange(12).reshape(3, 4)
    groups = site_groups(["a", "b", "c"], [1, 2, 3], lambda members: "")
    (first, *_) = panels(histogram(counts, "levels"), groups, Noise(lambda terms: 10 * terms))
    assert [bar.text for bar in first.bars] == ["12 ± 30", "15 ± 30", "18 ± 30", "21 ± 30"]
    assert [bar.is_apart for bar in first.bars] == [False, False, False, True]
    assert counts_table(histogram(counts), groups)[2] == ("b2", ["18", "2", "6", "10"])


def test_a_count_below_zero_is_drawn_as_zero_and_written_as_it_is():
    counts = np.array([[-4, 8]])
    groups = site_groups(["all rows"], [4], lambda members: "")
    bars = panels(histogram(counts, "levels", 0), groups, Noise(lambda terms: 2))[0].bars
    assert (bars[0].length, bars[0].text) == (0.0, "−4 ± 2")
    assert (bars[1].low, bars[1].length, bars[1].high) == (60.0, 80.0, 100.0)
    picture = panels(histogram(counts), groups, Noise(lambda terms: 2))[0].picture
    assert "V64.0" in picture


def test_names_are_escaped_in_pictures():
    table = histogram(np.array([[1, 2]]))
    groups = site_groups(['<b>"x'], [3], lambda members: "")
    assert "<b>" not in panels(table, groups)[0].picture
