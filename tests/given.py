"""A small task and strategies that tests give in Python or write into files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from fedsim.data.task import Rows, Task
from fedsim.strategy import Strategy

SETTINGS = ("training.rounds=2", "training.local_steps=1")

SOURCE = """
import numpy as np
from torch import nn

from fedsim.data.task import Rows, Task


def load():
    target = np.arange(120) % 2
    inputs = np.random.default_rng(0).normal(size=(120, 4)) + target[:, None]
    sites = np.array(["north", "south", "west"]).repeat(40)
    return Rows(inputs.astype(np.float32), target.astype(np.float32), sites)


def model(features):
    return nn.Linear(features, 1)


falls = Task(title="Falls", outcome="a fall", source="made up", columns=(), model=model, load=load)
"""


def rows() -> Rows:
    target = np.arange(120) % 2
    inputs = np.random.default_rng(0).normal(size=(120, 4)) + target[:, None]
    sites = np.array(["north", "south", "west"]).repeat(40)
    return Rows(inputs.astype(np.float32), target.astype(np.float32), sites)


def linear(features: int) -> nn.Module:
    return nn.Linear(features, 1)


falls = Task(title="Falls", outcome="a fall", source="made up", columns=(), model=linear, load=rows)


def made(load=rows, model=linear) -> Task:
    """Return a task that is in no module."""
    return Task(title="Falls in spring", outcome="a fall", source="made up", columns=(), model=model, load=load)


@dataclass(frozen=True)
class Halved(Strategy):
    """Goes a part of the way to the mean."""

    factor: float = 0.5
    lr: float | None = None

    def aggregate(self, center, updates, weights, state):
        return center + self.factor * (weights @ (updates - center)), state


@dataclass(frozen=True)
class Needy(Strategy):
    """Has a hyperparameter without a default."""

    factor: float

    def aggregate(self, center, updates, weights, state):
        return center, state


class Plain:
    """Has no base class and parameters that are in no field."""

    def __init__(self, factor: float = 1.0) -> None:
        self._factor = factor

    def aggregate(self, center, updates, weights, state):
        return weights @ updates, state


def written(folder: Path, name: str = "my_tasks.py", source: str = SOURCE) -> str:
    """Write a file with a task; return how it is typed."""
    (folder / name).write_text(source, encoding="utf-8")
    return f"{name}:falls"
