"""What the templates need to show what leaves each site."""

from itertools import groupby
from typing import Any

from fedsim.report.leaving import table
from fedsim.results.run_directory import Run


def shown(run: Run) -> dict[str, Any]:
    """Return the values that ``leaving.html.j2`` asks for."""
    by_kind = groupby(table.lines(run), key=lambda line: (line.direction, line.training))
    return {
        "leaving": [(kind, list(lines)) for kind, lines in by_kind],
        "no_leaving": table.why_none(run),
        "beside": table.beside(run),
        "size": table.size,
    }
