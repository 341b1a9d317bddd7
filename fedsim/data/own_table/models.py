"""Build models for any table or images: linear or logistic regression, or a small network."""

import math
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


def convolutional(outputs: int, channels: int, height: int, width: int) -> nn.Module:
    """Build a network of five convolutions or more and two linear layers for images.

    It maps (rows, channels, height, width) to (rows, outputs). Images of 28 x 28 leave the
    convolutions as 4 x 4; larger ones are halved until they have at most 7 x 7.
    """
    layers: list[nn.Module] = [
        *(nn.Conv2d(channels, 8, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.ReLU()),
    ]
    height = math.ceil(height / 8)
    width = math.ceil(width / 8)
    while max(height, width) > 7:
        layers += [nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.ReLU()]
        height = math.ceil(height / 2)
        width = math.ceil(width / 2)
    layers += [nn.Flatten(), nn.Linear(32 * height * width, 64), nn.ReLU(), nn.Linear(64, outputs)]
    return nn.Sequential(*layers)


def model_of(name: str, outputs: int) -> Callable[..., nn.Module]:
    """Return a function that builds the named model for the shape of a row."""
    if name == "cnn":
        return partial(convolutional, outputs)

    build = {"linear": linear, "mlp": mlp}[name]

    def for_shape(*shape: int) -> nn.Module:
        model = build(outputs, math.prod(shape))
        return model if len(shape) == 1 else nn.Sequential(nn.Flatten(), model)

    return for_shape
