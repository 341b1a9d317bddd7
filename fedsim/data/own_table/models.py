"""Models for a table nobody has seen before: logistic or linear regression, or a small network."""

from collections.abc import Callable
from functools import partial

from torch import nn


def linear(outputs: int, inputs: int) -> nn.Module:
    """Return logistic (or linear) regression that starts at zero: even odds, or the middle of the range."""
    model = nn.Linear(inputs, outputs)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def mlp(outputs: int, inputs: int) -> nn.Module:
    """Return a network with one hidden layer of 32."""
    return nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, outputs))


def model_of(name: str, outputs: int) -> Callable[[int], nn.Module]:
    """Return what makes the model of a name for a number of inputs."""
    return partial({"linear": linear, "mlp": mlp}[name], outputs)
