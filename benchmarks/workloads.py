"""The four workloads of the timings, and the command line and result line that all measured frameworks share.

Needs torch and numpy and nothing else, because each framework is measured in a virtual environment of its own.
"""

import argparse
import functools
import json
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Workload:
    """What a round is: `sampled` of `sites` sites each do `steps` SGD steps on `batch` of their `rows` rows.

    One epoch: steps = rows / batch. `shape` is one row of features, `model` builds the network, float32.
    """

    name: str
    sites: int
    sampled: int
    rows: int
    batch: int
    steps: int
    classes: int
    shape: tuple[int, ...]
    lr: float
    model: Callable[..., nn.Module]


def build_mlp() -> nn.Module:
    """Return the MLP 30-64-64-2, 6 274 parameters."""
    return nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))


def build_lenet() -> nn.Module:
    """Return the LeNet-like network for 3x32x32 images, 62 006 parameters."""
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def build_cnn() -> nn.Module:
    """Return the network of pfl-research's CIFAR-10 benchmark, 1 626 442 parameters.

    Layers as in simple_cnn, https://github.com/apple/pfl-research/blob/main/benchmarks/model/pytorch/cnn.py, without
    its two dropout layers: their draws would not be the same arithmetic in every framework.
    """
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(64 * 14 * 14, 128), nn.ReLU(), nn.Linear(128, 10)),
    )


class SequenceModel(nn.Module):
    """A recurrent layer of 32 units and a linear readout of its last time step; 4 098 parameters with a GRU."""

    def __init__(self, recurrent: Callable[..., nn.Module] = nn.GRU) -> None:
        super().__init__()
        self.recurrent = recurrent(8, 32, batch_first=True)
        self.readout = nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (rows, 2) for x (rows, 20, 8)."""
        return self.readout(self.recurrent(x)[0][:, -1])


TABULAR = Workload("tabular", 200, 200, 256, 32, 8, 2, (30,), 0.1, build_mlp)
SMALL = Workload("small", 1000, 50, 50, 10, 5, 10, (3, 32, 32), 0.05, build_lenet)
CIFAR = Workload("cifar", 1000, 50, 50, 10, 5, 10, (3, 32, 32), 0.05, build_cnn)
SEQUENCE = Workload("sequence", 200, 200, 64, 16, 4, 2, (20, 8), 0.1, SequenceModel)
WORKLOADS = {w.name: w for w in (TABULAR, SMALL, CIFAR, SEQUENCE)}


def rows_of(workload: Workload, site_number: int) -> tuple[Tensor, Tensor]:
    """Return a site's features (rows, *shape), float32, and labels (rows,), int64; the same at every call.

    A row is white noise around the center of its class, so that there is something to learn.
    """
    random = np.random.default_rng([zlib.crc32(workload.name.encode()), site_number])
    y = random.integers(workload.classes, size=workload.rows)
    x = random.standard_normal((workload.rows, *workload.shape), np.float32) + class_centers(workload)[y]
    return torch.from_numpy(x), torch.from_numpy(y)


@functools.cache
def class_centers(workload: Workload) -> np.ndarray:
    """Return the centers (classes, *shape), the same at every site."""
    random = np.random.default_rng(zlib.crc32(workload.name.encode()))
    return random.standard_normal((workload.classes, *workload.shape), np.float32)


def count_parameters(model: nn.Module) -> int:
    """Return how many numbers a model learns."""
    return sum(p.numel() for p in model.parameters())


def read_arguments(description: str) -> argparse.Namespace:
    """Parse the command line that every measured framework understands; `workload` becomes a Workload."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--workload", required=True, choices=WORKLOADS)
    parser.add_argument("--rounds", type=positive, default=5, help="measured rounds, after one warm-up round")
    parser.add_argument("--threads", type=positive, default=2, help="CPU threads, over all processes")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--private", action="store_true", help="record-level DP-SGD at each site")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("argument --device: cuda was asked for, but torch sees no GPU")
    arguments.workload = WORKLOADS[arguments.workload]
    return arguments


def positive(text: str) -> int:
    """Return text as an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return int(text)


def age() -> float:
    """Return the seconds since this process was started, imports and queued GPU work included; Linux only."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def result_line(framework: str, arguments: argparse.Namespace, ages: list[float], packages: tuple[str, ...]) -> str:
    """Return the result as JSON; `ages` is the process's age at the end of the warm-up round and of each round."""
    result = {
        "framework": framework,
        "workload": arguments.workload.name,
        "private": arguments.private,
        "seconds": [round(float(s), 5) for s in np.diff(ages)],
        "start_seconds": round(ages[0], 3),
        "threads": arguments.threads,
        "device": arguments.device,
        "versions": {name: version(name) for name in packages},
    }
    return json.dumps(result)
