"""What the sites of a private training may spend, and the ledger they spend it in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from fedsim.flower.rounds import Budget, CentralBudget
from fedsim.planning.noise import cost_of, promised
from fedsim.planning.trial import Trial
from fedsim.planning.whole_sites import central_noise
from fedsim.privacy.ledger import Ledger, Party, Release, Together
from fedsim.privacy.noise_shares import NoiseShare
from fedsim.privacy.unit import Place
from fedsim.privacy.units import released_in
from fedsim.training.work import Plan


@dataclass(frozen=True)
class Spending:
    """What the sites of one private training may spend, and the ledger they spend it in.

    Attributes:
        trial: The training.
        noise: Its noise multiplier.
        ledger: Where every release is written down.
    """

    trial: Trial
    noise: float
    ledger: Ledger

    @classmethod
    def of(cls, trial: Trial) -> Spending:
        """Open the ledger of a training.

        Raises:
            ValueError: The training is not private.
        """
        if trial.noise is None:
            raise ValueError(f"expected a private training, got the {trial.arm} arm without noise")
        privacy = trial.scenario.privacy
        _, delta = promised(privacy)
        ledger = Ledger(delta, privacy.relation, trainings=privacy.tuning.trainings)
        return cls(trial, trial.noise, ledger)

    @property
    def epsilon(self) -> float:
        """The most any site may spend."""
        return promised(self.trial.scenario.privacy)[0]

    def federated(self, planned: Mapping[int, tuple[Party, Plan]]) -> Budget | CentralBudget:
        """Return the budget of the federated arm's sites, whoever adds the noise.

        Args:
            planned: {node: (site, what it trains in a round, once)}.
        """
        if self.trial.unit.place is Place.AT_SERVER:
            return self.central()
        return self.own(planned, self.trial.most_rounds)

    def own(self, planned: Mapping[int, tuple[Party, Plan]], rounds: int) -> Budget:
        """Return the budget of sites that add the noise themselves.

        Args:
            planned: {node: (site, what it trains in a round, once)}.
            rounds: The most rounds that any of them is in.
        """
        release = cache(self.trial.unit.release)  # most sites are asked for the same
        releases = {}
        for node, (party, todo) in planned.items():
            asked = self.trial.asked(todo, self.noise)
            releases[node] = (party, release(asked))
        return Budget(self.ledger, self.epsilon, releases, rounds)

    def snapshot(self) -> list[list[Any]]:
        """Return the entries of the ledger: (site, or whom it stands for, round, number of the release), ...

        The releases, most of which are alike, come first.
        """
        releases: dict[Release, int] = {}
        entries = []
        for entry in self.ledger.entries:
            number = releases.setdefault(entry.mechanism, len(releases))
            together = isinstance(entry.site, Together)
            party = entry.site.value if isinstance(entry.site, Together) else entry.site
            entries.append((party, together, entry.round, number))
        written = [
            {"kind": release.kind, "mechanism": asdict(release)}  # type: ignore[call-overload]  a dataclass
            for release in releases
        ]
        return [written, entries]

    def restore(self, state: Sequence[Any]) -> None:
        """Write into the ledger, which is empty, what ``snapshot`` returned."""
        written, entries = state
        releases = [released_in(one) for one in written]
        for party, together, number, release in entries:
            site = Together(party) if together else party
            self.ledger.charge(site, number, releases[release])

    def share(self, sites: int) -> NoiseShare:
        """Return the share of the noise of each site, where so many are asked.

        Raises:
            TypeError: The unit releases something else.
        """
        trial = self.trial
        todo = trial.plan(trial.weights[trial.names[0]])  # shares do not depend on what a site trains
        release = trial.unit.release(trial.asked(todo, self.noise, sites))
        if not isinstance(release, NoiseShare):
            raise TypeError(f"expected a share of the noise, got a {type(release).__name__}")
        return release

    def central(self) -> CentralBudget:
        """Return the budget of sites whose noise the server adds."""
        trial = self.trial
        noise = central_noise(
            trial.scenario, trial.seed, trial.arm, trial.names, self.noise, self.ledger, trial.joining
        )
        cost = cost_of(trial.scenario, trial.seed, trial.arm, trial.names)
        return CentralBudget(noise, self.epsilon, cost.releases)
