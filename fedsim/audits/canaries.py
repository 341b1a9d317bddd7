"""Canaries: records made to be noticed, put through the very training code, and looked for in what it releases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from fedsim.audits.bounds import one_run_bound, paired_bound
from fedsim.audits.trade_off import one_run_noise_bound, paired_noise_bound
from fedsim.data.federation import Examples
from fedsim.privacy.accounting import Segment, epsilon
from fedsim.randomness import Words, stream
from fedsim.scenario.schema import Optimizer
from fedsim.training.functional import outputs_with
from fedsim.training.losses import RowLosses, binary
from fedsim.training.model import parts_of
from fedsim.training.work import Done, Plan, Streams, Work

TrainAll = Callable[[Sequence[Work]], list[Done]]
_AT_ONCE = 1000  # works that are trained together
_SMALL_STEP = 1e-6  # of the model with a coordinate for each canary, so that no gradient falls below the clip


@dataclass(frozen=True)
class CanaryAudit:
    """What canaries proved.

    Attributes:
        bound: A lower bound on epsilon that presumes nothing about the mechanism.
        noise_bound: One that presumes the claimed rate and steps, and some noise.
        estimate: Epsilon if the scores are Gaussian; not a bound. None where it was not estimated.
        trials: Trainings with the canary (and as many without), or canaries in one training.
    """

    bound: float
    noise_bound: float
    estimate: float | None
    trials: int


def paired(
    model: nn.Module, start: Tensor, losses: RowLosses, rows: Examples, todo: Plan, delta: float, trials: int,
    seed: int, train_all: TrainAll,
) -> CanaryAudit:  # fmt: skip
    """Train often with one canary alone, and as often with no record, and tell the two apart.

    These are neighbours, and no other record's gradient blurs the difference. The score is how far the model moved
    along the canary's gradient at the start.

    Args:
        model: The scenario's.
        start: Its parameters, (params,).
        losses: The loss.
        rows: Rows for their shape and type.
        todo: The plan of a whole training in one go; it must be private.
        delta: The mechanism's.
        trials: How many trainings with the canary.
        seed: Of the audit.
        train_all: The engine's.
    """
    if todo.noise is None:
        raise ValueError("expected a private plan")
    canary, gradient = _loud_record(model, start, losses, rows, 4 * todo.noise.clip, seed)
    nothing = Examples(canary.inputs[:0], canary.target[:0])
    direction = -gradient / gradient.norm()
    found = []
    for kind, own in (("in", canary), ("out", nothing)):
        scores = []
        for first in range(0, trials, _AT_ONCE):
            numbers = range(first, min(trials, first + _AT_ONCE))
            works = [Work(model, start, own, todo, _streams(seed, kind, number), losses) for number in numbers]
            scores += [float((done.parameters - start) @ direction) for done in _trained(works, canary, train_all)]
        found.append(np.array(scores))
    inside, outside = found
    claimed = Segment(todo.sampling_rate, todo.noise.multiplier, todo.steps)
    bounds = paired_bound(inside, outside, delta), paired_noise_bound(inside, outside, claimed, delta)
    return CanaryAudit(*bounds, gaussian_estimate(inside, outside, delta), trials)


def gaussian_estimate(inside: np.ndarray, outside: np.ndarray, delta: float) -> float:
    """Return the epsilon of two Gaussians with the means and the mean variance of some scores; no bound."""
    apart = (inside.mean() - outside.mean()) / np.sqrt((inside.var() + outside.var()) / 2)
    return epsilon((Segment(1.0, 1 / float(apart), 1),), delta) if apart > 1e-3 else 0.0


def one_run(todo: Plan, delta: float, canaries: int, seed: int, train_all: TrainAll) -> CanaryAudit:
    """Train once, with about half of many canaries that each have a coordinate of a linear model to themselves.

    The plan's sampling, noise, clip and steps are used; the model and the step size are those in which a canary is
    easiest to see.
    """
    if todo.noise is None:
        raise ValueError("expected a private plan")
    included = stream(seed, "audit canaries").random(canaries) < 0.5
    inputs = 100 * todo.noise.clip * torch.eye(canaries)[torch.from_numpy(included)]
    model = nn.Linear(canaries, 1, bias=False)
    rows = Examples(inputs, torch.ones(len(inputs)))
    gentle = replace(todo, optimizer=Optimizer(lr=_SMALL_STEP))
    work = Work(model, torch.zeros(canaries), rows, gentle, _streams(seed, "one run", 0), binary)
    (done,) = train_all([work])
    scores, claimed = done.parameters.numpy(), Segment(todo.sampling_rate, todo.noise.multiplier, todo.steps)
    bounds = one_run_bound(scores, included, delta), one_run_noise_bound(scores, included, claimed, delta)
    return CanaryAudit(*bounds, None, canaries)


def gradient_of(model: nn.Module, start: Tensor, losses: RowLosses, record: Examples) -> Tensor:
    """Return the gradient of one record's loss at the start, (params,)."""
    own = start.clone().requires_grad_()
    outputs = outputs_with(model, parts_of(model, own), record.inputs)
    (gradient,) = torch.autograd.grad(losses(outputs, record.target).sum(), own)
    return gradient


def _trained(works: list[Work], canary: Examples, train_all: TrainAll) -> list[Done]:
    """Train works; one that has a record goes first, on which an engine may try the model."""
    first = replace(works[0], examples=canary).again()
    return train_all([first, *works])[1:]


def _loud_record(
    model: nn.Module, start: Tensor, losses: RowLosses, rows: Examples, norm: float, seed: int
) -> tuple[Examples, Tensor]:
    """Return a record whose gradient has at least this norm, or the loudest that was found, and that gradient."""
    signs = stream(seed, "audit canary").choice((-1.0, 1.0), size=rows.inputs.shape[1:])
    inputs = torch.from_numpy(signs)[None].to(rows.inputs)
    if not rows.inputs.is_floating_point():
        inputs = rows.inputs[:1].clone()
    tried = []
    for target in rows.target.unique()[:10]:
        for doubling in range(20 if inputs.is_floating_point() else 1):
            record = Examples(inputs * 2**doubling, target[None])
            tried.append((record, gradient_of(model, start, losses, record)))
            if tried[-1][1].norm() >= norm:
                break
    return max(tried, key=lambda pair: min(float(pair[1].norm()), norm))


def _streams(seed: int, kind: str, number: int) -> Streams:
    return Streams(
        Words.of(seed, "audit batches", kind, number), Words.of(seed, "audit noise", kind, number), seed + number
    )
