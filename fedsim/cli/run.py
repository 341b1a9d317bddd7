"""``fedsim run`` and ``fedsim resume``: run a scenario, or go on with a run that was interrupted."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli import options
from fedsim.cli.document import as_document
from fedsim.cli.output import FAILURE, fail, print_json, print_lines, print_places, print_table, waiting
from fedsim.cli.terminal import arms_table, closing_lines, places_of, sites_table
from fedsim.mistakes import Mistake
from fedsim.tracking.watch import Watch, names_of

if TYPE_CHECKING:
    from fedsim.results.run_directory import Run

EXAMPLES = (
    "run hospital-heart",
    "run hospital-heart --epsilon 2 --strategy krum:f=1 --seeds 3",
    "run hospital-heart --set training.rounds=5 --set partition.sites=2",
    "run my-hospitals.toml --out runs/mine",
    "run hospital-heart --references linear,boosting",
    "run school-digits --task my_tasks.py:falls",
    "run --data patients.csv --target outcome --site hospital",
)
RESUME_EXAMPLES = ("resume", "resume runs/hospital-heart-20260131-120000", "resume runs/mine --force")


def run(
    scenario: Annotated[
        str | None,
        typer.Argument(
            help="A scenario's name (see fedsim list scenarios) or a .toml file; none with --data.",
            autocompletion=options.scenarios,
        ),
    ] = None,
    changes: options.Changes = None,
    task: options.TaskCode = None,
    strategy: options.StrategyCode = None,
    epsilon: options.Epsilon = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Another engine than the scenario's: cohort, serial, ray or superlink.",
            autocompletion=options.engines,
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="How many seeds, for means and intervals.", show_default="the scenario's")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The first seed.", show_default="the scenario's")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The directory to write into.", show_default="runs/SCENARIO-DATE"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A table of your own, CSV or Parquet, or a folder of images site/class/*.png, in place of a "
            "scenario's task.",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="With --data: the column with the outcome.")
    ] = None,
    site: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="With --data: the column that names each row's site.")
    ] = None,
    ranges: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="With --data: a TOML file with the columns' public ranges, or from-data for a first look.",
            show_default="FILE.ranges.toml",
        ),
    ] = None,
    references: options.References = None,
    jobs: options.Jobs = 1,
    track: options.Track = None,
    track_to: options.TrackTo = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Run a scenario, or your own table: federated against centralized against local-only."""
    if scenario is None and data is None and task is None:
        raise Mistake(
            "run: expected a scenario (see fedsim list scenarios) --data FILE --target COLUMN, or --task FILE.py:NAME"
        )
    given = options.changes_from(
        {
            "data.path": ("--data", data),
            "data.target": ("--target", target),
            "data.site": ("--site", site),
            "data.ranges": ("--ranges", ranges),
            "engine": ("--engine", engine),
            "seed": ("--seed", seed),
            "seeds": ("--seeds", seeds),
        }
    )
    overrides = [
        *options.code_from(task, strategy),
        *(changes or []),
        *given,
        *options.references_from(references),
    ]

    with waiting(quiet, as_json) as progress:
        from fedsim.experiments.experiment import execute
        from fedsim.scenario.files import read, read_own

        watch = Watch(names_of(track), track_to)
        watch.check()
        chosen = read_own(overrides, epsilon) if scenario is None else read(scenario, overrides, epsilon)
        finished = execute(chosen, out, progress, jobs, watch)
    print_run(finished, as_json)
    _print_tracked(watch, finished, as_json)
    _end_with_failures(finished)


def resume(
    run_dir: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN_DIR]", help="The directory of an interrupted run; by default the newest under runs/."
        ),
    ] = None,
    task: options.TaskOfRun = None,
    strategy: options.StrategyOfRun = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Go on also with other versions, code or device than the run was begun with; the manifest says so.",
        ),
    ] = False,
    jobs: options.Jobs = 1,
    track: options.Track = None,
    track_to: options.TrackTo = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Go on with an interrupted run. What was finished is not run again; what failed is tried again."""
    options.allow_code(task, strategy)
    with waiting(quiet, as_json) as progress:
        from fedsim.experiments import experiment
        from fedsim.results.run_directory import newest_interrupted

        watch = Watch(names_of(track), track_to)
        finished = experiment.resume(run_dir or newest_interrupted(), progress, force, jobs, watch)
    print_run(finished, as_json)
    _print_tracked(watch, finished, as_json)
    _end_with_failures(finished)


def print_run(finished: "Run", as_json: bool) -> None:
    """Print the tables of a finished run and its answer in words, or its document."""
    if as_json:
        print_json(as_document(finished))
        return
    for table in (arms_table(finished), sites_table(finished)):
        print_table(table)
        print_lines([""])
    print_lines(closing_lines(finished))
    print_places(places_of(finished))


def _print_tracked(watch: Watch, finished: "Run", as_json: bool) -> None:
    """Print how what trackers wrote is looked at."""
    if not as_json:
        print_places(watch.how_to_look(finished.path, finished.scenario.name))


def _end_with_failures(finished: "Run") -> None:
    """End with the exit code of a failure if a training failed, and say how to try it again."""
    from fedsim.report.failures import failures

    if finished.failed:
        again = f"try what failed again with: fedsim resume {finished.path}"
        fail("\n".join([*failures(finished), again]), FAILURE)
