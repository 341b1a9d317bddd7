import numpy as np
import pytest

from fedsim.data.follow_up import FollowUp
from fedsim.data.loading import check_examples
from fedsim.data.task import Rows, Task
from fedsim.mistakes import Mistake

YEARS = FollowUp((1, 2, 4), "years")
INPUTS = np.zeros((2, 1), np.float32)


@pytest.mark.parametrize(
    ("time", "event", "target"),
    [
        (0, 1, (0, 1)),
        (1, 1, (0, 1)),  # at an interval's end, which is in it
        (1.01, 1, (1, 1)),
        (4, 1, (2, 1)),
        (4.01, 1, (3, 0)),  # the event came after the horizon
        (0.49, 0, (0, 0)),
        (0.5, 0, (1, 0)),  # from the middle of an interval on, it counts as survived
        (2.9, 0, (2, 0)),
        (3, 0, (3, 0)),
        (99, 0, (3, 0)),
    ],
)
def test_a_time_becomes_intervals_survived_and_an_event(time: float, event: int, target: tuple[int, int]):
    found = YEARS.intervals(np.array([time]), np.array([event]))
    assert found.dtype == np.float32
    assert tuple(found[0]) == target


@pytest.mark.parametrize("ends", [(), (0, 1), (2, 1), (1, 1), (1, np.inf), (-1, 2), (1, np.nan)])
def test_ends_ascend_from_above_zero(ends: tuple[float, ...]):
    with pytest.raises(Mistake, match="expected the ends of intervals, ascending and above 0"):
        FollowUp(ends, "years")


@pytest.mark.parametrize(("time", "event"), [(-1, 1), (np.nan, 0), (np.inf, 0), (1, 2), (1, np.nan)])
def test_times_and_events_are_there_and_possible(time: float, event: float):
    with pytest.raises(Mistake, match=r"expected a time of 0 or more|expected an event of 0 or 1"):
        YEARS.intervals(np.array([time]), np.array([event]))


def task(kind: str, follow_up: FollowUp | None) -> Task:
    return Task("Falls", "a fall", "made up", (), lambda inputs: None, lambda: None, kind=kind, follow_up=follow_up)


def test_survival_has_a_follow_up_and_no_other_kind_has():
    for kind, follow_up in (("survival", None), ("binary", YEARS)):
        with pytest.raises(Mistake, match="expected the follow-up's public intervals with kind 'survival' and only"):
            task(kind, follow_up)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ([[3, 0], [3, 1]], "at most 3 intervals in each row, those of the follow-up"),
        ([[4, 0], [0, 1]], "at most 3 intervals"),
        ([[0.5, 0], [0, 1]], "a whole number of intervals"),
        ([[-1, 0], [0, 1]], "a whole number of intervals"),
        ([[1, 2], [0, 1]], "an event of 0 or 1"),
        ([[1, np.nan], [0, 1]], "an event of 0 or 1"),
        ([1, 0], r"shape \(rows, 2\)"),
    ],
)
def test_targets_that_name_no_interval_are_told(target: list, message: str):
    rows = Rows(INPUTS, np.array(target, np.float32), np.array(["a", "b"]))
    with pytest.raises(Mistake, match=message):
        check_examples("task", task("survival", YEARS), rows.inputs, rows.target)
