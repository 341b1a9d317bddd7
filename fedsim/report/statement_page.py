"""The privacy statement of a run alone: one page, to hand to whoever answers for the data."""

from datetime import datetime
from pathlib import Path

from fedsim.report.deciding import officer
from fedsim.report.leaving.shown import shown
from fedsim.report.pages import PAGES
from fedsim.report.statement import grouped, statement, weaknesses
from fedsim.results.run_directory import Run, write_bytes

FILE = "statement.html"


def write(run: Run) -> Path:
    """Write ``statement.html`` into the run directory and return its path."""
    text = PAGES.get_template("statement.html.j2").render(
        run=run,
        started=f"{datetime.fromisoformat(run.manifest['started']):%d %B %Y, %H:%M UTC}",
        cautions=weaknesses(run),
        leaves=officer.models(run),
        may_be_said=officer.may_be_said(run),
        **shown(run, private_only=True),
        statement=grouped(statement(run)),
        ledger=run.manifest["files"]["ledger.json"],
    )
    path = run.path / FILE
    write_bytes(path, text.encode())
    return path
