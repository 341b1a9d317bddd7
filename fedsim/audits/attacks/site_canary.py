"""A site in or out: the mechanism runs many times with one loud site, and as often without, to tell the two apart.

The neighbour sends nothing. Where a site may be replaced and nothing is claimed from sampling, it sends the opposite,
which is twice as far away. The attacker's errors give lower bounds on epsilon, as for ``canary``.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import ClassVar

import numpy as np

from fedsim.audits.attack import Attack
from fedsim.audits.canaries import CanaryAudit, judge_pairs
from fedsim.audits.claims import SITES, SiteClaim
from fedsim.audits.finding import EPSILON, Finding
from fedsim.audits.site_mechanisms import Score, is_replaced, score_of
from fedsim.audits.target import Target
from fedsim.privacy.ledger import SiteUpdate

_CALLS = 40_000  # of a mechanism, that all trials of one audit may take: seconds
_FEWEST = 100  # trials


class SiteCanary(Attack):
    """Tells runs of a mechanism with one loud site from runs without."""

    places = SITES
    trainings = ("private",)
    question = EPSILON
    label = "site in or out"
    sections: ClassVar = {"canaries": {}}

    def run(self, target: Target) -> Finding:
        """Attack the mechanism as often as the effort allows."""
        claim = target.site_claim
        trials = trials_of(claim, target.effort.trials)
        found = paired(score_of(target, trials), claim, trials)
        return self.finding(
            target,
            measured=found.measured("a site, in or out", claim.epsilon),
            words=found.words(f"2 x {found.trials} runs"),
            rows=found.rows("Estimated, a site in or out"),
            section={"canaries": {"paired": asdict(found)}},
        )


def paired(score: Score, claim: SiteClaim, trials: int) -> CanaryAudit:
    """Run the mechanism so many times with the canary, and as often with its neighbour."""
    neighbour = -1.0 if is_replaced(claim) else 0.0
    inside = np.array([score(1.0, 2 * number) for number in range(trials)])
    outside = np.array([score(neighbour, 2 * number + 1) for number in range(trials)])

    attacked = claim.segment
    if is_replaced(claim):
        # The trade-off curves are those of adding or removing one, at half the distance.
        attacked = replace(attacked, noise_multiplier=attacked.noise_multiplier / 2)
    return judge_pairs(inside, outside, attacked, claim.delta)


def trials_of(claim: SiteClaim, wanted: int) -> int:
    """Limit the number of pairs to what takes seconds."""
    band = claim.release.band if isinstance(claim.release, SiteUpdate) else 1
    return max(_FEWEST, min(wanted, _CALLS // (2 * claim.rounds * band)))
