"""What commands write: to the terminal, as JSON, and when they fail."""

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console, RenderableType

from fedsim.experiments import progress
from fedsim.mistakes import Interrupted, Terminated

if TYPE_CHECKING:
    from pathlib import Path

FAILURE = 1
USAGE = 2
INTERRUPTED = 130
TERMINATED = 143

_PIPED_WIDTH = 200  # of tables in a file or pipe, which are not cut


def print_json(value: Any) -> None:  # noqa: ANN401  anything JSON can hold
    """Write one JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def print_table(table: RenderableType, piped_width: int = _PIPED_WIDTH) -> None:
    """Write a table as wide as the terminal; into a pipe, as wide as is given."""
    _console(piped_width).print(table)


def print_lines(lines: Iterable[str]) -> None:
    """Write sentences. A terminal gets them broken between words; a file or pipe gets each as one line."""
    console = _console(_PIPED_WIDTH)
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def print_places(places: "Mapping[str, str | Path]") -> None:
    """Write ``report: runs/heart/report.html``, a line for each file, unbroken: a path is there to be copied."""
    console = _console(_PIPED_WIDTH)
    width = max(map(len, places), default=0) + 1
    for name, place in places.items():
        console.print(f"{name + ':':<{width}} {place}", markup=False, highlight=False, soft_wrap=True)


def print_text(text: str) -> None:
    """Write text as it is."""
    _console(_PIPED_WIDTH).print(text, markup=False, highlight=False, soft_wrap=True)


def _console(piped_width: int) -> Console:
    return Console() if sys.stdout.isatty() else Console(width=piped_width)


@contextlib.contextmanager
def waiting(quiet: bool, as_json: bool) -> Iterator[progress.Progress]:
    """Show progress at once, before anything heavy is imported; say how to go on when interrupted."""
    try:
        with progress.shown(wanted=not quiet, lines=not as_json) as tell:
            yield tell
    except Interrupted as stop:
        what, code = _ended(stop.terminated)
        fail(f"{what}; go on with: fedsim resume {stop.folder}", code)
    except KeyboardInterrupt as stop:
        fail(*_ended(isinstance(stop, Terminated)))


def _ended(terminated: bool) -> tuple[str, int]:
    """Return how a command ended that was stopped, and its exit code."""
    return ("terminated", TERMINATED) if terminated else ("interrupted", INTERRUPTED)


def fail(message: str, code: int) -> NoReturn:
    """End with an exit code and a line for each mistake."""
    for line in message.splitlines():
        sys.stderr.write(f"fedsim: {line}\n")
    sys.exit(code)
