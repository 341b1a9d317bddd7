"""What has left a site, by its own ledger: for people."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedsim import figures
from fedsim.site import own_ledger, policy, real
from fedsim.site.own_ledger import EXACT, FIGURES


@dataclass(frozen=True)
class OfTraining:
    """What left a site in one training.

    Attributes:
        training: Its name.
        scenario: Its title, as its server told it.
        first: When the first of it was charged, UTC.
        last: When the last of it was.
        noisy: How many noisy models were charged.
        exact: How many exact models.
        figures: How often exact figures were.
    """

    training: str
    scenario: str
    first: str
    last: str
    noisy: int
    exact: int
    figures: int


@dataclass(frozen=True)
class Status:
    """A site's ledger, held against its policy.

    Attributes:
        site: The site.
        epsilon: What is spent.
        allowed: What may be spent.
        delta: At which delta.
        trainings: The trainings, the oldest first.
    """

    site: str
    epsilon: float
    allowed: float
    delta: float
    trainings: list[OfTraining]

    def as_json(self) -> dict[str, Any]:
        """Return it as values for JSON."""
        return asdict(self)

    def sentences(self) -> list[str]:
        """Return it in words."""
        found = [
            f"{self.site} has spent epsilon {figures.epsilon(self.epsilon)} of {figures.setting(self.allowed)}, "
            f"at delta {figures.setting(self.delta)}, in all private trainings together."
        ]
        if any(one.exact or one.figures for one in self.trainings):
            found.append("Exact models or figures have left, which no epsilon covers.")
        if not self.trainings:
            found.append("Nothing has left yet.")
        for one in self.trainings:
            parts = {"noisy models": one.noisy, "exact models": one.exact, "exact figures": one.figures}
            counted = ", ".join(f"{count} {what}" for what, count in parts.items() if count)
            found.append(f"  {one.first} to {one.last}: {one.scenario}: {counted} (training {one.training[:8]})")
        return found


def status_of(folder: Path) -> Status:
    """Read a site's policy and ledger.

    Args:
        folder: The folder of the site, with both in their usual places.

    Raises:
        Mistake: One is missing, or not what fedsim reads.
    """
    allowed = policy.read_policy(folder / policy.NAME)
    state = folder / real.LEDGER_FOLDER
    site = own_ledger.site_of(state)
    with own_ledger.opened(state, site) as ledger:
        names = list(dict.fromkeys(entry.question.training for entry in ledger.entries))
        trainings = []
        for name in names:
            own = [entry for entry in ledger.entries if entry.question.training == name]
            kinds = Counter(entry.kind for entry in own)
            exact, measured = kinds[EXACT], kinds[FIGURES]
            noisy = len(own) - exact - measured
            trainings.append(OfTraining(name, own[0].scenario, own[0].at, own[-1].at, noisy, exact, measured))
        spent = ledger.epsilon(allowed.delta, allowed.relation)
    return Status(site, spent, allowed.epsilon, allowed.delta, trainings)
