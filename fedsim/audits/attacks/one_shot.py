"""The final model only: epsilon estimated from one training with random canaries; no bound.

Andrew, Kairouz, Oh, Oprea, McMahan, Suriyakumar 2023, "One-shot empirical privacy estimation for federated learning",
https://arxiv.org/abs/2302.03098, Algorithm 2.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import ClassVar

import torch
from torch import nn

from fedsim.audits.attack import Attack
from fedsim.audits.finding import EPSILON, Finding
from fedsim.audits.random_canaries import OneShot, directions_of, estimate
from fedsim.audits.target import Target
from fedsim.data.federation import Examples
from fedsim.privacy.unit import Place
from fedsim.randomness import Words
from fedsim.scenario.schema import Optimizer
from fedsim.training.losses import binary
from fedsim.training.work import Streams, Work

_SMALL_STEP = 1e-6  # so that no canary's gradient falls below the clip
_LOUD = 1000.0  # a canary's gradient over the clip


class FinalModel(Attack):
    """Estimates epsilon for an attacker who sees the final model only."""

    places = (Place.IN_STEPS,)
    trainings = ("private",)
    question = EPSILON
    label = "final model only"
    sections: ClassVar = {"one_shot": None}

    def run(self, target: Target) -> Finding:
        """Estimate from one private training."""
        found = records(target)
        return self.finding(
            target,
            measured=found.measured(target.record_claim.epsilon),
            words=found.words,
            rows=found.rows,
            section={"one_shot": asdict(found)},
        )


def records(target: Target) -> OneShot:
    """Train a linear model once on records whose clipped gradients are random directions.

    Sampling, noise, clip and steps are the training's.

    Raises:
        ValueError: The training is not private.
    """
    clip = target.noise.clip
    canaries = target.effort.directions
    size = target.effort.size
    directions = directions_of(canaries, size, target.seed)  # (canaries, size)

    rows = target.canaries(Examples(_LOUD * clip * directions, torch.ones(canaries)))
    model = nn.Linear(size, 1, bias=False)
    gentle = replace(target.plan, optimizer=Optimizer(lr=_SMALL_STEP / _LOUD))
    streams = Streams(Words.of(target.seed, "one-shot batches"), Words.of(target.seed, "one-shot noise"))
    (done,) = target.train_all([Work(model, torch.zeros(size), rows, gentle, streams, binary)])

    return estimate(directions, done.parameters, target.record_claim.delta)
