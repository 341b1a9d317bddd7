"""Training many sites at once, as one stacked model.

The parameters of all sites are stacked, {name: (sites, *shape)}, and their batches are padded to (sites, batch, ...)
with a mask. One forward and one backward pass serve all sites; the optimizer is torch's, on the stacked tensors, whose
arithmetic is elementwise and so each site's own. Batches and noise come from the same named streams as in
``fedsim.training``, with which this module must agree up to rounding.

Private steps clip each row's gradient exactly. Where every layer with parameters is a Linear used once on (rows,
features), norms come without per-row gradients ("ghost norms": Goodfellow 2015, https://arxiv.org/abs/1510.01799; Li et
al. 2022, https://arxiv.org/abs/2110.05679), and the clipped sum is one batched product of the clipped output gradients
with the inputs ("book-keeping": Bu et al. 2023, https://arxiv.org/abs/2210.00038). Elsewhere ``vmap`` computes the
gradient of every row.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from fedsim.federation import Examples
from fedsim.privacy.ledger import Mechanism
from fedsim.training import Plan, Work, new_optimizer, poisson_batch

Stack = dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """One step's rows of all sites: inputs (sites, batch, ...), target and mask (sites, batch)."""

    inputs: Tensor
    target: Tensor
    mask: Tensor


def same_steps(work: Work) -> tuple[object, ...]:
    """Return what sites must have in common to be stacked; denominators and noise may differ."""
    todo = work.plan
    shapes = tuple((name, value.shape) for name, value in work.model.named_parameters())
    return shapes, todo.steps, todo.sampling_rate, todo.optimizer, todo.noise is None


def bytes_of_site(work: Work) -> int:
    """Return roughly how much memory a site takes in a stack: parameters, optimizer, batch, gradients of its rows."""
    parameters = sum(value.numel() for value in work.model.parameters())
    rows = 1 + int(work.plan.sampling_rate * len(work.examples))
    by_row = work.plan.noise is not None and not _only_linear_once(work.model, work.examples.inputs[:1])
    return 4 * (parameters * (6 + rows * by_row) + 8 * rows * (1 + work.examples.inputs[:1].numel()))


def train_together(works: list[Work]) -> list[Mechanism | None]:
    """Train each work's model in place, as ``training.train`` would one by one.

    Args:
        works: Of one architecture, whose plans agree in ``same_steps``.

    Returns:
        What was done to each site's rows, or None where that was not private.
    """
    model, todo, noises = works[0].model, works[0].plan, [work.plan.noise for work in works]
    stack = {name: _stacked(works, name) for name, _ in model.named_parameters()}
    divisors = next(iter(stack.values())).new_tensor([work.plan.expected_batch for work in works])  # (sites,)
    clips = divisors.new_tensor([noise.clip if noise else 0.0 for noise in noises])  # (sites,)
    gradients = _clipped_gradients(works[0]) if todo.noise else _plain_gradients(model)
    optimizer = new_optimizer(todo.optimizer, stack.values())
    draws = 0
    for _ in range(todo.steps):
        batch = _pad([poisson_batch(work.examples, todo.sampling_rate, work.streams.batches) for work in works])
        sums = gradients(stack, batch, clips)
        draws += 1
        for name, value in stack.items():
            noisy = sums[name] + _noise(works, value) if todo.noise else sums[name]
            value.grad = noisy / _like(divisors, value)
        optimizer.step()
    with torch.no_grad():
        for site, work in enumerate(works):
            for name, value in stack.items():
                work.model.get_parameter(name).copy_(value[site])
    return [_mechanism(work.plan, draws) for work in works]


def _mechanism(did: Plan, draws: int) -> Mechanism | None:
    if did.noise is None:
        return None
    return Mechanism(did.sampling_rate, did.noise.multiplier, did.noise.clip, did.expected_batch, draws)


Gradients = Callable[[Stack, Batch, Tensor], Stack]
"""From the stack, a batch and each site's clip (sites,) to each site's sum of gradients, {name: (sites, *shape)}."""


def _plain_gradients(model: nn.Module) -> Gradients:
    blank = _blank(model)

    def gradients(stack: Stack, batch: Batch, clips: Tensor) -> Stack:
        logits = vmap(lambda parameters, inputs: functional_call(blank, parameters, (inputs,)))(stack, batch.inputs)
        loss = (_losses(logits.squeeze(2), batch.target) * batch.mask).sum()
        return dict(zip(stack, torch.autograd.grad(loss, [*stack.values()]), strict=True))

    return gradients


def _clipped_gradients(work: Work) -> Gradients:
    if _only_linear_once(work.model, work.examples.inputs[:1]):
        return _ghost_gradients(work.model)
    return _row_gradients(work.model)


def _only_linear_once(model: nn.Module, row: Tensor) -> bool:
    """Whether all parameters are in Linear layers, each of which is used once, on (rows, features)."""
    used: list[str] = []
    two = row.new_zeros(2, *row.shape[1:])

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda layer, args, output: used.append(name if args[0].shape[:-1] == (2,) else f"not {name}")

    holders = {name: layer for name, layer in model.named_modules() if [*layer.parameters(recurse=False)]}
    handles = [layer.register_forward_hook(hook(name)) for name, layer in holders.items()]
    try:
        model(two)
    finally:
        for handle in handles:
            handle.remove()
    return sorted(used) == sorted(holders) and all(type(layer) is nn.Linear for layer in holders.values())


