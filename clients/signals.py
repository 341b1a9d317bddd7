"""Recordings of a smartwatch on the wrist, cut into windows that don't overlap."""

from dataclasses import dataclass
from importlib.resources import files

import numpy as np

LARGEST_BYTE = np.float32(127)
UNLIKE = 3
"""The unlike windows of a row for the contrastive kind."""

SECOND = 25  # moments
_TAKEN = 2 + UNLIKE  # windows that a row and the rows it lends to take of each recording


@dataclass(frozen=True)
class Recordings:
    """The 140 recordings of ten persons: each exercise of each person with each arm.

    Attributes:
        signals: Each recording, int8 (6, moments), 25 moments a second.
        site: The name of each recording's person, str (recordings,).
        exercise: The number of the exercise, (recordings,).
        is_right: Whether the right arm did it, (recordings,).
    """

    signals: list[np.ndarray]
    site: np.ndarray
    exercise: np.ndarray
    is_right: np.ndarray


def read_recordings() -> Recordings:
    """Read the file that is carried."""
    path = files("clients") / "data" / "shoulder_exercises_10_persons.npz"
    with path.open("rb") as file, np.load(file) as arrays:
        ends = np.cumsum(arrays["lengths"])
        return Recordings(
            signals=np.split(arrays["signals"], ends[:-1], axis=1),
            site=np.array([f"person-{person:02}" for person in arrays["person"]]),
            exercise=arrays["exercise"],
            is_right=arrays["right"] == 1,
        )


def windows_of(signals: np.ndarray, moments: int) -> np.ndarray:
    """Cut a recording into whole windows: int8 (6, all moments) to float32 (windows, 6, moments) in [-1, 1]."""
    count = signals.shape[1] // moments
    whole = signals[:, : count * moments].reshape(len(signals), count, moments)
    return whole.swapaxes(0, 1).astype(np.float32) / LARGEST_BYTE


def views() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Put seconds of exercises together for the contrastive kind, each in one row only.

    A person does the seven exercises with an arm in as many recordings. Of every five seconds of a recording, the first
    two are a row's own second and its like, and the other three are unlike views in rows of three other exercises.

    Returns:
        Views, float32 (rows, 2 + UNLIKE, 6, SECOND): the row's own second, its like, the unlike ones; the site of each
        row, a person; and how far in the recordings the row is, from 0 to 1.
    """
    recordings = read_recordings()
    rows = []
    sites = []
    times = []
    for person in np.unique(recordings.site):
        for is_right in (False, True):
            chosen = np.flatnonzero((recordings.site == person) & (recordings.is_right == is_right))
            seconds = [windows_of(recordings.signals[number], SECOND) for number in chosen]
            turns = min(map(len, seconds)) // _TAKEN
            for turn in range(turns):
                rows += _rows_of_turn(seconds, turn * _TAKEN)
                sites += [person] * len(seconds)
                times += [turn / turns] * len(seconds)
    return np.stack(rows), np.array(sites), np.array(times)


def _rows_of_turn(seconds: list[np.ndarray], start: int) -> list[np.ndarray]:
    """Make a row for each exercise, (2 + UNLIKE, 6, SECOND), from the five seconds that begin at ``start``."""
    rows = []
    for exercise, own in enumerate(seconds):
        row = [own[start], own[start + 1]]
        for ahead in range(1, UNLIKE + 1):
            other = seconds[(exercise + ahead) % len(seconds)]
            row.append(other[start + 1 + ahead])  # a place for each ``ahead``, so that no second is lent twice
        rows.append(np.stack(row))
    return rows
