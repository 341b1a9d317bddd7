"""Several models to start from, for a strategy that trains more than one."""

import copy

import torch
from torch import Tensor, nn

from fedsim.mistakes import Mistake
from fedsim.randomness import global_seed, torch_seed
from fedsim.strategy.trainable import vector_of


def initial_models(model: nn.Module, seed: int, count: int) -> list[Tensor]:
    """Return the parameters of some models with layers drawn anew, as torch draws them: (params,) each.

    That includes layers which the task starts at zero: models that start alike would stay alike.

    Args:
        model: The architecture.
        seed: The scenario's; each model's weights come from its number's name.
        count: How many.

    Raises:
        Mistake: Drawing anew makes no difference.
    """
    drawn = []
    for number in range(count):
        fresh = copy.deepcopy(model)
        with global_seed(torch_seed(seed, "initial weights", "model", number)):  # layers draw from the global generator
            for layer in fresh.modules():
                if hasattr(layer, "reset_parameters"):
                    layer.reset_parameters()  # type: ignore[operator]
        drawn.append(vector_of(fresh))
    if count > 1 and torch.equal(drawn[0], drawn[1]):
        raise Mistake("task: expected a model whose layers can be drawn anew (reset_parameters), to start from several")
    return drawn
