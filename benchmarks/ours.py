"""Rounds of a workload in fedsim, as `fedsim run` trains its federated arm: `--engine cohort` or `--engine serial`.

The tasks are those of clients/synthetic.py: the workloads' sizes and models. Batches are Poisson, with the workload's
batch as their expectation, so that the work is the same on average and a little more where batches are padded.
"""

# ruff: noqa: E402  as the command does, memory is kept before anything starts a thread

from fedsim import memory

memory.keep_freed()

import argparse
import sys
from typing import Any

import torch
from workloads import WORKLOADS, Workload, age, read_arguments, result_line

from fedsim.data import federation
from fedsim.experiments.arms import Job, run_job
from fedsim.scenario.files import parse
from fedsim.scenario.schema import Scenario

TASKS = {"tabular": "tabular", "small": "images", "cifar": "images-large", "sequence": "sequences"}


def main() -> None:
    """Measure and print one line."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--engine", choices=("cohort", "serial"), default="cohort")
    own, sys.argv[1:] = parser.parse_known_args()
    arguments = read_arguments(__doc__.partition("\n")[0])
    torch.set_num_threads(1)  # as in a run; the cohort engine has a thread for each core
    scenario = scenario_of(arguments.workload, own.engine, arguments)
    federation._KEPT = 2**33  # bytes: as in the peers, all sites' rows are in memory before the first round
    sum(len(site.train) for site in federation.federate(scenario, 0, arguments.device).sites)
    ages: list[float] = []
    run_job(scenario, Job("federated", arguments.private, 0), lambda number: ages.append(age()))
    print(result_line(f"fedsim {own.engine}", arguments, ages, ("fedsim-flower", "flwr", "opacus", "torch")))


def scenario_of(workload: Workload, engine: str, arguments: argparse.Namespace) -> Scenario:
    """Return the workload as a scenario with one warm-up round more than is measured."""
    privacy: dict[str, Any] = {"unit": "record", "epsilon": 1000.0, "delta": 1e-5, "clip": 1.0, "noise_multiplier": 1.0}
    return parse({
        "name": "timing",
        "title": f"Timing of {workload.name}",
        "task": f"synthetic/{TASKS[workload.name]}",
        "engine": engine,
        "device": arguments.device,
        "arms": ["federated"],
        "seeds": 1,
        "partition": {"by": "made", "sites": workload.sites},
        "split": {"validation": 0.0, "test": 0.2},
        "training": {
            "rounds": arguments.rounds + 1,
            "local_steps": workload.steps,
            "sampling_rate": workload.batch / workload.rows,
            "expected_batch": float(workload.batch),
            "sites_per_round": workload.sampled,
            "optimizer": {"lr": workload.lr},
        },
        "privacy": privacy if arguments.private else {},
    })  # fmt: skip


if __name__ == "__main__":
    assert set(TASKS) == set(WORKLOADS)
    main()
