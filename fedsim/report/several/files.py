"""Write the figures of a report as PNG and SVG, and its tables as CSV, into a folder of the user's."""

from pathlib import Path

import pandas as pd

from fedsim.report.charts import Inline
from fedsim.report.leaving import table
from fedsim.report.statement import statement
from fedsim.results.run_directory import Run, write_bytes


def write(run: Run, charts: list[Inline], folder: Path) -> list[Path]:
    """Write them and return their paths, in the order of their names.

    Args:
        run: The run.
        charts: The charts of its report.
        folder: Where they go; it is made where it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    contents: dict[str, bytes] = {}
    for chart in charts:
        contents |= chart.files()
    tables = {
        "arms": run.comparison,
        "groups": run.harm,
        "widths": run.widths,
        "sites": run.sites,
        "rounds": run.rounds,
        "calibration": run.measured.calibration,
        "leaving": table.frame(run),
        "statement": pd.DataFrame(statement(run), columns=["term", "definition"]),
    }
    for name, of_run in tables.items():
        contents[f"{name}.csv"] = of_run.to_csv(index=False).encode()
    for name, content in contents.items():
        write_bytes(folder / name, content)
    return [folder / name for name in sorted(contents)]
