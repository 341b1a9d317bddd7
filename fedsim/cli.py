"""The command line: ``fedsim run``, ``resume``, ``list``, ``show`` and ``report``.

Only what a command needs is imported, inside it: ``fedsim --help`` and ``fedsim list`` must not wait for torch.
"""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from fedsim import catalog
from fedsim.mistakes import Mistake

if TYPE_CHECKING:
    from fedsim.results import Run

app = typer.Typer(
    help="Simulate federated learning: hospitals, banks and schools train together, with differential privacy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_USAGE, _FAILURE = 2, 1
_DASH = "–"

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
RunDirectory = Annotated[Path | None, typer.Argument(help="A run directory; the newest under runs/ if left out.")]


def main() -> None:
    """Run the command line; a user's mistake ends in one line per mistake and exit code 2."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except Mistake as mistake:
        _fail(str(mistake), _USAGE)
    except (RuntimeError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(_FAILURE)
        if os.environ.get("FEDSIM_DEBUG"):
            raise
        _fail(str(error), _FAILURE)


@app.command()
def run(
    scenario: Annotated[str, typer.Argument(help="A scenario's name (see `fedsim list`) or a .toml file.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a value: privacy.epsilon=2.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="How many seeds.")] = None,
    seed: Annotated[int | None, typer.Option(help="The first seed.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run directory to make [runs/SCENARIO-DATE].")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a scenario: federated against centralized against local-only."""
    from fedsim.scenario import read  # noqa: PLC0415

    numbers = [f"{key}={value}" for key, value in (("seed", seed), ("seeds", seeds)) if value is not None]
    chosen = read(scenario, [*(changes or []), *numbers])
    from fedsim.experiment import execute  # noqa: PLC0415

    with _progress() as progress:
        finished = execute(chosen, out, progress)
    _print_run(finished, as_json)


@app.command()
def resume(
    run_dir: Annotated[Path, typer.Argument(help="The directory of an interrupted run.")], as_json: JsonFlag = False
) -> None:
    """Go on with an interrupted run; what was finished is not run again."""
    from fedsim import experiment  # noqa: PLC0415

    with _progress() as progress:
        finished = experiment.resume(run_dir, progress)
    _print_run(finished, as_json)
