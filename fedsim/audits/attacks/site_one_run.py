"""Many sites in one run: about half of many made-up sites take part in one run, and each of them is guessed.

Steinke, Nasr, Jagielski 2023, "Privacy auditing with one (1) training run", https://arxiv.org/abs/2305.08846, with
sites in place of records. Each site has a coordinate of the model to itself. The noise must be the server's.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import ClassVar

import numpy as np
import torch

from fedsim.audits.attack import Attack
from fedsim.audits.canaries import CanaryAudit, judge_one_run
from fedsim.audits.claims import SiteClaim
from fedsim.audits.finding import EPSILON, Finding
from fedsim.audits.site_mechanisms import central_noise_of, log_ratio, loud, releases, sites_alike
from fedsim.audits.target import Target
from fedsim.privacy.central import CentralNoise
from fedsim.privacy.unit import Place
from fedsim.randomness import stream

_TRIAL = -1  # a number that no other run has


class SitesInOneRun(Attack):
    """Guesses of many sites whether they were in one run."""

    places = (Place.AT_SERVER,)
    trainings = ("private",)
    question = EPSILON
    label = "one run"
    sections: ClassVar = {"canaries": {}}

    def run(self, target: Target) -> Finding:
        """Attack one run of the server's mechanism."""
        claim = target.site_claim
        found = one_run(central_noise_of(target), claim, target.effort.canaries, target.seed)
        return self.finding(
            target,
            measured=found.measured("many sites in one run", claim.epsilon),
            words=found.words(f"{found.trials} canaries"),
            section={"canaries": {"one_run": asdict(found)}},
        )


def one_run(central: CentralNoise, claim: SiteClaim, canaries: int, seed: int) -> CanaryAudit:
    """Run once, with about half of the sites."""
    included = stream(seed, "audit sites").random(canaries) < 0.5  # bool (canaries,)
    nodes = np.flatnonzero(included).tolist()
    updates = loud(central.clip) * torch.eye(canaries)[nodes]
    sites = sites_alike(canaries, claim.segment.sampling_rate)
    rounds = releases(central, sites, claim.segment, nodes, updates, _TRIAL, seed)

    seen = torch.stack([release.seen for release in rounds])  # (rounds, canaries)
    scores = log_ratio(seen, claim.segment).numpy()
    return judge_one_run(scores, included, claim.segment, claim.delta)
