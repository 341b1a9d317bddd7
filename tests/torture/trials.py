"""What the trials of ``make torture`` share: how often something was tried, and what went wrong."""

import random
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from fedsim.mistakes import CannotGoOn, Mistake, RunFailed

SECONDS = 60
"""After so long a trial counts as one that hangs."""

FORESEEN = (Mistake, RunFailed, CannotGoOn, SystemExit)
"""How a trial may end without a result: with a line, and no traceback."""


class Hangs(BaseException):
    """A trial took too long. No ``except Exception`` of what is tried catches it."""


@dataclass
class Tried:
    """The result of some trials of one kind.

    Attributes:
        what: The kind.
        count: How many there were.
        wrong: What went wrong, in a line for each.
        facts: Figures for the table.
    """

    what: str
    count: int = 0
    wrong: list[str] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)

    def attempt(self, name: str, trial: Callable[[], str | None]) -> None:
        """Run a trial, which returns what is wrong; a traceback and a hang are, too.

        Args:
            name: What is tried, for the line.
            trial: The trial.
        """
        self.count += 1
        try:
            with limited(SECONDS):
                fault = trial()
        except FORESEEN:
            return
        except Hangs:
            fault = f"hangs for more than {SECONDS} s"
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            fault = f"traceback: {type(error).__name__}: {str(error)[:120]} ({last.filename}:{last.lineno})"
        if fault:
            self.wrong.append(f"{name}: {fault}")


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """End the body by ``Hangs`` after some seconds."""

    def end(*_: object) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def chooser(kind: str, seed: int) -> random.Random:
    """Return the random choices of one kind of trials."""
    return random.Random(f"{kind} {seed}")
