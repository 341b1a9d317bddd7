"""Train a small part of a model, from weights that are there already: low-rank adapters, or its last layer.

LoRA: Hu et al. 2021, https://arxiv.org/abs/2106.09685, equation 3.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from fedsim.data.base_weights import PLACE, base_digest
from fedsim.mistakes import Mistake
from fedsim.scenario.schema import Adapt

_CLOSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


class LowRank(nn.Module):
    """A frozen Linear layer and two trained matrices: ``y = base(x) + alpha / rank * B A x``.

    A is random and B is zero, so that training begins with the base's outputs. Both are Linear layers, which both
    engines know.

    Args:
        base: The layer, from ``in`` to ``out`` features.
        rank: The rows of A (rank, in) and the columns of B (out, rank).
        alpha: The scale of the product, over the rank.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base_layer = base.requires_grad_(False)
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the outputs, (..., out)."""
        return self.base_layer(inputs) + self.scale * self.lora_B(self.lora_A(inputs))


def adapted(model: nn.Module, adapt: Adapt) -> nn.Module:
    """Give a model its base weights, freeze it, and put in what is trained; change it in place.

    Random numbers come from the global generator, after those of the model's own weights.

    Raises:
        Mistake: Modules are not there or can't be adapted, the rank is too large, or the base weights are not the
            model's: all faults.
    """
    wanted = adapt.modules or [_last_with_parameters(model)]
    chosen, faults = _modules(model, wanted, "modules")
    also, more = _modules(model, adapt.also or [], "also")
    faults += more
    if adapt.method == "lora":
        faults += _faults_of_lora(model, chosen, adapt)
    whole = also if adapt.method == "lora" else chosen
    trained = {id(value) for name in whole for value in model.get_submodule(name).parameters()}
    weights = {} if adapt.base is None else _weights(adapt.base, base_digest(adapt))
    if adapt.base is not None:
        faults += _faults_of_base(model, weights, trained)
    if faults:
        raise Mistake("\n".join(faults))

    _begin_with(model, weights, trained)
    for value in model.parameters():
        value.requires_grad_(id(value) in trained)
    if adapt.method == "head":
        return model

    rank = adapt.rank or 0
    for name in chosen:
        parent, _, last = name.rpartition(".")
        layer = LowRank(model.get_submodule(name), rank, adapt.alpha or float(rank))  # type: ignore[arg-type]
        if not name:
            return layer
        setattr(model.get_submodule(parent), last, layer)
    return model


def _last_with_parameters(model: nn.Module) -> str:
    """Return the name of the last module that has parameters of its own."""
    names = [name for name, module in model.named_modules() if [*module.parameters(recurse=False)]]
    if not names:
        raise Mistake("training.adapt: expected a model with parameters, got one without")
    return names[-1]


def _modules(model: nn.Module, wanted: Sequence[str], key: str) -> tuple[list[str], list[str]]:
    """Return the names of the modules whose names end so, each once, in the model's order; and the faults."""
    with_parameters = [name for name, module in model.named_modules() if [*module.parameters()]]
    found: set[str] = set()
    faults = []
    for end in wanted:
        matches = {name for name in with_parameters if name == end or name.endswith(f".{end}")}
        if not matches:
            there = ", ".join(_ends(model)) or "none"
            faults.append(f"training.adapt.{key}: expected the end of a module's name, got {end!r}, which matches "
                          f"nothing; there are {there}")  # fmt: skip
        found |= matches
    return [name for name in with_parameters if name in found], faults


def _ends(model: nn.Module) -> list[str]:
    """Return the ends of the names of layers that have weights, each once: ``query (Linear)``."""
    ends = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding | nn.modules.conv._ConvNd):
            end = name.rpartition(".")[2]
            if end.isdigit():  # a number says nothing alone
                end = name
            ends[f"{end} ({type(module).__name__})"] = None
    return [*ends]


