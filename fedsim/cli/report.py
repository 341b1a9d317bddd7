"""``fedsim report`` and ``fedsim groups``: what a finished run says, on a page, and group by group."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli import options
from fedsim.cli.output import print_json, print_lines, print_places, print_table, waiting
from fedsim.cli.terminal import groups_table
from fedsim.mistakes import Mistake

if TYPE_CHECKING:
    from fedsim.results.run_directory import Run

EXAMPLES = ("report", "report runs/hospital-heart-20260131-120000", "report --statement")
GROUPS_EXAMPLES = ("groups", "groups --rate selection_rate", "groups runs/mine --arm local --json")


def report(
    run_dir: options.RunDirectory = None,
    statement: Annotated[
        bool, typer.Option("--statement", help="Write the privacy statement alone: one page to hand on.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Write the report of a finished run anew."""
    with waiting(quiet=False, as_json=as_json):
        from fedsim.report import page, statement_page
        from fedsim.results.run_directory import load, newest
        from fedsim.results.seal import seal

        chosen = statement_page if statement else page
        finished = load(run_dir or newest(), made_anew=[chosen.FILE])
        path = chosen.write(finished)
        seal(finished.path)
    what = "statement" if statement else "report"
    if as_json:
        print_json({"run_dir": str(finished.path), what: str(path)})
    else:
        print_places({what: path})


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
        from fedsim.results.groups import FEW, RATES
        from fedsim.results.run_directory import load, newest

        finished = load(run_dir or newest())
    arms = finished.scenario.arms
    rates = [rate_of_kind.name for rate_of_kind in RATES[finished.kind]]
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
