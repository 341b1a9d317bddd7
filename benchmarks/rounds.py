"""Seconds for a round: fedsim, pfl-research, DrJAX, Flower's Ray simulation and the floor, side by side in one run.

Every framework does the same work in a process of its own: sampling sites, sending the model, training, FedAvg. One
warm-up round is left out; start-up (from the start of the process to the end of the warm-up round) is reported apart.
The floor is one model doing the same arithmetic in big batches, plus the noise draws in the private case. `make bench`
makes the peers' environments; a peer whose environment is missing is left out and said so.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from workloads import WORKLOADS

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "latest.json"
FRAMEWORKS = {
    "fedsim cohort": (sys.executable, "ours.py", "--engine", "cohort"),
    "fedsim serial": (sys.executable, "ours.py", "--engine", "serial"),
    "pfl": (str(HERE / ".venv-pfl" / "bin" / "python"), "peers/pfl_peer.py"),
    "drjax": (str(HERE / ".venv-drjax" / "bin" / "python"), "peers/drjax_peer.py"),
    "flower ray": (str(HERE / ".venv-ray" / "bin" / "python"), "peers/flower_ray.py"),
    "floor": (sys.executable, "floor.py"),
}


def main() -> None:
    """Measure, print a table as it grows, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="a comma between them")
    parser.add_argument("--frameworks", default=",".join(FRAMEWORKS), help="a comma between them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--limit", type=int, default=600, help="seconds after which a framework is left out")
    arguments = parser.parse_args()
    names = arguments.workloads.split(",")
    frameworks = arguments.frameworks.split(",")
    for option, asked, known in (("--workloads", names, WORKLOADS), ("--frameworks", frameworks, FRAMEWORKS)):
        if unknown := set(asked) - set(known):
            parser.error(f"{option}: expected some of {', '.join(known)}, got {', '.join(sorted(unknown))}")
    rows: list[dict[str, Any]] = []
    versions: dict[str, str] = {}
    for name in names:
        for private in (False, True):
            found = [measure(key, name, private, arguments) for key in frameworks]
            found = [one for one in found if one]
            for one in found:
                versions |= one.pop("versions")
            rows += found
            print_table(found)
            RESULTS.write_text(json.dumps({"versions": versions, "rows": rows}, indent=2) + "\n")


def measure(framework: str, workload: str, private: bool, arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Run one framework; return its row, or print why it can't do this and return None."""
    found = attempt(framework, workload, private, arguments)
    if isinstance(found, str):
        print(f"{framework}: {found}", flush=True)
        return None
    return found


def attempt(framework: str, workload: str, private: bool, arguments: argparse.Namespace) -> dict[str, Any] | str:
    """Run one framework; return its row, or the reason why there is none."""
    python, script, *rest = FRAMEWORKS[framework]
    if not Path(python).exists():
        return "left out, its environment is missing (make bench makes it)"
    command = [python, str(HERE / script), *rest, "--workload", workload, "--rounds", str(arguments.rounds)]
    command += ["--threads", str(arguments.threads), "--device", arguments.device, *(["--private"] if private else [])]
    of_what = f"{workload}{', private' if private else ''}"
    status, printed, errors = run(command, arguments.limit)
    if status is None:
        return f"n/a for {of_what}: more than {arguments.limit} s for {arguments.rounds + 1} rounds"
    if status:
        return f"n/a for {of_what}: {(errors.strip() or 'no message').splitlines()[-1]}"
    result = json.loads(printed.strip().splitlines()[-1])
    seconds = result.pop("seconds")
    return {
        "workload": workload,
        "framework": framework,
        "private": private,
        "seconds_per_round": statistics.median(seconds),
        "start_seconds": result["start_seconds"],
        "threads": 1 if framework == "fedsim serial" else arguments.threads,
        "device": arguments.device,
        "versions": result["versions"],
    }


def run(command: list[str], limit: float) -> tuple[int | None, str, str]:
    """Run a command for so many seconds at most; return its status, None if it took longer, and what it printed.

    What it started ends with it: a process that is left over would take its time from the next one that is measured.
    It prints into files, since a pipe stays open as long as one of those processes lives.
    """
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=printed, stderr=errors, start_new_session=True
        )
        status = None
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        texts = []
        for file in (printed, errors):
            file.seek(0)
            texts.append(file.read())
    return status, texts[0], texts[1]


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print one workload's rows with their ratios to the floor and to the cohort engine."""
    seconds = {row["framework"]: row["seconds_per_round"] for row in rows}
    for row in rows:
        kind = f"{row['workload']}, {'private' if row['private'] else 'plain'}"
        ratios = [row["seconds_per_round"] / seconds.get(base, float("nan")) for base in ("floor", "fedsim cohort")]
        print(
            f"{kind:<18} {row['framework']:<14} {row['seconds_per_round']:9.3f} s/round {ratios[0]:7.2f} x floor "
            f"{ratios[1]:7.2f} x cohort   start {row['start_seconds']:5.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
