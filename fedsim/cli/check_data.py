"""``fedsim check-data``: read a table as a run would, and say how each column is read."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from fedsim.cli import options
from fedsim.cli.output import USAGE, fail, print_json, print_lines, print_table, waiting

if TYPE_CHECKING:
    from fedsim.data.own_table.survey import Survey

EXAMPLES = (
    "check-data patients.csv --target outcome --site hospital",
    "check-data patients.csv --target outcome --ranges from-data --json",
)
_MOST_COLUMNS = 60  # that a terminal lists


def check_data(
    data: options.OwnTable,
    target: options.OutcomeColumn = None,
    site: options.SiteColumn = None,
    time: options.TimeColumn = None,
    ranges: options.Ranges = None,
    changes: options.Changes = None,
    as_json: options.AsJson = False,
) -> None:
    """Read a table as a run would: kinds, missing values, repairs, and all faults at once. Nothing is trained."""
    given = options.changes_from(
        {
            "data.path": ("FILE", data),
            "data.target": ("--target", target),
            "data.site": ("--site", site),
            "data.time": ("--time", time),
            "data.ranges": ("--ranges", ranges),
        }
    )
    with waiting(quiet=False, as_json=as_json) as progress:
        from fedsim.data.own_table.images.files import telling
        from fedsim.data.own_table.ranges import MissingRanges, leave_template
        from fedsim.data.own_table.survey import survey
        from fedsim.scenario.files import read_own

        with telling(progress):
            found = survey(read_own([*(changes or []), *given], None).data)

    message = "" if found.fault is None else str(found.fault)
    if isinstance(found.fault, MissingRanges):
        message += f"\n{leave_template(found.fault)}"
    if as_json:
        print_json(_document(found, message))
    else:
        print_table(_table(found))
        print_lines(_lines(found))
    if message and as_json:
        raise typer.Exit(USAGE)
    if message:
        fail(message, USAGE)


def _document(found: "Survey", message: str) -> dict[str, Any]:
    return {
        "file": found.file,
        "rows_in": found.rows_in,
        "columns": [asdict(column) for column in found.columns],
        "left_out": [asdict(part) for part in found.left_out],
        "notes": [] if found.intake is None else list(found.intake.notes),
        "faults": message.splitlines(),
    }


def _table(found: "Survey") -> Table:
    title = f"{found.file}: {found.rows_in:,} rows, {len(found.columns):,} columns"
    table = Table(title=escape(title), box=SIMPLE_HEAD, title_justify="left")
    for heading in ("column", "role", "kind"):
        table.add_column(heading)
    for heading in ("missing", "distinct"):
        table.add_column(heading, justify="right")
    table.add_column("values")
    table.add_column("range or levels")
    for column in found.columns[:_MOST_COLUMNS]:
        figures = (f"{column.missing:,}", f"{column.distinct:,}")
        texts = (escape(column.name), column.role, column.kind, *figures, escape(column.shown), column.entry)
        table.add_row(*texts)
    if len(found.columns) > _MOST_COLUMNS:
        table.add_row(f"and {len(found.columns) - _MOST_COLUMNS:,} more columns")
    return table


def _lines(found: "Survey") -> list[str]:
    lines = [
        "The values are those of the rows. A range that is copied from them is covered by no privacy: declare what "
        "is known without looking.",
    ]
    for part in found.left_out:
        rows = "1 row is" if part.rows == 1 else f"{part.rows:,} rows are"
        lines.append(f"{rows} left out: {part.reason}, first in row {part.first}.")
    if found.intake is not None:
        lines.extend(f"Note: {note}." for note in found.intake.notes)
        lines.append(f"The table can be used: {found.intake.rows_used:,} of {found.intake.rows_in:,} rows.")
    return lines
