"""Time ``fedsim run --jobs 1`` against ``--jobs 2`` for 8 trainings, in turn; write the ratio.

The trainings are long enough that the three to four seconds that a process takes to start count as they do in earnest.

    python benchmarks/jobs.py [--rounds 6000] [--repeats 2]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCENARIO = "hospital-heart"
CHANGES = ("privacy.unit=none", 'arms=["federated","centralized"]')
PRODUCTS = ("model.safetensors", "sites.parquet", "groups.parquet", "rounds.parquet", "ledger.json", "metrics.json")


def main() -> None:
    """Time whole commands, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6000)
    parser.add_argument("--repeats", type=int, default=2)
    asked = parser.parse_args()
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(asked.repeats):
            for jobs in seconds:
                seconds[jobs].append(_seconds(jobs, asked.rounds, Path(folder) / f"{repeat}-{jobs}"))
        same = all(
            (Path(folder) / "0-1" / name).read_bytes() == (Path(folder) / "0-2" / name).read_bytes()
            for name in PRODUCTS
        )
    medians = {jobs: statistics.median(taken) for jobs, taken in seconds.items()}
    found = {
        "scenario": SCENARIO,
        "rounds": asked.rounds,
        "trainings": 8,
        "cores": len(os.sched_getaffinity(0)),
        "seconds": {str(jobs): [round(value, 1) for value in taken] for jobs, taken in seconds.items()},
        "ratio": round(medians[2] / medians[1], 3),
        "same_bytes": same,
    }
    text = json.dumps(found, indent=2) + "\n"
    (Path(__file__).parent / "results" / "jobs.json").write_text(text)
    sys.stdout.write(text)


def _seconds(jobs: int, rounds: int, out: Path) -> float:
    changes = [word for change in (*CHANGES, f"training.rounds={rounds}") for word in ("--set", change)]
    words = ["run", SCENARIO, "--seeds", "4", *changes, "--jobs", str(jobs), "--quiet", "--out", str(out)]
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "fedsim", *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
