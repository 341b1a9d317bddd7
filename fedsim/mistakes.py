"""What ends a run without being a bug. The CLI prints these in a line; anything else shows its traceback."""

from pathlib import Path


class Mistake(ValueError):
    """A user's mistake: what was expected, what came and where. One line for each."""


class RunFailed(Exception):
    """A run that can't go on through nobody's mistake, such as a round in which no site answered usably."""


class Interrupted(KeyboardInterrupt):
    """The user stopped a run; ``folder`` has what was finished."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
