"""Time and memory of reading large tables, and of a whole run at many sites and with many columns.

Every table is made anew, and read by a process of its own: by pandas alone, which is the floor, and by
``fedsim check-data``, which reads each column as a run does. Two more tables are run from the file to
the report: 2000 sites of 5 rows, and 3000 columns. Memory is the process' largest.

``python benchmarks/large_tables.py`` takes minutes and 200 MB of disk.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

RESULTS = Path(__file__).parent / "results" / "large_tables.json"
ABOUT = ["--target", "ill", "--site", "hospital", "--ranges", "from-data"]


def table(rows: int, numbers: int, categories: int, sites: int) -> pd.DataFrame:
    """Make a table: columns of three digits, categories of four levels, an outcome and the site."""
    random = np.random.default_rng(0)
    columns: dict[str, np.ndarray] = {}
    for number in range(numbers):
        columns[f"value {number}"] = random.normal(size=rows).round(3)
    for number in range(categories):
        columns[f"stage {number}"] = random.choice(["low", "middle", "high", "unclear"], rows)
    columns["hospital"] = np.array([f"hospital {row % sites}" for row in range(rows)])
    likely = 1 / (1 + np.exp(-2 * columns["value 0"]))
    columns["ill"] = (random.random(rows) < likely).astype(int)
    return pd.DataFrame(columns)


def timed(command: list[str]) -> dict[str, float]:
    """Run a command on one thread; return its seconds, its seconds of a core, and its largest memory in GiB."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    begun = time.perf_counter()
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT, env=environment)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        if status:
            printed.seek(0)
            sys.exit(f"{' '.join(command)}:\n{printed.read().decode()[-3000:]}")
    return {
        "seconds": round(seconds, 2),
        "core_seconds": round(used.ru_utime + used.ru_stime, 2),
        "peak_gib": round(used.ru_maxrss / 2**20, 2),
    }


def with_pandas(path: Path) -> list[str]:
    """Return the command that reads a table with pandas."""
    read = "read_parquet" if path.suffix == ".parquet" else "read_csv"
    return [sys.executable, "-c", f"import pandas; pandas.{read}({str(path)!r})"]


def with_fedsim(*arguments: str | Path) -> list[str]:
    """Return a command of fedsim's."""
    return [sys.executable, "-m", "fedsim", *map(str, arguments)]


def main() -> None:
    """Measure each table, print and write the figures."""
    figures: dict[str, dict[str, float]] = {}

    def measure(name: str, command: list[str]) -> None:
        figures[name] = timed(command)
        print(f"{name}: {figures[name]}", flush=True)

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        long = table(1_000_000, 14, 4, 20)
        long.to_csv(folder / "long.csv", index=False)
        long.to_parquet(folder / "long.parquet", index=False)
        del long
        table(2_000, 3_000, 0, 4).to_csv(folder / "wide.csv", index=False)
        table(10_000, 8, 0, 2_000).to_csv(folder / "sites.csv", index=False)

        for name, path in (
            ("1e6 rows x 20 columns, CSV", folder / "long.csv"),
            ("1e6 rows x 20 columns, Parquet", folder / "long.parquet"),
            ("2000 rows x 3002 columns, CSV", folder / "wide.csv"),
        ):
            measure(f"{name}: pandas", with_pandas(path))
            measure(f"{name}: fedsim check-data", with_fedsim("check-data", path, *ABOUT))

        for name, path in (
            ("2000 sites of 5 rows", folder / "sites.csv"),
            ("2000 rows x 3002 columns", folder / "wide.csv"),
            ("1e6 rows x 20 columns", folder / "long.csv"),
        ):
            out = folder / f"run-{path.stem}"
            run = with_fedsim("run", "--data", path, *ABOUT, "--seeds", "1", "--out", out)
            measure(f"{name}: fedsim run, one seed, three arms", run)

    RESULTS.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
