"""GroupNorm in the place of BatchNorm, which mixes rows and remembers them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedsim.mistakes import Mistake

_MOST_GROUPS = 32


def without_batch_norm(model: nn.Module) -> nn.Module:
    """Replace each BatchNorm of a model by a GroupNorm with its scale and shift; change the model in place.

    Opacus' ``ModuleValidator`` does the same with up to 32 groups. Here a group has two channels at least: a group of
    one number, as BatchNorm1d on a table would give, is always zero after it is normalized.

    Returns:
        The model; another module where the model itself is a BatchNorm.

    Raises:
        Mistake: There is no BatchNorm, or it doesn't know its number of channels yet.
    """
    if not any(isinstance(layer, _BatchNorm) for layer in model.modules()):
        raise Mistake("training.replace_batch_norm: expected a model with BatchNorm to replace, got one without")
    return _replaced(model, "")


def _replaced(module: nn.Module, name: str) -> nn.Module:
    if isinstance(module, _BatchNorm):
        return _group_norm(module, name)
    for child_name, child in module.named_children():
        setattr(module, child_name, _replaced(child, f"{name}.{child_name}" if name else child_name))
    return module


def _group_norm(layer: _BatchNorm, name: str) -> nn.GroupNorm:
    """Return the GroupNorm that stands for a BatchNorm.

    Raises:
        Mistake: It doesn't know its number of channels yet.
    """
    channels = layer.num_features
    if channels < 1:
        raise Mistake(f"task: expected a {type(layer).__name__} with a number of channels ({name}), got a lazy one")
    most = max(1, min(_MOST_GROUPS, channels // 2))
    groups = max(count for count in range(1, most + 1) if channels % count == 0)
    norm = nn.GroupNorm(groups, channels, eps=layer.eps, affine=layer.affine)
    if layer.affine:
        with torch.no_grad():
            norm.weight.copy_(layer.weight)
            norm.bias.copy_(layer.bias)
        norm.weight.requires_grad_(layer.weight.requires_grad)
        norm.bias.requires_grad_(layer.bias.requires_grad)
    return norm.train(layer.training)
