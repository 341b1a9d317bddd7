"""A canary in or out: one loud record is trained on many times, and as often nothing is, to tell the two apart.

These are neighbours, and no other record's gradient blurs the difference. The attacker's errors give lower bounds on
epsilon: Nasr, Hayes, Steinke, Balle, Tramer, Jagielski, Carlini, Terzis 2023, https://arxiv.org/abs/2302.07956.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fedsim.audits.attack import Attack
from fedsim.audits.canaries import CanaryAudit, judge_pairs
from fedsim.audits.finding import EPSILON, Finding
from fedsim.audits.target import Target
from fedsim.data.federation import Examples
from fedsim.privacy.accounting import Segment
from fedsim.privacy.unit import Place
from fedsim.randomness import Words, stream
from fedsim.training.functional import outputs_with
from fedsim.training.model import parts_of
from fedsim.training.work import Done, Streams, Work

_AT_ONCE = 1000  # works that are trained together
_NUMBERS = 4e8  # of noise that all trainings may draw: a minute, or less
_FEWEST = 100  # trials
_LOUDNESS = 4  # gradient norm of the canary, over the clip
_DOUBLINGS = 20  # tried to get there


class Canary(Attack):
    """Tells trainings with one loud record from trainings with none."""

    places = (Place.IN_STEPS,)
    trainings = ("private",)
    question = EPSILON
    label = "canary in or out"
    sections: ClassVar = {"canaries": {}}

    def run(self, target: Target) -> Finding:
        """Attack the private training as often as the effort allows."""
        numbers_of_one = 2 * target.plan.steps * len(target.start)
        trials = min(target.effort.trials, max(_FEWEST, int(_NUMBERS / numbers_of_one)))
        found = paired(target, trials)
        return self.finding(
            target,
            measured=found.measured("a canary, in or out", target.record_claim.epsilon),
            words=found.words(f"2 x {found.trials} trainings"),
            rows=found.rows("Estimated, a canary in or out"),
            section={"canaries": {"paired": asdict(found)}},
        )


def paired(target: Target, trials: int) -> CanaryAudit:
    """Train so many times with the canary alone, and as often with no record.

    The score of a training is how far the model moved along the canary's gradient at the start.

    Raises:
        ValueError: The training is not private.
    """
    noise = target.noise
    canary, gradient = loud_record(target, _LOUDNESS * noise.clip)
    canary = target.canaries(canary)
    nothing = canary.some(torch.arange(0))
    direction = -gradient / gradient.norm()

    def scores_of(kind: str, rows: Examples) -> np.ndarray:
        scores = []
        for first in range(0, trials, _AT_ONCE):
            numbers = range(first, min(trials, first + _AT_ONCE))
            works = [
                Work(target.model, target.start, rows, target.plan, _streams(target.seed, kind, number), target.losses)
                for number in numbers
            ]
            for done in _trained(target, works, canary):
                scores.append(float((done.parameters - target.start) @ direction))
        return np.array(scores)

    inside = scores_of("in", canary)
    outside = scores_of("out", nothing)
    claimed = Segment(target.plan.sampling_rate, noise.multiplier, target.plan.steps)
    return judge_pairs(inside, outside, claimed, target.record_claim.delta)


def loud_record(target: Target, norm: float) -> tuple[Examples, Tensor]:
    """Search for a record whose gradient has at least this norm; return the loudest, and its gradient (params,)."""
    rows = target.sites[0].rows
    doublings = _DOUBLINGS
    if rows.inputs.is_floating_point():
        signs = stream(target.seed, "audit canary").choice((-1.0, 1.0), size=rows.inputs.shape[1:])
        inputs = torch.from_numpy(signs)[None].to(rows.inputs)
    else:
        inputs = rows.inputs[:1].clone()
        doublings = 1  # numbers of words can't be made larger

    tried: list[tuple[Examples, Tensor]] = []
    for outcome in rows.target.unique()[:10]:
        for doubling in range(doublings):
            record = Examples(inputs * 2**doubling, outcome[None])
            gradient = gradient_of(target, record)
            tried.append((record, gradient))
            if gradient.norm() >= norm:
                break
    return max(tried, key=lambda pair: min(float(pair[1].norm()), norm))


def gradient_of(target: Target, record: Examples) -> Tensor:
    """Compute the gradient of one record's loss at the start, (params,)."""
    parameters = target.start.clone().requires_grad_()
    outputs = outputs_with(target.model, parts_of(target.model, parameters), record.inputs)
    loss = target.losses(outputs, record.target).sum()
    (gradient,) = torch.autograd.grad(loss, parameters)
    return gradient


def _trained(target: Target, works: Sequence[Work], canary: Examples) -> list[Done]:
    """Train works; one that has a record goes first, on which an engine may try the model."""
    first = replace(works[0], examples=canary).again()
    return target.train_all([first, *works])[1:]


def _streams(seed: int, kind: str, number: int) -> Streams:
    return Streams(
        batches=Words.of(seed, "audit batches", kind, number),
        noise=Words.of(seed, "audit noise", kind, number),
        layers=seed + number,
    )
