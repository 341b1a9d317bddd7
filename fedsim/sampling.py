"""Which sites take part in which round.

The choice is public: it follows from the seed, not from anybody's rows, and no privacy is claimed from it.
"""

from collections import Counter

from fedsim.randomness import stream
from fedsim.scenario import Scenario


def sites_of_round(scenario: Scenario, seed: int, sites: int, number: int) -> list[int]:
    """Return the numbers of a round's sites, ascending: all, or as many as are wanted, each as likely as any."""
    wanted = scenario.training.sites_per_round
    if wanted is None or wanted >= sites:
        return list(range(sites))
    return sorted(stream(seed, "sites", number).choice(sites, wanted, replace=False, shuffle=False).tolist())


def most_rounds(scenario: Scenario, seed: int, sites: int) -> int:
    """Return in how many rounds the site takes part that is chosen most often."""
    rounds, wanted = scenario.training.rounds, scenario.training.sites_per_round
    if wanted is None or wanted >= sites:
        return rounds
    times = Counter(site for number in range(1, rounds + 1) for site in sites_of_round(scenario, seed, sites, number))
    return max(times.values())
