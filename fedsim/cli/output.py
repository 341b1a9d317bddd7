"""What commands write: to the terminal, as JSON, and when they fail."""

import contextlib
import json
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from rich.console import Console, RenderableType
from rich.segment import Segment, Segments

from fedsim.experiments import progress
from fedsim.mistakes import Interrupted, Terminated

if TYPE_CHECKING:
    from pathlib import Path

FAILURE = 1
USAGE = 2
INTERRUPTED = 130
TERMINATED = 143

_PIPED_WIDTH = 200  # of tables in a file or pipe, which are not cut
_LAYOUT = "\n\t"
_TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def print_json(value: Any) -> None:  # noqa: ANN401  anything JSON can hold
    """Write one JSON document."""
    document = _documents[-1] if _documents else sys.stdout
    document.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def print_table(table: RenderableType, piped_width: int = _PIPED_WIDTH) -> None:
    """Write a table as wide as the terminal; into a pipe, as wide as is given."""
    console = _console(piped_width)
    segments = [_printable_segment(segment) for segment in console.render(table)]
    console.print(Segments(segments), end="")


def printable(text: str) -> str:
    """Return a text in which what a terminal would obey is written out: a stranger may have named a site so."""
    if text.isprintable():
        return text
    return "".join(_written_out(one) if _is_obeyed(one) else one for one in text)


def _is_obeyed(character: str) -> bool:
    """Whether a character steers a terminal: a control character, or one that turns the direction of what follows."""
    return (unicodedata.category(character) == "Cc" and character not in _LAYOUT) or character in _TURNING


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _printable_segment(segment: Segment) -> Segment:
    if segment.control:
        return segment
    return Segment(printable(segment.text), segment.style)


def print_lines(lines: Iterable[str]) -> None:
    """Write sentences. A terminal gets them broken between words; a file or pipe gets each as one line."""
    console = _console(_PIPED_WIDTH)
    for line in lines:
        console.print(printable(line), markup=False, highlight=False, soft_wrap=not console.is_terminal)


def print_places(places: "Mapping[str, str | Path]") -> None:
    """Write ``report: runs/heart/report.html``, a line for each file, unbroken: a path is there to be copied."""
    console = _console(_PIPED_WIDTH)
    width = max(map(len, places), default=0) + 1
    for name, place in places.items():
        console.print(printable(f"{name + ':':<{width}} {place}"), markup=False, highlight=False, soft_wrap=True)


def print_text(text: str) -> None:
    """Write text as it is."""
    _console(_PIPED_WIDTH).print(printable(text), markup=False, highlight=False, soft_wrap=True)


def _console(piped_width: int) -> Console:
    return Console() if sys.stdout.isatty() else Console(width=piped_width)


@contextlib.contextmanager
def waiting(quiet: bool, as_json: bool) -> Iterator[progress.Progress]:
    """Show progress at once, before anything heavy is imported; say how to go on when interrupted.

    Under ``--json`` what somebody else's code prints goes to the standard error stream, out of the document.
    """
    printed = _only_documents() if as_json else contextlib.nullcontext()
    try:
        with progress.shown(wanted=not quiet, lines=not as_json) as tell, printed:
            yield tell
    except Interrupted as stop:
        what, code = _ended(stop.terminated)
        fail(f"{what}; go on with: fedsim resume {stop.folder}", code)
    except KeyboardInterrupt as stop:
        fail(*_ended(isinstance(stop, Terminated)))


_documents: list[TextIO] = []
"""Where documents are written, while all else that is printed goes elsewhere; the last one counts."""


@contextlib.contextmanager
def _only_documents() -> Iterator[None]:
    _documents.append(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _documents.pop()


def _ended(terminated: bool) -> tuple[str, int]:
    """Return how a command ended that was stopped, and its exit code."""
    return ("terminated", TERMINATED) if terminated else ("interrupted", INTERRUPTED)


def fail(message: str, code: int) -> NoReturn:
    """End with an exit code and a line for each mistake."""
    for line in message.splitlines():
        sys.stderr.write(f"fedsim: {printable(line)}\n")
    sys.exit(code)
