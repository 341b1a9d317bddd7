"""The model of a task: making it with a seed, and its parameters as a vector.

A model that can't be trained as a scenario asks is refused.
"""

import torch
from torch import Tensor, nn

from fedsim.data.federation import Site
from fedsim.data.loading import task_of
from fedsim.mistakes import STOPS, Mistake, said_by
from fedsim.randomness import global_seed, torch_seed
from fedsim.scenario import catalog
from fedsim.scenario.schema import Scenario
from fedsim.strategy.local_rule import Part, Parts
from fedsim.training.losses import LOSSES, RowLosses


def best_device(wanted: str) -> str:
    """Return ``cuda`` or ``cpu``.

    Raises:
        Mistake: CUDA was asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise Mistake("device: expected a CUDA device, found none; use device = 'auto' or 'cpu'")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def new_model(scenario: Scenario, site: Site, seed: int, device: str) -> nn.Module:
    """Make the task's model with initial weights that depend on the seed alone.

    Raises:
        Mistake: The model can't be trained as asked: it has buffers, or a layer that mixes rows
            (BatchNorm).
    """
    input_shape = site.train.inputs.shape[1:]
    weights_seed = torch_seed(seed, "initial weights")
    with global_seed(weights_seed):  # layers draw them from the global generator
        model = _made(scenario, input_shape)

    for name, layer in model.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) or [*layer.buffers(recurse=False)]:
            raise Mistake(
                f"task: expected layers that treat each row alone and have no buffers, got "
                f"{type(layer).__name__} ({name}); use GroupNorm or LayerNorm in place of BatchNorm"
            )
    return model.to(device)


def _made(scenario: Scenario, input_shape: tuple[int, ...]) -> nn.Module:
    """Make the task's model; what the code of a task of the user's own raises is told as a mistake.

    Raises:
        Mistake: It can't be made, or is no model.
    """
    task = task_of(scenario)
    if not catalog.is_own_task(scenario.task):
        return task.model(*input_shape)
    place = f"task {scenario.task_label}"
    shape = ", ".join(map(str, input_shape))
    try:
        model = task.model(*input_shape)
    except (Mistake, *STOPS):
        raise
    except BaseException as error:
        raise Mistake(f"{place}: its model({shape}) can't be made: {said_by(error)}") from None
    if not isinstance(model, nn.Module):
        raise Mistake(f"{place}: expected a torch.nn.Module from its model({shape}), got {type(model).__name__}")
    return model


def losses_of(scenario: Scenario) -> RowLosses:
    """Return the loss of the scenario's task."""
    return LOSSES[task_of(scenario).kind]


def parts_of(model: nn.Module, vector: Tensor) -> dict[str, Tensor]:
    """Split a vector of all parameters (params,) into {name: view of it}."""
    sizes = [value.numel() for value in model.parameters()]
    parts = {}
    for (name, value), part in zip(model.named_parameters(), vector.split(sizes), strict=True):
        parts[name] = part.view(value.shape)
    return parts


def layers_of(model: nn.Module) -> Parts:
    """Return the model's parameters: names, types of layers, places in its vector."""
    layer_types = {name: type(layer).__name__ for name, layer in model.named_modules()}
    parts = []
    start = 0
    for name, value in model.named_parameters():
        stop = start + value.numel()
        layer_name = name.rpartition(".")[0]
        parts.append(Part(name, layer_types[layer_name], start, stop))
        start = stop
    return tuple(parts)
