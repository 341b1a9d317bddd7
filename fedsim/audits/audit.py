"""``fedsim audit``: attack what a run or a scenario trains, and hold the successes against the claim."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from fedsim.audits import (
    canaries,
    inversion,
    membership,
    one_shot,
    site_canaries,
    site_membership,
    site_property,
    source,
)
from fedsim.audits.bounds import CONFIDENCE, RATES, ceiling
from fedsim.audits.claims import Claim, SiteClaim
from fedsim.audits.target import Effort, Target, Training
from fedsim.scenario.schema import Scenario


@dataclass(frozen=True)
class Audit:
    """What the attacks gave; ``private`` and ``plain`` are the trainings with and without the scenario's noise."""

    scenario: str
    claim: Claim | SiteClaim | None
    rows: int
    paired: canaries.CanaryAudit | None = None
    one_run: canaries.CanaryAudit | None = None
    one_shot: one_shot.OneShot | None = None
    membership: Mapping[Training, Mapping[str, membership.Membership]] = field(default_factory=dict)
    inversion: Mapping[Training, Mapping[str, inversion.Inversion]] = field(default_factory=dict)
    sources: Mapping[Training, source.Source] = field(default_factory=dict)
    properties: Mapping[Training, site_property.Property] = field(default_factory=dict)

    @property
    def bound(self) -> float:
        """The largest lower bound on epsilon, each with the confidence stated."""
        found = [one for one in (self.paired, self.one_run) if one]
        return max((bound for one in found for bound in (one.bound, one.noise_bound)), default=0.0)

    @property
    def broken(self) -> bool:
        """Whether the claim is refuted."""
        return self.claim is not None and self.bound > self.claim.epsilon

    @property
    def values(self) -> dict[str, Any]:
        """All figures as JSON holds them."""
        rebuilt = {
            kind: {
                method: {key: value for key, value in vars(one).items() if key not in ("record", "rebuilt")}
                for method, one in own.items()
            }
            for kind, own in self.inversion.items()
        }
        return {
            "scenario": self.scenario,
            "protects": "site" if isinstance(self.claim, SiteClaim) else "record" if self.claim else None,
            "claimed": asdict(self.claim) if self.claim else None,
            "lower_bound": self.bound if self.claim else None,
            "confidence": CONFIDENCE,
            "broken": self.broken,
            "canaries": {name: asdict(one) for name in ("paired", "one_run") if (one := getattr(self, name))},
            "one_shot": asdict(self.one_shot) if self.one_shot else None,
            "membership": {kind: {n: asdict(m) for n, m in own.items()} for kind, own in self.membership.items()},
            "membership_ceiling": ceiling(self.claim.epsilon, self.claim.delta) if self.claim else None,
            "false_positive_rates": list(RATES),
            "attacked_rows": self.rows,
            "inversion": rebuilt,
            "source": {kind: asdict(one) for kind, one in self.sources.items()},
            "property": {kind: asdict(one) for kind, one in self.properties.items()},
        }


def audit(
    scenario: Scenario,
    claim: Claim | SiteClaim | None,
    effort: Effort,
    trainings: Sequence[Training] = ("plain", "private"),
    tell: Callable[[str], None] = lambda attack: None,
) -> Audit:
    """Attack a scenario's training.

    Where whole sites are protected, sites are attacked in place of records.

    Args:
        scenario: The experiment.
        claim: What is claimed for it; without one nothing is private.
        effort: How much to try.
        trainings: Which to attack.
        tell: Called with the name of each attack before it starts.
    """
    if isinstance(claim, SiteClaim):
        return _of_sites(scenario, claim, effort, tell)
    target = Target.of(scenario, claim, effort, tell)
    found = Audit(scenario.name, claim, len(target.rows))
    if claim and "private" in trainings:
        found = replace(found, **target.bounds(claim))
    kinds: list[Training] = [kind for kind in trainings if kind in target.whole]
    sources = {kind: one for kind in kinds if (one := target.source_of(kind))}
    properties = {kind: one for kind in kinds if (one := target.property_of(kind))}
    return replace(
        found,
        membership={kind: target.members(kind) for kind in kinds},
        inversion={kind: target.rebuilt(kind) for kind in kinds},
        sources=sources,
        properties=properties,
    )


def _of_sites(scenario: Scenario, claim: SiteClaim, effort: Effort, tell: Callable[[str], None]) -> Audit:
    bounds = site_canaries.bounds(scenario, claim, effort, tell)
    target = Target.of(scenario, None, effort, tell)
    tell("which sites took part")
    attacked = site_membership.Attacked(
        scenario, target.federation, target.start, target.model, target.losses, target.train_all
    )
    kinds: tuple[Training, ...] = ("plain", "private")
    found = {kind: site_membership.attack(attacked, claim, kind, effort.shadows, effort.seed) for kind in kinds}
    return replace(Audit(scenario.name, claim, 0), **bounds, membership=found)  # type: ignore[arg-type]
