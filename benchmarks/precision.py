"""How far training in bfloat16 is from float32: FedAvg on the four workloads, the same batches in both.

``python benchmarks/precision.py`` takes a few minutes on one core of a CPU, whose figures hold for any device: rounding
to bfloat16 is the same everywhere, but for the order of sums.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from workloads import WORKLOADS, Workload, rows_of

from fedsim.data.federation import Examples
from fedsim.engines import cohort
from fedsim.randomness import Words
from fedsim.scenario.schema import Optimizer, Precision
from fedsim.training.losses import classes
from fedsim.training.work import Plan, Streams, Work

_JUDGED_BY = 10  # sites whose rows nobody trains on


@dataclass(frozen=True)
class Trained:
    """A model after all rounds, (params,), and what its loss and accuracy are on other sites' rows."""

    parameters: Tensor
    loss: float
    accuracy: float


def main() -> None:
    """Train each workload in both precisions, and print how far they are apart."""
    parser = argparse.ArgumentParser(description="How far training in bfloat16 is from float32.")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="a comma between them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cpu")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name in asked.workloads.split(","):
        workload = WORKLOADS[name]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = workload.model().to(asked.device)
        start = parameters_to_vector(model.parameters()).detach().clone()
        exact = trained(workload, model, start, "float32", asked)
        narrow = trained(workload, model, start, "bf16", asked)
        apart = float((narrow.parameters - exact.parameters).norm() / (exact.parameters - start).norm())
        print(
            f"{name}: {apart:.2%} of the way apart; loss {exact.loss:.4f} and {narrow.loss:.4f}, "
            f"accuracy {exact.accuracy:.4f} and {narrow.accuracy:.4f}",
            flush=True,
        )


def trained(
    workload: Workload, model: nn.Module, start: Tensor, precision: Precision, asked: argparse.Namespace
) -> Trained:
    """Train by FedAvg with equal weights, and judge."""
    plan = Plan(
        steps=workload.steps,
        sampling_rate=workload.batch / workload.rows,
        expected_batch=workload.batch,
        optimizer=Optimizer(lr=workload.lr),
        noise=None,
        precision=precision,
    )
    center = start
    for number in range(asked.rounds):
        works = []
        for site in range(asked.sites):
            streams = Streams(Words.of(0, "batches", site, number), Words.of(0, "noise", site, number))
            works.append(Work(model, center, _examples(workload, site, asked.device), plan, streams, classes))
        center = torch.stack([done.parameters for done in cohort.train_all(works)]).mean(0)

    vector_to_parameters(center, model.parameters())
    others = [_examples(workload, asked.sites + site, asked.device) for site in range(_JUDGED_BY)]
    target = torch.cat([rows.target for rows in others])
    with torch.no_grad():
        outputs = torch.cat([model(rows.inputs) for rows in others])
    loss = float(classes(outputs, target).mean())
    return Trained(center, loss, float((outputs.argmax(1) == target).float().mean()))


def _examples(workload: Workload, site: int, device: str) -> Examples:
    inputs, target = rows_of(workload, site)
    return Examples(inputs.to(device), target.to(device))


if __name__ == "__main__":
    main()
