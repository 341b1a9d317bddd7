"""The final model only, for sites: epsilon estimated from one run with random updates; no bound.

Andrew, Kairouz, Oh, Oprea, McMahan, Suriyakumar 2023, "One-shot empirical privacy estimation for federated learning",
https://arxiv.org/abs/2302.03098, Algorithm 2. The noise must be the server's.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import ClassVar

import torch

from fedsim.audits.attack import Attack
from fedsim.audits.claims import SiteClaim
from fedsim.audits.finding import EPSILON, Finding
from fedsim.audits.random_canaries import OneShot, directions_of, estimate
from fedsim.audits.site_mechanisms import central_noise_of, loud, releases, sites_alike
from fedsim.audits.target import Target
from fedsim.privacy.central import CentralNoise
from fedsim.privacy.unit import Place

_TRIAL = -2  # a number that no other run has


class FinalModelOfSites(Attack):
    """Estimates epsilon for an attacker who sees the final model only."""

    places = (Place.AT_SERVER,)
    trainings = ("private",)
    question = EPSILON
    label = "final model only"
    sections: ClassVar = {"one_shot": None}

    def run(self, target: Target) -> Finding:
        """Estimate from one run of the server's mechanism."""
        claim = target.site_claim
        effort = target.effort
        central = central_noise_of(target)
        found = random_sites(central, claim, effort.directions, effort.size, target.seed)
        return self.finding(
            target,
            measured=found.measured(claim.epsilon),
            words=found.words,
            rows=found.rows,
            section={"one_shot": asdict(found)},
        )


def random_sites(central: CentralNoise, claim: SiteClaim, canaries: int, size: int, seed: int) -> OneShot:
    """Run once with sites whose updates are random directions, all of them in it."""
    directions = directions_of(canaries, size, seed)  # (canaries, size)
    updates = loud(central.clip) * directions
    sites = sites_alike(canaries, claim.segment.sampling_rate)
    rounds = releases(central, sites, claim.segment, range(canaries), updates, _TRIAL, seed)

    seen = torch.stack([release.seen for release in rounds])  # (rounds, size)
    return estimate(directions, seen.sum(0).float(), claim.delta)
