"""Gradient inversion: rebuild a record from the update of a site that took one step on it alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from fedsim.federation import Examples
from fedsim.losses import RowLosses
from fedsim.randomness import Words, stream
from fedsim.scenario import Optimizer
from fedsim.training import Done, Noise, Plan, Streams, Work, parts_of

TrainAll = Callable[[Sequence[Work]], list[Done]]
_FOUND = 0.1  # the relative error below which a record counts as rebuilt
_STARTS, _STEPS = 3, 100  # of the search for inputs whose gradient fits


@dataclass(frozen=True)
class Inversion:
    """What was rebuilt.

    Attributes:
        method: ``analytic`` or ``gradient matching``.
        error: The median over the records of |rebuilt - record| / |record|.
        found: The share of the records with an error below 0.1.
        record: The first record, as the model sees it.
        rebuilt: What was made of it.
    """

    method: str
    error: float
    found: float
    record: np.ndarray
    rebuilt: np.ndarray


def invert(
    model: nn.Module, start: Tensor, losses: RowLosses, rows: Examples, noise: Noise | None, seed: int,
    train_all: TrainAll,
) -> Inversion:  # fmt: skip
    """Attack each of some records on its own, with or without clipping and noise.

    The attacker sees the model before and after one step of a site on one record, as in the first round of a site
    with a batch of one.
    """
    todo = Plan(steps=1, sampling_rate=1.0, expected_batch=1.0, optimizer=Optimizer(lr=1.0), noise=noise)
    works = []
    for number in range(len(rows)):
        record = Examples(rows.inputs[number : number + 1], rows.target[number : number + 1])
        streams = Streams(Words.of(seed, "inversion batches", number), Words.of(seed, "inversion noise", number))
        works.append(Work(model, start, record, todo, streams, losses))
    layer = _first_linear(model)
    rebuilt = []
    for work, done in zip(works, train_all(works), strict=True):
        gradient = start - done.parameters
        shape = work.examples.inputs.shape
        if layer is None:
            rebuilt.append(match_gradient(model, start, losses, gradient, shape, rows.target.unique()[:10], seed))
        else:
            rebuilt.append(analytic(model, gradient, layer).reshape(shape))
    found = torch.cat(rebuilt)
    error = (found - rows.inputs).flatten(1).norm(dim=1) / rows.inputs.flatten(1).norm(dim=1).clamp(min=1e-9)
    return Inversion(
        "gradient matching" if layer is None else "analytic",
        float(error.median()),
        float((error < _FOUND).float().mean()),
        rows.inputs[0].cpu().numpy(),
        found[0].cpu().numpy(),
    )


def analytic(model: nn.Module, gradient: Tensor, layer: str) -> Tensor:
    """Return the input of a linear layer from the gradient (params,) of one record: dL/dW = dL/db x input.

    Phong, Aono, Hayashi, Wang, Moriai 2018, https://eprint.iacr.org/2017/715, section 3. The unit with the largest bias
    gradient is used.
    """
    parts = parts_of(model, gradient)
    prefix = f"{layer}." if layer else ""
    weight, bias = parts[f"{prefix}weight"], parts[f"{prefix}bias"]
    unit = int(bias.abs().argmax())
    return weight[unit] / torch.where(bias[unit] == 0, 1.0, bias[unit])


def match_gradient(
    model: nn.Module, start: Tensor, losses: RowLosses, gradient: Tensor, shape: torch.Size, labels: Tensor, seed: int
) -> Tensor:
    """Return inputs whose gradient points where a seen gradient (params,) does.

    "Deep leakage from gradients" (Zhu, Liu, Han 2019, https://arxiv.org/abs/1906.08935) by L-BFGS, with the cosine
    distance of Geiping, Bauermeister, Droege, Moeller 2020 (https://arxiv.org/abs/2003.14053), which clipping does not
    change. In place of iDLG's reading of the label off the last layer, every label is tried.
    """
    random = stream(seed, "gradient matching")
    best, least = torch.zeros(shape), float("inf")
    for label in labels:
        for _ in range(_STARTS):
            guess = torch.from_numpy(random.standard_normal(shape, np.float32)).to(start).requires_grad_()
            optimizer = torch.optim.LBFGS([guess], max_iter=_STEPS, line_search_fn="strong_wolfe")

            def distance(guess: Tensor = guess, label: Tensor = label) -> Tensor:
                own = start.detach().clone().requires_grad_()
                outputs = functional_call(model, dict(parts_of(model, own)), (guess,))
                (found,) = torch.autograd.grad(losses(outputs, label[None]).sum(), own, create_graph=True)
                return 1 - functional.cosine_similarity(found, gradient, dim=0)

            def closure(optimizer: torch.optim.LBFGS = optimizer, distance: Callable[[], Tensor] = distance) -> float:
                optimizer.zero_grad()
                value = distance()
                value.backward()
                return float(value.detach())

            optimizer.step(closure)
            if (value := float(distance().detach())) < least:
                best, least = guess.detach(), value
    return best


def some(rows: Examples, count: int, seed: int) -> Examples:
    """Return a few records at random."""
    chosen = torch.from_numpy(stream(seed, "inversion records").permutation(len(rows))[:count])
    return replace(rows, inputs=rows.inputs[chosen], target=rows.target[chosen])


def _first_linear(model: nn.Module) -> str | None:
    """Return the name of the layer that sees the record as it is, if it is linear with a bias."""
    for name, layer in model.named_modules():
        if [*layer.parameters(recurse=False)]:
            return name if isinstance(layer, nn.Linear) and layer.bias is not None else None
    return None
