"""Curves and intervals as they are drawn: where points lie, and what is told in words."""

import math

import pytest

from fedsim.ui import drawn
from fedsim.ui.drawn import intervals, panels


def test_a_curve_goes_from_left_to_right_and_a_larger_figure_is_higher():
    (panel,) = panels({("federated", False, 0): {1: 0.5, 2: 0.9}}, rounds=4, label="AUC")
    (line,) = panel.lines
    (x1, y1), (x2, y2) = [tuple(map(float, point.split(","))) for point in line.points.split()]
    width = drawn.WIDTH - drawn.LEFT - drawn.RIGHT
    assert (x1, x2) == pytest.approx((drawn.LEFT + width / 4, drawn.LEFT + width / 2), abs=0.1)
    assert drawn.TOP <= y2 < y1 <= drawn.HEIGHT - drawn.BOTTOM
    assert line.end == (x2, y2)
    assert panel.told == "Validation AUC, without privacy: federated 0.900 after round 2"
    assert [text for _, text in panel.columns] == ["0", "2", "4"]


def test_the_mean_is_over_the_seeds_and_a_line_for_each_where_asked():
    curves = {("local", True, 0): {1: 0.2, 2: 0.4}, ("local", True, 1): {1: 0.6}, ("local", False, 0): {}}
    (panel,) = panels(curves, 2, "AUC")
    assert panel.title == "with privacy"
    assert [line.last for line in panel.lines] == ["0.400"]
    (panel,) = panels(curves, 2, "AUC", by_seed=True)
    assert [line.last for line in panel.lines] == ["0.400", "0.600"]
    assert panel.arms == ["local"]


def test_nothing_is_drawn_of_nothing_and_a_level_curve_has_a_scale():
    assert panels({("local", True, 0): {}}, 3, "AUC") == []
    (panel,) = panels({("local", True, 0): {1: 0.5, 2: 0.5}}, 2, "AUC")
    heights = [y for y, _ in panel.rows]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] > heights[-1]


def test_a_long_curve_is_thinned_and_keeps_its_last_point():
    (panel,) = panels({("local", True, 0): {number: 1.0 / number for number in range(1, 5001)}}, 5000, "AUC")
    points = panel.lines[0].points.split()
    assert len(points) <= 402
    assert points[-1].startswith(f"{drawn.WIDTH - drawn.RIGHT}")


def test_intervals_share_one_scale():
    wide, narrow, none, unknown = intervals(
        [(0.5, 0.0, 1.0), (0.5, 0.4, 0.6), (1.0, math.nan, math.nan), (math.nan, math.nan, math.nan)]
    )
    assert wide is not None
    assert narrow is not None
    assert none is not None
    assert wide.low < narrow.low < narrow.middle == wide.middle < narrow.high < wide.high  # type: ignore[operator]
    assert (none.middle, none.low) == (wide.high, None)
    assert unknown is None
