"""Seconds for a round of hospital-heart: the engines against the same steps in a bare loop.

The floor is what the arithmetic alone costs: the same sites, rates and steps of logistic regression written by hand,
with clipping and noise in the private case; no messages, no Flower, no Opacus. Start-up (imports, data, calibration) is
reported apart, by the first row that needs it. Medians over rounds after a warm-up round; one process, one thread.
"""

import argparse
import json
import logging
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

RESULTS = Path(__file__).parent / "results" / "latest.json"


def main() -> None:
    """Measure, print a table, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=50)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    rows = []
    for private in (False, True):
        rows += [measure_engine(engine, rounds, private) for engine in ("serial", "cohort")]
        rows.append(measure_floor(rounds, private))
    versions = {name: version(name) for name in ("fedsim-flower", "flwr", "opacus", "torch")}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"versions": versions, "rows": rows}, indent=2) + "\n")
    for row in rows:
        floor = next(r for r in rows if r["private"] == row["private"] and r["framework"] == "floor")
        ratio = row["seconds_per_round"] / floor["seconds_per_round"]
        kind = "private" if row["private"] else "plain"
        print(f"{row['framework']:<14} {kind:<8} {1000 * row['seconds_per_round']:8.2f} ms/round  {ratio:6.1f} x floor"
              f"  start {row['start_seconds']:.2f} s")  # fmt: skip


def measure_engine(engine: str, rounds: int, private: bool) -> dict:
    """Time the rounds of the federated arm, as `fedsim run` runs them."""
    start = time.perf_counter()
    from fedsim.arms import Job, noise_for, run_job
    from fedsim.scenario import read

    logging.getLogger("flwr").setLevel(logging.WARNING)
    scenario = read("hospital-heart", [f"training.rounds={rounds + 1}", f"engine={engine}"])
    if private:
        noise_for(scenario)
    ticks = []
    run_job(scenario, Job("federated", private, 0), lambda: ticks.append(time.perf_counter()))
    return row(f"fedsim {engine}", private, np.diff(ticks), ticks[0] - start)


def measure_floor(rounds: int, private: bool) -> dict:
    """Time the same steps in numpy."""
    from fedsim.federation import federate
    from fedsim.scenario import read

    scenario = read("hospital-heart")
    random = np.random.default_rng(0)
    sites = [(s.train.inputs.numpy(), s.train.target.numpy()) for s in federate(scenario, 0).sites]
    sizes = list(scenario.training.expected_batch.values())
    center, seconds = np.zeros(sites[0][0].shape[1] + 1, np.float32), []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        models = [train_floor(center, x, y, size, private, random) for (x, y), size in zip(sites, sizes, strict=True)]
        center = np.average(models, axis=0, weights=sizes)
        seconds.append(time.perf_counter() - start)
    return row("floor", private, seconds[1:], 0.0)


def train_floor(center: np.ndarray, x: np.ndarray, y: np.ndarray, size: float, private: bool,
                random: np.random.Generator) -> np.ndarray:  # fmt: skip
    """Do two steps of logistic regression by hand."""
    model = center.copy()
    for _ in range(2):
        chosen = random.random(len(y)) < 0.5
        batch = np.c_[x[chosen], np.ones(chosen.sum(), np.float32)]
        gradients = (1 / (1 + np.exp(-batch @ model)) - y[chosen])[:, None] * batch
        if private:
            gradients *= np.minimum(1, 1 / (np.linalg.norm(gradients, axis=1, keepdims=True) + 1e-6))
        total = gradients.sum(0) + (1.866 * random.standard_normal(len(model)) if private else 0)
        model = model - 0.5 * total / size
    return model


def row(framework: str, private: bool, seconds: list[float] | np.ndarray, start: float) -> dict:
    """Return a row of the results file."""
    return {
        "workload": "hospital-heart",
        "framework": framework,
        "private": private,
        "seconds_per_round": statistics.median(seconds),
        "start_seconds": round(start, 3),
        "threads": 1,
        "device": "cpu",
    }


if __name__ == "__main__":
    main()
