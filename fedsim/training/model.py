"""The model of a task: making it with a seed, and its parameters as a vector.

A model that can't be trained as a scenario asks is refused.
"""

from collections.abc import Hashable

import torch
from torch import Tensor, nn

from fedsim.data.federation import Site
from fedsim.data.loading import task_of
from fedsim.mistakes import STOPS, Mistake, said_by
from fedsim.outcomes import outcome_of
from fedsim.randomness import global_seed, torch_seed
from fedsim.scenario import catalog
from fedsim.scenario.schema import Scenario
from fedsim.strategy.local_rule import Part, Parts
from fedsim.strategy.trainable import trainable
from fedsim.training.adapt import adapted
from fedsim.training.batch_norm import without_batch_norm
from fedsim.training.by_name import ByName
from fedsim.training.in_use import check_in_use
from fedsim.training.losses import RowLosses
from fedsim.training.precision import check_layers, check_precision
from fedsim.training.rows_alone import some_rows


def best_device(wanted: str) -> str:
    """Return ``cuda`` or ``cpu``.

    Raises:
        Mistake: CUDA was asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise Mistake("device: expected a CUDA device, found none; use device = 'auto' or 'cpu'")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def architecture_of(scenario: Scenario) -> Hashable | None:
    """Return what a model with base weights from a file is made from, beside its seed; None for other models.

    A backbone is large, and most of its weights are the same under all seeds: trials of it need not be repeated.
    """
    adapt = scenario.training.adapt
    if adapt is None or adapt.base is None:
        return None
    return task_of(scenario).model, adapt.model_dump_json(), scenario.training.replace_batch_norm


def new_model(scenario: Scenario, site: Site, seed: int, device: str) -> nn.Module:
    """Make the task's model with initial weights that depend on the seed alone.

    Raises:
        Mistake: The model can't be trained as asked: it has a layer that mixes rows (BatchNorm),
            buffers that training changes, or nothing to train; or it can't be adapted as asked, or does not use an
            adapter.
    """
    input_shape = site.train.inputs.shape[1:]
    weights_seed = torch_seed(seed, "initial weights")
    with global_seed(weights_seed):  # layers draw them from the global generator
        model = _made(scenario, input_shape)
        if scenario.training.replace_batch_norm:
            model = without_batch_norm(model)
        if scenario.training.adapt is not None:
            model = adapted(model, scenario.training.adapt)

    for name, layer in model.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise Mistake(
                f"task: expected layers that treat each row alone, got {type(layer).__name__} ({name}); use GroupNorm "
                "or LayerNorm in place of BatchNorm, or let training.replace_batch_norm = true put GroupNorm there"
            )
    _check_buffers(model, site)
    if not trainable(model):
        raise Mistake("task: expected a model with parameters to train, got one whose parameters are all frozen")
    check_precision(scenario.training.precision, device)
    model = model.to(device)
    if scenario.training.precision == "bf16" and scenario.trains_with == "serial":
        check_layers(model, some_rows(model, site.train))
    if scenario.training.adapt is not None:
        check_in_use(model, site.train)
    return model


def _check_buffers(model: nn.Module, site: Site) -> None:
    """Make sure that a forward pass in training mode leaves a model's buffers as they are.

    What a buffer keeps from step to step is neither clipped nor noised nor sent. A constant, such as a table of
    positions, does no harm.

    Raises:
        Mistake: It changes one.
    """
    if not [*model.buffers()]:
        return
    before = {name: value.clone() for name, value in model.named_buffers()}
    was_training = model.training
    with torch.no_grad(), global_seed(0):
        model.train()
        model(some_rows(model, site.train))
        model.train(was_training)

    after = dict(model.named_buffers())
    for name, value in before.items():
        if not torch.equal(after[name], value):
            layer, _, buffer = name.rpartition(".")
            kind = type(model.get_submodule(layer)).__name__
            raise Mistake(
                f"task: expected layers that remember no rows, got {kind} ({layer or 'the model'}), whose buffer "
                f"{buffer} a forward pass in training mode changes; use a layer without running statistics, such as "
                "GroupNorm or LayerNorm"
            )


def _made(scenario: Scenario, input_shape: tuple[int, ...]) -> nn.Module:
    """Make the task's model; what the code of a task of the user's own raises is told as a mistake.

    Raises:
        Mistake: It can't be made, or is no model.
    """
    task = task_of(scenario)
    arguments = () if task.inputs else input_shape
    if not catalog.is_own_task(scenario.task):
        model = task.model(*arguments)
        return ByName(model, task.inputs) if task.inputs else model
    place = f"task {scenario.task_label}"
    shape = ", ".join(map(str, arguments))
    try:
        model = task.model(*arguments)
    except (Mistake, *STOPS):
        raise
    except BaseException as error:
        raise Mistake(f"{place}: its model({shape}) can't be made: {said_by(error)}") from None
    if not isinstance(model, nn.Module):
        raise Mistake(f"{place}: expected a torch.nn.Module from its model({shape}), got {type(model).__name__}")
    return ByName(model, task.inputs) if task.inputs else model


def losses_of(scenario: Scenario) -> RowLosses:
    """Return the loss of the scenario's task."""
    return outcome_of(task_of(scenario).kind).losses


def parts_of(model: nn.Module, vector: Tensor) -> dict[str, Tensor]:
    """Split a vector of the trainable parameters (params,) into {name: view of it}."""
    own = trainable(model)
    sizes = [value.numel() for value in own.values()]
    parts = {}
    for (name, value), part in zip(own.items(), vector.split(sizes), strict=True):
        parts[name] = part.view(value.shape)
    return parts


def layers_of(model: nn.Module) -> Parts:
    """Return the model's trainable parameters: names, types of layers, places in its vector."""
    layer_types = {name: type(layer).__name__ for name, layer in model.named_modules()}
    parts = []
    start = 0
    for name, value in trainable(model).items():
        stop = start + value.numel()
        layer_name = name.rpartition(".")[0]
        parts.append(Part(name, layer_types[layer_name], start, stop))
        start = stop
    return tuple(parts)
