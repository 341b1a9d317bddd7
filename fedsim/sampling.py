"""Which sites take part in which round.

The choice is public: it follows from the seed, not from anybody's rows, and no privacy is claimed from it.
"""

from collections import Counter
from collections.abc import Sequence

from fedsim.randomness import stream
from fedsim.scenario import Scenario


def joined(scenario: Scenario, names: Sequence[str], number: int) -> Sequence[int]:
    """Return the numbers of the sites, of these names, that have joined by a round, ascending."""
    late = scenario.faults.joins_late
    return [site for site, name in enumerate(names) if late.get(name, 1) <= number] if late else range(len(names))


def sites_of_round(scenario: Scenario, seed: int, names: Sequence[str], number: int) -> list[int]:
    """Return the numbers of a round's sites, ascending: all that have joined, or as many as are wanted.

    Where some are wanted, no site joins late, and each is as likely as any.
    """
    wanted = scenario.training.sites_per_round
    if wanted is None or wanted >= len(names):
        return list(joined(scenario, names, number))
    return sorted(stream(seed, "sites", number).choice(len(names), wanted, replace=False, shuffle=False).tolist())


def share_of_sites(scenario: Scenario, names: Sequence[str]) -> float:
    """Return which share of the sites that have joined takes part in a round."""
    return min(1.0, (scenario.training.sites_per_round or len(names)) / len(names))


def most_rounds(scenario: Scenario, seed: int, names: Sequence[str]) -> int:
    """Return in how many rounds the site takes part that is chosen most often."""
    rounds, wanted = scenario.training.rounds, scenario.training.sites_per_round
    if wanted is None or wanted >= len(names):
        return rounds
    times = Counter(site for number in range(1, rounds + 1) for site in sites_of_round(scenario, seed, names, number))
    return max(times.values())
