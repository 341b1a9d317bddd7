"""``fedsim report`` and ``fedsim groups``: what a finished run says, on a page, and group by group."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli import options
from fedsim.cli.output import print_json, print_lines, print_places, print_table, waiting
from fedsim.cli.terminal import groups_table
from fedsim.mistakes import Mistake

if TYPE_CHECKING:
    from fedsim.results.run_directory import Run

EXAMPLES = ("report", "report runs/hospital-heart-20260131-120000", "report --statement", "report --files figures",
            "report runs/epsilon-1 runs/epsilon-8 --out compared")  # fmt: skip
GROUPS_EXAMPLES = ("groups", "groups --rate selection_rate", "groups runs/mine --arm local --json")


def report(
    run_dirs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN...]",
            help="Run directories; several are compared on one page.",
            show_default="the newest under runs/",
        ),
    ] = None,
    statement: Annotated[
        bool, typer.Option("--statement", help="Write the privacy statement alone: one page to hand on.")
    ] = False,
    files: Annotated[
        Path | None,
        typer.Option("--files", metavar="DIR", help="Write figures (PNG, SVG) and tables (CSV) there, too."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="The directory to write into.", show_default="the working directory"),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Write the report of a finished run anew, or one page that compares several."""
    several = run_dirs is not None and len(run_dirs) > 1
    if several and (statement or files):
        raise Mistake("report: expected one run beside --statement or --files, got several")
    if not several and out:
        raise Mistake("report: --out is for a page that compares several runs; a report goes into its run directory")
    if statement and files:
        raise Mistake("report: expected --statement or --files, got both; --files writes the statement, too")
    if several:
        _compare(run_dirs or [], out, as_json)
        return
    run_dir = run_dirs[0] if run_dirs else None
    with waiting(quiet=False, as_json=as_json):
        from fedsim.report import page, statement_page
        from fedsim.results.run_directory import load, newest
        from fedsim.results.seal import seal

        chosen = statement_page if statement else page
        finished = load(run_dir or newest(), made_anew=[chosen.FILE])
        path = chosen.write(finished)
        seal(finished.path)
        written = page.write_files(finished, files) if files else []
    what = "statement" if statement else "report"
    if as_json:
        document: dict[str, object] = {"run_dir": str(finished.path), what: str(path)}
        if files:
            document["files"] = [str(file) for file in written]
        print_json(document)
    else:
        print_places({what: path, **({"files": files} if files else {})})


def _compare(run_dirs: Sequence[Path], out: Path | None, as_json: bool) -> None:
    """Write the page that compares runs, outside their sealed directories."""
    with waiting(quiet=False, as_json=as_json):
        from fedsim.report.several import compared
        from fedsim.results.run_directory import load

        path = compared.write([load(run_dir) for run_dir in run_dirs], (out or Path()) / compared.FILE)
    if as_json:
        print_json({"run_dirs": [str(run_dir) for run_dir in run_dirs], "comparison": str(path)})
    else:
        print_places({"comparison": path})


def groups(
    run_dir: options.RunDirectory = None,
    arm: Annotated[
        str | None,
        typer.Option(help="The arm: federated, centralized or local.", show_default="federated"),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(help="The rate, e.g. selection_rate.", show_default="the first of the kind of outcome"),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show how each protected group and site is treated, and what privacy changes; --json has every arm and rate."""
    with waiting(quiet=False, as_json=as_json):
        from fedsim.outcomes import outcome_of
        from fedsim.results.groups import FEW
        from fedsim.results.run_directory import load, newest

        finished = load(run_dir or newest())
    arms = finished.scenario.arms
    rates = [rate_of_kind.name for rate_of_kind in outcome_of(finished.kind).rates]
    first_arm = "federated" if "federated" in arms else arms[0]
    chosen_arm = _choose("--arm", arm, arms, first_arm)
    chosen_rate = _choose("--rate", rate, rates, rates[0])
    if as_json:
        print_json(_document(finished))
        return
    print_table(groups_table(finished, chosen_arm, chosen_rate))
    print_lines(
        [
            f"Means over seeds of test rows; ± half a 95 % interval {finished.asked}, paired by seed. To others: less "
            "everyone else's. By privacy: its interval speaks of these records.",
            f"Of: the rows of a seed that the rate is taken of; few: fewer than {FEW} in some seed.",
        ]
    )


def _choose(option: str, given: str | None, known: Sequence[str], default: str) -> str:
    if given is None:
        return default
    if given not in known:
        raise Mistake(f"{option}: expected one of {', '.join(known)}, got {given!r}")
    return given


def _document(finished: "Run") -> dict[str, object]:
    tables = {"groups": finished.harm, "widths": finished.widths}
    rows = {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
    return {"run_dir": str(finished.path), **rows}