def _faults_of_lora(model: nn.Module, chosen: Collection[str], adapt: Adapt) -> list[str]:
    faults = []
    adaptable = [name for name, module in model.named_modules() if _takes_lora(model, name, module)]
    for name in chosen:
        module = model.get_submodule(name)
        if name not in adaptable:
            kind = type(module).__name__
            inside = next((each for each in _closed_above(model, name)), "")
            why = f"inside {inside}, which uses its weight without calling it" if inside else f"a {kind}"
            faults.append(f"training.adapt.modules: expected Linear layers, got {name} ({why}); LoRA can adapt "
                          f"{', '.join(adaptable) or 'nothing of this model'}")  # fmt: skip
        elif isinstance(module, nn.Linear) and (adapt.rank or 0) > min(module.in_features, module.out_features):
            size = f"{module.out_features} x {module.in_features}"
            faults.append(
                f"training.adapt.rank: expected at most the smaller side of {name} ({size}), got {adapt.rank}"
            )
    uses: dict[int, int] = {}
    for _, value in model.named_parameters(remove_duplicate=False):
        uses[id(value)] = uses.get(id(value), 0) + 1
    for name in chosen:
        module = model.get_submodule(name)
        if name in adaptable and any(uses[id(value)] > 1 for value in module.parameters()):
            faults.append(f"training.adapt.modules: expected layers with weights of their own, got {name}, which "
                          "shares them with another layer")  # fmt: skip
    return faults


def _takes_lora(model: nn.Module, name: str, module: nn.Module) -> bool:
    return type(module) is nn.Linear and not _closed_above(model, name)


def _closed_above(model: nn.Module, name: str) -> list[str]:
    """Return the types of the modules around a module that use its weight themselves."""
    parts = name.split(".")
    above = [model.get_submodule(".".join(parts[:count])) for count in range(len(parts))]
    return [type(module).__name__ for module in above if isinstance(module, _CLOSED)]


def _faults_of_base(model: nn.Module, weights: Mapping[str, Tensor], trained: Collection[int]) -> list[str]:
    """Return what of a file of weights is not what a model needs.

    What is trained whole may lack in the file, as a new last layer does.
    """
    own = model.state_dict(keep_vars=True)
    faults = []
    for name, value in own.items():
        if name not in weights:
            if isinstance(value, nn.Parameter) and id(value) not in trained:  # a constant, such as places, may lack
                faults.append(f"{PLACE}: expected {name} {tuple(value.shape)}, it is not there")
        elif weights[name].shape != value.shape:
            shape = tuple(weights[name].shape)
            faults.append(f"{PLACE}: expected {name} {tuple(value.shape)}, got {shape}")
        elif weights[name].is_floating_point() != value.is_floating_point():
            faults.append(f"{PLACE}: expected {name} as {value.dtype}, got {weights[name].dtype}")
    return faults + [f"{PLACE}: expected parameters of the model, got {name}" for name in weights if name not in own]


def _begin_with(model: nn.Module, weights: Mapping[str, Tensor], trained: Collection[int]) -> None:
    """Give a model the weights of a file, those that are there; its frozen ones are the file's own tensors.

    So they are in memory once, however many models there are.
    """
    for name, value in model.state_dict(keep_vars=True).items():
        if name in weights:
            given = weights[name].to(value.dtype)
            value.data = given.clone() if id(value) in trained else given


@lru_cache(maxsize=1)
def _weights(path: str, digest: str) -> Mapping[str, Tensor]:
    """Read a file of weights; with the digest as a key, a file that was changed is read again.

    Raises:
        Mistake: It is no safetensors file.
    """
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise Mistake(f"{PLACE}: expected a safetensors file, got {path!r}: {error}") from None


def merged(model: nn.Module) -> nn.Module:
    """Put adapters into the weights beside which they stand, in place: the same outputs from Linear layers alone."""
    for name, module in [*model.named_modules()]:
        if not isinstance(module, LowRank):
            continue
        layer = module.base_layer
        with torch.no_grad():
            product = module.lora_B.weight @ module.lora_A.weight
            layer.weight = nn.Parameter(layer.weight + module.scale * product, requires_grad=False)
        if not name:
            return layer
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, layer)
    return model
