"""``fedsim merge``: runs over parts of the seeds become one."""

from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli import options
from fedsim.cli.output import waiting
from fedsim.cli.run import print_run

EXAMPLES = (
    "merge runs/part-0 runs/part-1 --out runs/heart",
    "merge runs/part-*",
)


def merge(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN_DIR...", help="The directories of the runs.")],
    task: options.TaskOfRun = None,
    strategy: options.StrategyOfRun = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The directory to write into.", show_default="runs/SCENARIO-DATE"),
    ] = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Merge runs that are alike but for their seeds, such as the jobs of an array, into one run with its report."""
    options.allow_code(task, strategy)
    with waiting(quiet, as_json):
        from fedsim.experiments.merge import merge as merged

        finished = merged(run_dirs, out)
    print_run(finished, as_json)
