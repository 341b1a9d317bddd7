"""What the sites of a private training may spend, and the ledger they spend it in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np

from fedsim.flower.rounds import Budget, CentralBudget
from fedsim.of_sites import OfSites
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

        @cache
        def planned_release(node: int) -> tuple[Party, Release]:
            party, todo = planned[node]
            return party, release(self.trial.asked(todo, self.noise))

        return Budget(self.ledger, self.epsilon, OfSites(planned.keys(), planned_release), rounds)

    def snapshot(self) -> dict[str, Any]:
        """Return the entries of the ledger: the parties and the releases that occur, then the numbers of each entry.

        There are thousands of entries, and few releases.
        """
        releases: dict[Release, int] = {}
        parties: dict[Party, int] = {}
        entries = []
        for entry in self.ledger.entries:
            party = parties.setdefault(entry.site, len(parties))
            release = releases.setdefault(entry.mechanism, len(releases))
            entries.append((party, entry.round, release))
        return {
            "parties": [
                (party.value if isinstance(party, Together) else party, isinstance(party, Together))
                for party in parties
            ],
            "releases": [
                {"kind": release.kind, "mechanism": asdict(release)}  # type: ignore[call-overload]  a dataclass
                for release in releases
            ],
            "entries": np.array(entries, dtype=np.int64).reshape(-1, 3),  # (entries, party, round and release)
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Write into the ledger, which is empty, what ``snapshot`` returned."""
        releases = [released_in(one) for one in state["releases"]]
        parties = [Together(party) if together else party for party, together in state["parties"]]
        for party, number, release in state["entries"].tolist():
            self.ledger.charge(parties[party], number, releases[release])

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
