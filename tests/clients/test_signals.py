import numpy as np

from clients.signals import SECOND, UNLIKE, read_recordings, views, windows_of


def test_a_recording_is_cut_into_windows_in_its_order():
    signals = np.arange(6 * 55, dtype=np.int16).reshape(6, 55)
    windows = windows_of(signals, 25)
    assert windows.shape == (2, 6, 25)
    np.testing.assert_allclose(windows[1] * 127, signals[:, 25:50], rtol=1e-6)


def test_each_person_has_each_exercise_with_each_arm_once():
    recordings = read_recordings()
    seen = set(zip(recordings.site, recordings.exercise, recordings.is_right, strict=True))
    assert len(seen) == len(recordings.signals) == 10 * 7 * 2


def test_no_second_is_in_two_rows():
    """Else a second's gradient would be bounded in neither of them."""
    rows, _, _ = views()
    seconds = rows.reshape(-1, 6 * SECOND)
    assert len(np.unique(seconds, axis=0)) == len(seconds) == len(rows) * (2 + UNLIKE)


def test_a_rows_like_view_is_of_its_own_recording_and_the_unlike_ones_are_of_three_others():
    recordings = read_recordings()
    recording_of = {}
    for number, signals in enumerate(recordings.signals):
        for second in windows_of(signals, SECOND):
            recording_of[second.tobytes()] = number
    rows, sites, _ = views()
    for row, site in zip(rows, sites, strict=True):
        numbers = [recording_of[view.tobytes()] for view in row]
        assert numbers[0] == numbers[1]
        assert len(set(recordings.exercise[numbers])) == 1 + UNLIKE
        assert set(recordings.site[numbers]) == {site}
