"""Canaries in one run: one training with about half of many canaries, and a guess about each of them.

Steinke, Nasr, Jagielski 2023, "Privacy auditing with one (1) training run", https://arxiv.org/abs/2305.08846. Each
canary has a coordinate of a linear model to itself. Sampling, noise, clip and steps are the training's; the model and
the step size are those in which a canary is easiest to see.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import ClassVar

import torch
from torch import nn

from fedsim.audits.attack import Attack
from fedsim.audits.canaries import CanaryAudit, judge_one_run
from fedsim.audits.finding import EPSILON, Finding
from fedsim.audits.target import Target
from fedsim.data.federation import Examples
from fedsim.privacy.accounting import Segment
from fedsim.privacy.unit import Place
from fedsim.randomness import Words, stream
from fedsim.scenario.schema import Optimizer
from fedsim.training.losses import binary
from fedsim.training.work import Streams, Work

_LOUDNESS = 100  # input of a canary, over the clip
_SMALL_STEP = 1e-6  # so that no canary's gradient falls below the clip


class OneRun(Attack):
    """Guesses of many canaries whether they were in one training."""

    places = (Place.IN_STEPS,)
    trainings = ("private",)
    question = EPSILON
    label = "one run"
    sections: ClassVar = {"canaries": {}}

    def run(self, target: Target) -> Finding:
        """Attack one private training."""
        found = one_run(target)
        return self.finding(
            target,
            measured=found.measured("canaries in one run", target.record_claim.epsilon),
            words=found.words(f"{found.trials} canaries"),
            section={"canaries": {"one_run": asdict(found)}},
        )


def one_run(target: Target) -> CanaryAudit:
    """Train once, with about half of the canaries.

    Raises:
        ValueError: The training is not private.
    """
    noise = target.noise
    canaries = target.effort.canaries
    included = stream(target.seed, "audit canaries").random(canaries) < 0.5  # bool (canaries,)

    inputs = _LOUDNESS * noise.clip * torch.eye(canaries)[torch.from_numpy(included)]
    rows = target.canaries(Examples(inputs, torch.ones(len(inputs))))
    model = nn.Linear(canaries, 1, bias=False)
    gentle = replace(target.plan, optimizer=Optimizer(lr=_SMALL_STEP))
    streams = Streams(
        batches=Words.of(target.seed, "audit batches", "one run", 0),
        noise=Words.of(target.seed, "audit noise", "one run", 0),
        layers=target.seed,
    )
    (done,) = target.train_all([Work(model, torch.zeros(canaries), rows, gentle, streams, binary)])

    scores = done.parameters.numpy()
    claimed = Segment(target.plan.sampling_rate, noise.multiplier, target.plan.steps)
    return judge_one_run(scores, included, claimed, target.record_claim.delta)
