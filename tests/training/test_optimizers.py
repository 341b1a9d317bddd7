import pytest
import torch
from torch import nn

from fedsim.scenario.schema import Optimizer
from fedsim.training.optimizers import Sgd, in_place_optimizer, torch_optimizer


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_steps_are_those_of_torch_bit_for_bit(momentum: float, weight_decay: float):
    chosen = Optimizer(name="sgd", lr=0.3, momentum=momentum, weight_decay=weight_decay)
    start = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    results = []
    for make in (in_place_optimizer, torch_optimizer):
        random = torch.Generator().manual_seed(1)
        parameters = [nn.Parameter(row.clone()) for row in start]
        optimizer = make(chosen, parameters)
        for step in range(5):
            optimizer.zero_grad()
            for number, parameter in enumerate(parameters):
                gradient = torch.randn(7, generator=random)
                if (step, number) != (0, 1):  # a parameter may have no gradient in a step
                    parameter.grad = gradient
            optimizer.step()
        results.append(torch.stack([parameter.detach() for parameter in parameters]))
    assert isinstance(in_place_optimizer(chosen, []), Sgd)
    assert torch.equal(*results)
    assert not torch.equal(results[0], start)


def test_adam_is_torchs():
    chosen = Optimizer(name="adam", lr=0.1)
    assert isinstance(in_place_optimizer(chosen, [nn.Parameter(torch.zeros(1))]), torch.optim.Adam)
