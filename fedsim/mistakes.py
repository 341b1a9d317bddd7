"""What ends a run without being a bug. The CLI prints these in a line; anything else shows its traceback."""

import traceback
from pathlib import Path


def place_of(error: BaseException) -> str:
    """Return where an error was raised: ``moon.py:56``."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"


def said_by(error: BaseException, private: bool = False) -> str:
    """Return what an error of somebody else's code says: its kind, its text and its place, in a line.

    Args:
        error: The error.
        private: Whether to leave out the text, which may hold values of a row.
    """
    text = "" if private else f": {text_of(error)}"
    return f"{type(error).__name__}{text} ({place_of(error)})"


def text_of(error: BaseException) -> str:
    """Return the text of an error of somebody else's code, in a line."""
    try:
        return " ".join(str(error).split())
    except Exception:
        return "its text can't be made"


class Mistake(ValueError):
    """A user's mistake: what was expected, what came and where. One line for each."""


class RunFailed(Exception):
    """A run that can't go on through nobody's mistake, such as a round in which no site answered usably."""


class CannotGoOn(OSError):
    """A run ended since a file could not be read or written; ``folder`` has what was finished."""

    def __init__(self, folder: Path, error: OSError) -> None:
        super().__init__(error.errno, error.strerror or str(error), error.filename)
        self.folder = folder


class TooLate(BaseException):
    """The time of somebody else's code is over. No ``except Exception`` of the code that hangs catches it."""


class Terminated(KeyboardInterrupt):
    """The system asked the process to end."""


class Interrupted(KeyboardInterrupt):
    """A run was stopped; ``folder`` has what was finished.

    Attributes:
        folder: The run directory.
        terminated: Whether the system asked for it, not the user.
    """

    def __init__(self, folder: Path, terminated: bool = False) -> None:
        super().__init__()
        self.folder = folder
        self.terminated = terminated


class StoppedByCaller(BaseException):
    """The caller's own function, which was told of a round, raised ``error``: the run ends, and it is the caller's."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


STOPS = (KeyboardInterrupt, TooLate, StoppedByCaller)
"""What passes through every guard around somebody else's code."""
