"""Gradient inversion: rebuild records from the updates that a site sends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from fedsim.audits import leakage
from fedsim.data.federation import Examples
from fedsim.randomness import Words, stream
from fedsim.scenario.schema import Optimizer
from fedsim.training.losses import RowLosses
from fedsim.training.model import parts_of
from fedsim.training.work import Done, Noise, Plan, Streams, Work

TrainAll = Callable[[Sequence[Work]], list[Done]]
_FOUND = 0.1  # the relative error below which a record counts as rebuilt
_SEARCHED = 3  # records that are searched for: that takes seconds for each
_LARGEST = 100_000  # parameters, and inputs, of what is searched for


@dataclass(frozen=True)
class Inversion:
    """What was rebuilt.

    Attributes:
        error: The median over the records of |rebuilt - record| / |record|.
        found: The share of the records with an error below 0.1.
        records: How many were attacked.
        record: The first record, as the model sees it.
        rebuilt: What was made of it.
    """

    error: float
    found: float
    records: int
    record: np.ndarray
    rebuilt: np.ndarray


def invert(
    model: nn.Module, start: Tensor, losses: RowLosses, rows: Examples, noise: Noise | None, seed: int,
    train_all: TrainAll,
) -> dict[str, Inversion]:  # fmt: skip
    """Attack each of some records on its own, with or without clipping and noise: {method: what was rebuilt}.

    The attacker sees the model before and after one step of a site on one record, as in the first round of a site
    with a batch of one. ``analytic`` solves for the record where the first layer is linear; ``dlg`` and ``idlg`` search
    for it, and for fewer records.
    """
    gradients = _of_one_record(model, start, losses, rows, noise, seed, train_all)
    shape, layer = rows.inputs[:1].shape, _first_linear(model)
    distance = leakage.squared if noise is None else leakage.angle
    search = {
        "dlg": partial(leakage.dlg, distance=distance),
        "idlg": partial(leakage.idlg, distance=distance, labels=rows.target.unique()[:10]),
    }
    found = {}
    if layer is not None:
        found["analytic"] = _judge(rows, [analytic(model, one, layer).reshape(shape) for one in gradients])
    if len(start) <= _LARGEST and shape.numel() <= _LARGEST:
        few, seen = Examples(rows.inputs[:_SEARCHED], rows.target[:_SEARCHED]), gradients[:_SEARCHED]
        for name, method in search.items():
            found[name] = _judge(few, [method(model, start, losses, one, shape, seed=seed) for one in seen])
    return found


def from_a_round(
    model: nn.Module, start: Tensor, losses: RowLosses, sites: Iterable[tuple[Examples, Plan]], seed: int,
    train_all: TrainAll,
) -> Inversion | None:  # fmt: skip
    """Solve for a record in the update that each site sends in a usual round; None if no layer allows it.

    Each unit of the first layer gives a candidate, and the best of them counts, held against the record of the site
    that is nearest to it: more than an attacker can know.
    """
    layer = _first_linear(model)
    if layer is None:
        return None
    pairs = list(sites)
    works = [
        Work(model, start, rows, todo, _streams(seed, "round", site), losses)
        for site, (rows, todo) in enumerate(pairs)
    ]  # fmt: skip
    best = []
    for (rows, _), done in zip(pairs, train_all(works), strict=True):
        inputs, candidates = rows.inputs.flatten(1), _candidates(model, start - done.parameters, layer)
        errors = torch.cdist(candidates, inputs) / inputs.norm(dim=1).clamp(min=1e-9)  # (units, rows)
        unit, row = divmod(int(errors.nan_to_num(torch.inf).argmin()), len(inputs))
        best.append((rows.inputs[row], candidates[unit].reshape(rows.inputs[row].shape)))
    records, rebuilt = (torch.stack(one) for one in zip(*best, strict=True))
    return _judge(Examples(records, records), list(rebuilt[:, None]))


def analytic(model: nn.Module, gradient: Tensor, layer: str) -> Tensor:
    """Return the input of a linear layer from the gradient (params,) of one record: dL/dW = dL/db x input.

    Phong, Aono, Hayashi, Wang, Moriai 2018, https://eprint.iacr.org/2017/715, section 3. The unit with the largest bias
    gradient is used.
    """
    prefix = f"{layer}." if layer else ""
    unit = int(parts_of(model, gradient)[f"{prefix}bias"].abs().argmax())
    return _candidates(model, gradient, layer)[unit]


def some(rows: Examples, count: int, seed: int) -> Examples:
    """Return a few records at random."""
    chosen = torch.from_numpy(stream(seed, "inversion records").permutation(len(rows))[:count])
    return replace(rows, inputs=rows.inputs[chosen], target=rows.target[chosen])


def _of_one_record(
    model: nn.Module, start: Tensor, losses: RowLosses, rows: Examples, noise: Noise | None, seed: int,
    train_all: TrainAll,
) -> list[Tensor]:  # fmt: skip
    """Return what a site reveals by one step on each record alone, with or without noise, each (params,)."""
    todo = Plan(steps=1, sampling_rate=1.0, expected_batch=1.0, optimizer=Optimizer(lr=1.0), noise=noise)
    works = []
    for number in range(len(rows)):
        record = Examples(rows.inputs[number : number + 1], rows.target[number : number + 1])
        works.append(Work(model, start, record, todo, _streams(seed, "inversion", number), losses))
    return [start - done.parameters for done in train_all(works)]


def _judge(rows: Examples, rebuilt: Sequence[Tensor]) -> Inversion:
    """Hold what was rebuilt, each (1, ...), against the records."""
    found = torch.cat([*rebuilt])
    error = (found - rows.inputs).flatten(1).norm(dim=1) / rows.inputs.flatten(1).norm(dim=1).clamp(min=1e-9)
    return Inversion(
        float(error.median()),
        float((error < _FOUND).float().mean()),
        len(rows),
        rows.inputs[0].cpu().numpy(),
        found[0].cpu().numpy(),
    )


def _candidates(model: nn.Module, gradient: Tensor, layer: str) -> Tensor:
    """Return for each unit of a linear layer its weights' gradient over its bias', (units, inputs)."""
    parts = parts_of(model, gradient)
    prefix = f"{layer}." if layer else ""
    weight, bias = parts[f"{prefix}weight"], parts[f"{prefix}bias"]
    return weight / torch.where(bias == 0, 1.0, bias)[:, None]


def _streams(seed: int, kind: str, number: int) -> Streams:
    return Streams(Words.of(seed, f"{kind} batches", number), Words.of(seed, f"{kind} noise", number))


def _first_linear(model: nn.Module) -> str | None:
    """Return the name of the layer that sees the record as it is, if it is linear with a bias."""
    for name, layer in model.named_modules():
        if [*layer.parameters(recurse=False)]:
            return name if isinstance(layer, nn.Linear) and layer.bias is not None else None
    return None
