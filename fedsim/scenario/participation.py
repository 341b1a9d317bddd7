"""Client sampling: how the sites of a round are chosen, and which share of them that is.

This is the one place that turns ``training.sites_per_round``, ``site_sampling_rate`` and ``site_turns`` into rates and
numbers. ``fedsim.planning.participation`` draws the sites.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Participation:
    """How the sites of a round are chosen: in one of three ways, or all of them.

    Attributes:
        number: So many, drawn at random in each round.
        rate: Each with this probability, on its own (Poisson sampling).
        turns: Each in every so manieth round.
    """

    number: int | None = None
    rate: float | None = None
    turns: int | None = None

    @property
    def settings(self) -> list[str]:
        """The settings of ``[training]`` that are given, by name: at most one may be."""
        ways = {
            "sites_per_round": self.number,
            "site_sampling_rate": self.rate,
            "site_turns": self.turns,
        }
        return [name for name, value in ways.items() if value is not None]

    @property
    def joining_rate(self) -> float | None:
        """The probability with which each site joins a round on its own: 1 if all do, None if chosen otherwise."""
        if self.rate is not None:
            return self.rate
        return None if self.number is not None or self.turns is not None else 1.0

    @property
    def follows_a_rate(self) -> bool:
        """Whether a round has a share of the sites, in place of a number of them."""
        return self.rate is not None or self.turns is not None

    def share(self, sites: int) -> float:
        """Return the share of some sites that takes part in a round, or is expected to."""
        if self.rate is not None:
            return self.rate
        if self.turns is not None:
            return 1 / self.turns
        return self.size(sites) / sites

    def size(self, sites: int) -> int:
        """Return how many of some sites take part in a round, or about how many."""
        if self.follows_a_rate:
            return max(1, round(sites * self.share(sites)))
        return sites if self.number is None else min(self.number, sites)

    def least(self, sites: int) -> int:
        """Return how many of some sites are in the smallest round; 0 where each joins on its own."""
        if self.rate is not None:
            return 0
        return sites // self.turns if self.turns is not None else self.size(sites)

    def most(self, sites: int) -> int:
        """Return how many of some sites are in the largest round."""
        if self.rate is not None:
            return sites
        return math.ceil(sites / self.turns) if self.turns is not None else self.size(sites)
