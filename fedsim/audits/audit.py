"""``fedsim audit``: attack what a run or a scenario trains, and hold the findings against the claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from fedsim.audits.attacks import all_attacks
from fedsim.audits.bounds import CONFIDENCE, RATES, ceiling
from fedsim.audits.claims import AnyClaim, SiteClaim
from fedsim.audits.finding import Finding, Verdict, lower_bounds
from fedsim.audits.target import TRAININGS, Effort, Training, targets_of
from fedsim.privacy.unit import Place
from fedsim.scenario.schema import Scenario


class Tell(Protocol):
    """Progress of an audit."""

    def __call__(self, attack: str, /) -> None:
        """Say which attack starts, by its label."""
        ...


@dataclass(frozen=True)
class Audit:
    """The findings of all attacks on a scenario.

    Attributes:
        scenario: Its name.
        claim: The privacy claimed for it; None if nothing is.
        rows: How many records were attacked.
        findings: Of each attack on each training, in the order in which they are printed.
    """

    scenario: str
    claim: AnyClaim | None
    rows: int
    findings: tuple[Finding, ...]

    @property
    def bound(self) -> float:
        """The largest lower bound on epsilon, each with the confidence stated."""
        return max(lower_bounds(self.findings), default=0.0)

    @property
    def broken(self) -> bool:
        """Whether the claim is refuted."""
        return any(finding.verdict is Verdict.REFUTED for finding in self.findings)

    def of(self, attack: str, training: Training = "private") -> Finding:
        """Return the finding of one attack on one training.

        Raises:
            KeyError: There is none.
        """
        for finding in self.findings:
            if finding.attack == attack and finding.training == training:
                return finding
        raise KeyError(f"expected a finding of {attack} on the {training} training")

    @property
    def values(self) -> dict[str, Any]:
        """All figures as JSON holds them: ``findings``, and the sections that readers of earlier versions know."""
        sections: dict[str, Any] = {}
        for attack in all_attacks():
            sections = _merged(sections, attack.sections)
        for finding in self.findings:
            sections = _merged(sections, finding.section)
        claim = self.claim
        return {
            "scenario": self.scenario,
            "protects": claim.protects if claim else None,
            "claimed": asdict(claim) if claim else None,
            "lower_bound": self.bound if claim else None,
            "confidence": CONFIDENCE,
            "broken": self.broken,
            "findings": [finding.values for finding in self.findings],
            "membership_ceiling": ceiling(claim.epsilon, claim.delta) if claim else None,
            "false_positive_rates": list(RATES),
            "attacked_rows": self.rows,
            **sections,
        }


def audit(
    scenario: Scenario,
    claim: AnyClaim | None,
    effort: Effort,
    trainings: Sequence[Training] = TRAININGS,
    tell: Tell = lambda attack: None,
) -> Audit:
    """Run all attacks on a scenario's training that apply to its privacy unit.

    Args:
        scenario: The experiment.
        claim: The privacy claimed for it; without a claim nothing is private.
        effort: How much to try.
        trainings: The trainings to attack, without the scenario's noise and with it.
        tell: Called with the label of each attack before it starts.
    """
    targets = targets_of(scenario, claim, effort, trainings)
    findings = []
    for attack in all_attacks():
        for target in targets:
            if not attack.applies_to(target.place, target.training):
                continue
            tell(attack.label)
            finding = attack.run(target)
            if finding is not None:
                findings.append(finding)
    rows_are_attacked = targets and not isinstance(claim, SiteClaim)
    rows = len(targets[0].rows) if rows_are_attacked else 0
    return Audit(scenario.name, claim, rows, tuple(findings))


def most_runs(place: Place, trainings: Sequence[Training] = TRAININGS) -> int:
    """Count how often ``audit`` calls ``tell`` at most."""
    attacks = all_attacks()
    return sum(attack.applies_to(place, training) for attack in attacks for training in trainings)


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two trees of dicts; where both have a value, the second's counts."""
    merged = dict(first)
    for key, value in second.items():
        before = merged.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(before, value)
        elif key not in merged or value is not None:
            merged[key] = value
    return merged
