"""Run a sweep of 60 trainings one after another, then in two processes with three kills; write the ratio.

The killed sweep is started again each time. It must end with the same tables, and repeat nothing that was finished: a
training's file is never written twice.

    python benchmarks/sweep.py [--rounds 1500]
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCENARIO = "hospital-heart"
TRAININGS = 60  # 3 epsilons, 2 learning rates, 2 arms, 5 seeds
KILLED_AT = (12, 27, 44)  # finished trainings
TABLES = ("points", "by-epsilon", "by-arm", "trainings", "scores", "curves")


def main() -> None:
    """Time the sweep both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1500)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone = _seconds(folder / "alone", asked.rounds, jobs=1)
        beside = _seconds(folder / "beside", asked.rounds, jobs=2)
        repeated = _killed(folder / "killed", asked.rounds)
        same = all(_same(folder, "alone", other) for other in ("beside", "killed"))
    found = {
        "scenario": SCENARIO,
        "rounds": asked.rounds,
        "trainings": TRAININGS,
        "cores": len(os.sched_getaffinity(0)),
        "seconds": {"1 process": round(alone, 1), "2 processes": round(beside, 1)},
        "ratio": round(beside / alone, 3),
        "kills": len(KILLED_AT),
        "repeated_trainings": repeated,
        "same_tables": same,
    }
    text = json.dumps(found, indent=2) + "\n"
    (Path(__file__).parent / "results" / "sweep.json").write_text(text)
    sys.stdout.write(text)


def _words(folder: Path, rounds: int, jobs: int) -> list[str]:
    return [
        *(sys.executable, "-m", "fedsim", "sweep", SCENARIO, "--epsilon", "2,8,none"),
        *("--vary", "training.optimizer.lr=0.2,0.5", "--arms", "federated,centralized", "--seeds", "5"),
        *("--set", f"training.rounds={rounds}", "--jobs", str(jobs), "--quiet"),
        *("--out", str(folder / "out"), "--cache", str(folder / "cache")),
    ]


def _seconds(folder: Path, rounds: int, jobs: int) -> float:
    begun = time.perf_counter()
    subprocess.run(_words(folder, rounds, jobs), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def _killed(folder: Path, rounds: int) -> int:
    """Run the sweep with kills; return how many finished trainings were written again."""
    written: dict[str, int] = {}
    repeated = 0
    for limit in (*KILLED_AT, None):
        running = subprocess.Popen(_words(folder, rounds, jobs=2), stdout=subprocess.DEVNULL, start_new_session=True)
        while running.poll() is None:
            finished = {path.name: path.stat().st_mtime_ns for path in (folder / "cache").glob("*.json")}
            repeated += sum(written.get(name, moment) != moment for name, moment in finished.items())
            written |= finished
            if limit is not None and len(finished) >= limit:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()
            time.sleep(0.1)
        if limit is None and running.returncode:
            raise RuntimeError("the last sweep failed")
    return repeated


def _same(folder: Path, one: str, other: str) -> bool:
    places = [folder / name / "out" for name in (one, other)]
    return all(len({(place / f"{table}.csv").read_bytes() for place in places}) == 1 for table in TABLES)


if __name__ == "__main__":
    main()
