"""Running a model with other parameters leaves the model as it was."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from fedsim.training.functional import outputs_with
from fedsim.training.model import parts_of


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(inputs).tanh())


def used_twice() -> nn.Module:
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.Tanh(), layer)


class Alone(nn.Module):
    """A parameter of the model itself."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * self.scale


@pytest.mark.parametrize("make", [Tied, used_twice, Alone])
def test_outputs_are_those_of_a_model_with_these_parameters(make):
    model, other = make(), make()
    own = [*model.parameters()]
    inputs = torch.randn(4, 3)
    vector = parameters_to_vector(other.parameters()).detach()
    for _ in range(2):
        torch.testing.assert_close(outputs_with(model, parts_of(model, vector), inputs), other(inputs))
        assert all(before is after for before, after in zip(own, model.parameters(), strict=True))
