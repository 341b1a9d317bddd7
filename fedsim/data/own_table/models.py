"""Build models for any table: linear or logistic regression, or a small network."""

from collections.abc import Callable
from functools import partial

from torch import nn


def linear(outputs: int, inputs: int) -> nn.Module:
    """Build linear (or logistic) regression.

    It starts at zero, and so predicts even odds or the middle of the range.
    """
    model = nn.Linear(inputs, outputs)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def mlp(outputs: int, inputs: int) -> nn.Module:
    """Build a network with a hidden layer of 32 units."""
    return nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, outputs))


def model_of(name: str, outputs: int) -> Callable[[int], nn.Module]:
    """Return a function that builds the named model for a number of inputs."""
    builders = {"linear": linear, "mlp": mlp}
    return partial(builders[name], outputs)