def _row_gradients(model: nn.Module) -> Gradients:
    """Compute the gradient of every row, clip, sum: any layer that ``vmap`` knows."""
    blank = _blank(model)

    def loss(parameters: Stack, inputs: Tensor, target: Tensor) -> Tensor:
        return _losses(functional_call(blank, parameters, (inputs[None],))[0, 0], target)

    every_row = vmap(vmap(grad(loss), in_dims=(None, 0, 0)))

    def gradients(stack: Stack, batch: Batch, clips: Tensor) -> Stack:
        rows = every_row({name: value.detach() for name, value in stack.items()}, batch.inputs, batch.target)
        squares = torch.stack([value.flatten(2).pow(2).sum(2) for value in rows.values()]).sum(0)  # (sites, batch)
        factor = _factor(squares, batch.mask, clips)
        return {
            name: torch.einsum("sb,sb...->s...", factor, torch.where(_like(factor > 0, value), value, 0.0))
            for name, value in rows.items()
        }

    return gradients


def _ghost_gradients(model: nn.Module) -> Gradients:
    """Clip and sum without per-row gradients: Linear layers on (rows, features) only."""
    blank = _blank(model)
    layers = {name: layer for name, layer in blank.named_modules() if isinstance(layer, nn.Linear)}

    def gradients(stack: Stack, batch: Batch, clips: Tensor) -> Stack:
        inputs, outputs = _at_layers(blank, layers, stack, batch)
        squares = torch.stack([
            outputs[name].pow(2).sum(2) * (inputs[name].pow(2).sum(2) + float(layer.bias is not None))
            for name, layer in layers.items()
        ]).sum(0)  # (sites, batch)  # fmt: skip
        factor = _factor(squares, batch.mask, clips)[:, :, None]
        sums: Stack = {}
        for name, layer in layers.items():
            clipped = torch.where(factor > 0, factor * outputs[name], 0.0)  # (sites, batch, out)
            sums[f"{name}.weight".lstrip(".")] = clipped.mT @ torch.where(factor > 0, inputs[name], 0.0)
            if layer.bias is not None:
                sums[f"{name}.bias".lstrip(".")] = clipped.sum(1)
        return sums

    return gradients


def _at_layers(model: nn.Module, layers: dict[str, nn.Linear], stack: Stack, batch: Batch) -> tuple[Stack, Stack]:
    """Return each layer's inputs and the loss's gradients at its outputs, {layer: (sites, batch, features)}.

    A zero is added to each output; the gradient at that zero is the gradient at the output, row by row.
    """
    zeros = {
        name: batch.inputs.new_zeros(*batch.mask.shape, layer.out_features, requires_grad=True)
        for name, layer in layers.items()
    }

    def forward(parameters: Stack, added: Stack, inputs: Tensor) -> tuple[Tensor, Stack]:
        seen: Stack = {}

        def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
            def keep(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
                seen[name] = args[0]
                return output + added[name]

            return keep

        handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
        try:
            return functional_call(model, parameters, (inputs,)), seen
        finally:
            for handle in handles:
                handle.remove()

    fixed = {name: value.detach() for name, value in stack.items()}
    logits, seen = vmap(forward)(fixed, zeros, batch.inputs)
    loss = _losses(logits.squeeze(2), batch.target).sum()
    return seen, dict(zip(zeros, torch.autograd.grad(loss, [*zeros.values()]), strict=True))


def _factor(squares: Tensor, mask: Tensor, clips: Tensor) -> Tensor:
    """Return what each row's gradient is multiplied by, (sites, batch): 0 for padding and where it is not finite."""
    factor = (clips[:, None] / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    return torch.where(mask & squares.isfinite(), factor, 0.0)


def _noise(works: list[Work], like: Tensor) -> Tensor:
    """Draw each site's noise from its own stream, (sites, *shape)."""
    drawn = np.stack([work.streams.noise.standard_normal(tuple(like.shape[1:]), np.float32) for work in works])
    stds = [work.plan.noise.multiplier * work.plan.noise.clip if work.plan.noise else 0.0 for work in works]
    return torch.from_numpy(drawn).to(like) * _like(like.new_tensor(stds), like)


def _pad(batches: list[Examples]) -> Batch:
    """Fill batches up to the longest with zeros that the mask leaves out; to one row at least, which ``vmap`` needs."""
    one = Examples(batches[0].inputs.new_zeros(1, *batches[0].inputs.shape[1:]), batches[0].target.new_zeros(1))
    padded = [*batches, one]
    inputs = pad_sequence([batch.inputs for batch in padded], batch_first=True)[:-1]
    target = pad_sequence([batch.target for batch in padded], batch_first=True)[:-1]
    counts = torch.tensor([len(batch) for batch in batches], device=target.device)
    return Batch(inputs, target, mask=torch.arange(target.shape[1], device=target.device) < counts[:, None])


def _stacked(works: list[Work], name: str) -> Tensor:
    return torch.stack([work.model.get_parameter(name).detach() for work in works]).requires_grad_()


def _losses(logits: Tensor, target: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, target, reduction="none")


def _like(values: Tensor, other: Tensor) -> Tensor:
    """Add dimensions of size 1 until ``values`` can be multiplied with ``other``."""
    return values.reshape(*values.shape, *[1] * (other.dim() - values.dim()))


def _blank(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).requires_grad_(False)
