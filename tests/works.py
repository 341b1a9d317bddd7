"""What tests make: rows, random streams, works, and a stream without noise."""

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from fedsim.data.federation import Examples
from fedsim.randomness import Words
from fedsim.scenario.files import read
from fedsim.training.losses import RowLosses, binary
from fedsim.training.work import Plan, Streams, Work


def examples(rows: int, inputs: int = 4, seed: int = 0) -> Examples:
    """Make random rows with both classes."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(rows, inputs)).astype(np.float32)
    target = (random.random(rows) < 0.5).astype(np.float32)
    return Examples(torch.from_numpy(features), torch.from_numpy(target))


def streams(seed: int, arm: str, site: str, number: int, *overrides: str) -> Streams:
    """Return the streams of a variant of hospital-heart."""
    return Streams.of(read("hospital-heart", overrides), seed, arm, site, number)


class Silent(Words):
    """A stream of words that give no noise at all; they are drawn on the CPU for a GPU, too, as secret ones are."""

    def __init__(self) -> None:
        super().__init__(bytes(16), secret=True)

    def draw_into(self, out: memoryview, zeros: bytes) -> None:
        out[: len(zeros)] = np.full(len(zeros) // 4, 0x7FFFFFFF, np.uint32).tobytes()

    def again(self) -> Words:
        return Silent()


def vector(module: nn.Module) -> torch.Tensor:
    return parameters_to_vector(module.parameters()).detach().clone()


def work(model: nn.Module, rows: Examples, todo: Plan, drawn: Streams, losses: RowLosses = binary) -> Work:
    """Return a work that starts from the model's own parameters."""
    return Work(model, vector(model), rows, todo, drawn, losses)
