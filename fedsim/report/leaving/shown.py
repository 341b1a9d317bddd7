"""What the templates need to show what leaves each site."""

from itertools import groupby
from typing import Any

from fedsim.report.leaving import table
from fedsim.results.run_directory import Run


def shown(run: Run, private_only: bool = False) -> dict[str, Any]:
    """Return the values that ``leaving.html.j2`` asks for.

    Args:
        run: The run.
        private_only: Whether trainings without privacy are left out, where there are others.
    """
    lines = table.lines(run)
    private = [line for line in lines if line.training == table.PRIVATE]
    left_out = private_only and 0 < len(private) < len(lines)
    by_kind = groupby(private if left_out else lines, key=lambda line: (line.direction, line.training))
    return {
        "leaving": [(kind, list(lines)) for kind, lines in by_kind],
        "no_leaving": table.why_none(run),
        "beside": table.beside(run),
        "size": table.size,
        "plain_left_out": left_out,
    }
