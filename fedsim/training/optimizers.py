"""The optimizers that a scenario names."""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from fedsim.scenario.schema import Optimizer


class InPlace(Protocol):
    """Moves parameters in place by the gradients that they hold."""

    def zero_grad(self) -> None:
        """Forget all gradients."""
        ...

    def step(self) -> object:
        """Move every parameter that has a gradient."""
        ...


class Sgd:
    """Torch's SGD, by torch's own arithmetic, without the class around it.

    ``torch.optim.SGD`` imports torch's compiler when the first one is made: a seventh of a short run, for nothing.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        self._parameters = list(parameters)
        self._velocities: list[Tensor | None] = [None] * len(self._parameters)
        self._lr = lr
        self._momentum = momentum
        self._weight_decay = weight_decay

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        moving = [number for number, parameter in enumerate(self._parameters) if parameter.grad is not None]
        gradients = [gradient for parameter in self._parameters if (gradient := parameter.grad) is not None]
        velocities = [self._velocities[number] for number in moving]
        sgd(
            [self._parameters[number] for number in moving],
            gradients,
            velocities,
            has_sparse_grad=any(gradient.is_sparse for gradient in gradients),
            lr=self._lr,
            momentum=self._momentum,
            weight_decay=self._weight_decay,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )
        for number, velocity in zip(moving, velocities, strict=True):
            self._velocities[number] = velocity


def in_place_optimizer(chosen: Optimizer, parameters: Iterable[Tensor]) -> InPlace:
    """Make what moves parameters as ``torch_optimizer`` does, bit for bit."""
    if chosen.name == "sgd":
        return Sgd(parameters, chosen.lr, chosen.momentum, chosen.weight_decay)
    return torch_optimizer(chosen, parameters)


def torch_optimizer(chosen: Optimizer, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """Make the torch optimizer that a scenario names."""
    if chosen.name == "adam":
        return torch.optim.Adam(
            parameters,
            lr=chosen.lr,
            weight_decay=chosen.weight_decay,
            foreach=True,
        )
    return torch.optim.SGD(
        parameters,
        lr=chosen.lr,
        momentum=chosen.momentum,
        weight_decay=chosen.weight_decay,
    )
