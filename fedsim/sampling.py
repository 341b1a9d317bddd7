"""Which sites take part in which round.

The choice follows from the seed, not from anybody's rows or from what happened before. A fixed number of sites is a
public draw, and no privacy is claimed from it. Where each site joins on its own (Poisson sampling of sites), the unit
``client`` claims what that is worth.
"""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from fedsim.randomness import Words, choose, stream
from fedsim.scenario import Scenario


def joined(scenario: Scenario, names: Sequence[str], number: int) -> Sequence[int]:
    """Return the numbers of the sites, of these names, that have joined by a round, ascending."""
    late = scenario.faults.joins_late
    return [site for site, name in enumerate(names) if late.get(name, 1) <= number] if late else range(len(names))


def sites_of_round(scenario: Scenario, seed: int, names: Sequence[str], number: int) -> list[int]:
    """Return the numbers of a round's sites, ascending: all that have joined, or those that are drawn.

    Where a number is wanted, no site joins late, and each is as likely as any. Where there is a rate, each site joins
    the round with this probability on its own, by random words of which each site has its own; it may be none. Where
    sites take turns, each is in every n-th round, in an order that is drawn once.
    """
    rate = scenario.training.site_sampling_rate
    if rate is not None:
        words = Words.of(seed, "sites that join", number).draw(len(names))
        chosen = choose(words, rate)
        return [site for site in joined(scenario, names, number) if chosen[site]]
    turns = scenario.training.site_turns
    if turns is not None:
        return [
            site for site in joined(scenario, names, number) if (_order(seed, len(names))[site] - number) % turns == 0
        ]
    wanted = scenario.training.sites_per_round
    if wanted is None or wanted >= len(names):
        return list(joined(scenario, names, number))
    return sorted(stream(seed, "sites", number).choice(len(names), wanted, replace=False, shuffle=False).tolist())


@lru_cache(maxsize=64)
def _order(seed: int, sites: int) -> list[int]:
    return stream(seed, "turns of sites").permutation(sites).tolist()


def share_of_sites(scenario: Scenario, names: Sequence[str]) -> float:
    """Return which share of the sites that have joined takes part in a round, or is expected to."""
    rate = scenario.training.site_sampling_rate
    if rate is not None:
        return rate
    if scenario.training.site_turns is not None:
        return 1 / scenario.training.site_turns
    return min(1.0, (scenario.training.sites_per_round or len(names)) / len(names))


def most_rounds(scenario: Scenario, seed: int, names: Sequence[str]) -> int:
    """Return in how many rounds the site takes part that is chosen most often."""
    rounds, wanted = scenario.training.rounds, scenario.training.sites_per_round
    training = scenario.training
    drawn = training.site_sampling_rate is not None or training.site_turns is not None
    some = drawn or (wanted is not None and wanted < len(names))
    if not some:
        return rounds
    times = Counter(site for number in range(1, rounds + 1) for site in sites_of_round(scenario, seed, names, number))
    return max(times.values(), default=1)
