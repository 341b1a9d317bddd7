"""The command line, ``fedsim``: which commands there are, and how it ends. Each command has a file of its own.

Only what a command needs is imported, inside it: ``fedsim --help`` and ``fedsim list`` must not wait for torch.
"""

import codecs
import io
import os
import signal
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from fedsim import memory
from fedsim.cli import audit, check, check_data, compare, doctor, look, merge, privacy, report, run, show
from fedsim.cli.deciding import sweep, tune
from fedsim.cli.federation import deploy, flower
from fedsim.cli.help import Command, examples
from fedsim.cli.local import ui
from fedsim.cli.models import explain, export, predict
from fedsim.cli.output import FAILURE, TERMINATED, USAGE, fail
from fedsim.cli.releases import survival
from fedsim.mistakes import CannotGoOn, Mistake, RunFailed, Terminated

_DISTRIBUTION = "fedsim-flower"

app = typer.Typer(
    help="Simulate federated learning: hospitals, banks and schools train together, with differential privacy.",
    epilog=examples(
        "list scenarios",
        "run hospital-heart --epsilon 2",
        "compare synthetic-attacked --strategy fedavg,median --attack none,own",
        "audit hospital-heart",
        "run --help",
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # brackets in a help text are brackets
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _function, _examples in (
    ("run", run.run, run.EXAMPLES),
    ("resume", run.resume, run.RESUME_EXAMPLES),
    ("merge", merge.merge, merge.EXAMPLES),
    ("compare", compare.compare, compare.EXAMPLES),
    ("sweep", sweep.sweep, sweep.EXAMPLES),
    ("tune", tune.tune, tune.EXAMPLES),
    ("list", show.list_names, show.LIST_EXAMPLES),
    ("show", show.show, show.EXAMPLES),
    ("check", check.check, check.EXAMPLES),
    ("check-data", check_data.check_data, check_data.EXAMPLES),
    ("look", look.look, look.EXAMPLES),
    ("report", report.report, report.EXAMPLES),
    ("groups", report.groups, report.GROUPS_EXAMPLES),
    ("export", export.export, export.EXAMPLES),
    ("predict", predict.predict, predict.EXAMPLES),
    ("ui", ui.ui, ui.EXAMPLES),
    ("explain", explain.explain, explain.EXAMPLES),
    ("survival", survival.survival, survival.EXAMPLES),
    ("privacy", privacy.privacy, privacy.EXAMPLES),
    ("audit", audit.audit, audit.EXAMPLES),
    ("doctor", doctor.doctor, doctor.EXAMPLES),
):
    _sentence = str(_function.__doc__).partition("\n")[0]  # whole, where click would cut it
    app.command(_name, cls=Command, short_help=_sentence, epilog=examples(*_examples))(_function)

app.add_typer(flower.app, name="flower", short_help=flower.SENTENCE)
app.add_typer(deploy.app, name="deploy", short_help=deploy.SENTENCE)


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"fedsim {version(_DISTRIBUTION)}\n")
        raise typer.Exit


@app.callback()
def _options(
    shown: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def _terminate(*_: object) -> NoReturn:
    raise Terminated


def _prepare_streams() -> None:
    """Open the streams that the shell closed, as in ``fedsim list >&-``; write plainly what their encoding lacks."""
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  for as long as the process lives
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_PLAIN)


def main() -> None:
    """Run the command line. What is not a bug ends in one line for each mistake, without a traceback."""
    memory.keep_freed()
    memory.collect_seldom()
    signal.signal(signal.SIGTERM, _terminate)
    codecs.register_error(_PLAIN, _plain)
    _prepare_streams()
    try:
        app(prog_name="fedsim")
    except Mistake as mistake:
        fail(str(mistake), USAGE)
    except RunFailed as failure:
        fail(str(failure), FAILURE)
    except Terminated:
        fail("terminated", TERMINATED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left, e.g. `| head`
        sys.exit(FAILURE)
    except CannotGoOn as error:
        hint = f"when that is mended, go on with: fedsim resume {error.folder}"
        fail(f"{error.filename or error.folder}: {error.strerror}; {hint}", FAILURE)
    except OSError as error:
        fail(f"{error.filename or 'system'}: {error.strerror or error}", FAILURE)


_PLAIN = "fedsim-plain"
_IN_ASCII = {"−": "-", "–": "-", "±": "+-", "×": "x", "≥": ">=", "≤": "<="}


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Write characters that the terminal's encoding lacks in others: a minus must not become a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_IN_ASCII.get(character, "?") for character in lacking), error.end
