"""Progress of long work: a bar on a terminal and in a notebook, a line now and then elsewhere.

It imports nothing heavy: the command line shows it before it waits for torch.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]
"""Called with (the training or attack at work, steps done, steps in all)."""

SECONDS_BETWEEN_LINES = 20.0
_LABEL_WIDTH = 32


@contextmanager
def shown(wanted: bool = True, lines: bool = True) -> Iterator[Progress]:
    """Show progress on the standard error stream while the body runs.

    Args:
        wanted: Whether to show anything.
        lines: Whether to write a line now and then where there is neither a terminal nor a notebook.
    """
    if not wanted:
        yield _silent
        return

    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal or console.is_jupyter:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        label = TextColumn(f"{{task.description:<{_LABEL_WIDTH}}}", markup=False)
        columns = (label, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bar(*columns, console=console, transient=True) as bar:
            task = bar.add_task("getting ready", total=None)
            yield lambda label, done, total: bar.update(task, description=label, completed=done, total=total)
    elif lines:
        yield _Lines()
    else:
        yield _silent


@contextmanager
def told(progress: bool | Progress) -> Iterator[Progress]:
    """Show progress, or call a function of the caller's, while the body runs.

    Args:
        progress: Whether to show it; or the function.
    """
    if callable(progress):
        yield progress
        return
    with shown(progress) as tell:
        yield tell


def _silent(label: str, done: int, total: int) -> None:
    """Show nothing."""


class _Lines:
    """Writes ``fedsim: federated, seed 3: 120 of 600 after 40 s``, at most one line in so many seconds."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._written = self._begun

    def __call__(self, label: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._written < SECONDS_BETWEEN_LINES:
            return
        self._written = now
        sys.stderr.write(f"fedsim: {label}: {done} of {total} after {now - self._begun:.0f} s\n")
        sys.stderr.flush()
