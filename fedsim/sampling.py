"""Which sites take part in which round.

The choice is public: it follows from the seed, not from anybody's rows, and no privacy is claimed from it.
"""

from collections import Counter
from collections.abc import Sequence

from fedsim.arrivals import Arrivals, durations
from fedsim.choice import strategy_of
from fedsim.mistakes import Mistake
from fedsim.randomness import stream
from fedsim.scenario import Scenario
from fedsim.strategy import Buffered


def joined(scenario: Scenario, names: Sequence[str], number: int) -> Sequence[int]:
    """Return the numbers of the sites, of these names, that have joined by a round, ascending."""
    late = scenario.faults.joins_late
    return [site for site, name in enumerate(names) if late.get(name, 1) <= number] if late else range(len(names))


def arrivals_of(scenario: Scenario, seed: int, sites: int) -> Arrivals | None:
    """Return when sites answer to a strategy that does not wait for all of them; None for one that does.

    Raises:
        Mistake: It wants more sites than there are.
    """
    strategy = strategy_of(scenario, sites)
    if not isinstance(strategy, Buffered):
        return None
    try:
        return Arrivals(
            seed, sites, strategy.k, strategy.concurrency or sites, spread=scenario.training.duration_spread
        )
    except ValueError as error:
        raise Mistake(f"strategy.{error}") from None


def sites_of_round(scenario: Scenario, seed: int, names: Sequence[str], number: int) -> list[int]:
    """Return the numbers of a round's sites, ascending: all that have joined, or as many as are wanted.

    Where some are wanted, no site joins late, and each is as likely as any. A strategy that does not wait has those
    that answer first.
    """
    arrivals = arrivals_of(scenario, seed, len(names))
    if arrivals:
        return list(arrivals.flush(number).begun)
    wanted = scenario.training.sites_per_round
    if wanted is None or wanted >= len(names):
        return list(joined(scenario, names, number))
    return sorted(stream(seed, "sites", number).choice(len(names), wanted, replace=False, shuffle=False).tolist())


def share_of_sites(scenario: Scenario, names: Sequence[str]) -> float:
    """Return which share of the sites that have joined takes part in a round."""
    return min(1.0, size_of_round(scenario, len(names)) / len(names))


def size_of_round(scenario: Scenario, sites: int) -> int:
    """Return how many sites take part in a round, of those that have joined."""
    strategy = strategy_of(scenario, sites)
    return min(strategy.k if isinstance(strategy, Buffered) else scenario.training.sites_per_round or sites, sites)


def most_rounds(scenario: Scenario, seed: int, names: Sequence[str]) -> int:
    """Return in how many rounds the site takes part that is chosen most often."""
    rounds = scenario.training.rounds
    if size_of_round(scenario, len(names)) == len(names):
        return rounds
    times = Counter(site for number in range(1, rounds + 1) for site in sites_of_round(scenario, seed, names, number))
    return max(times.values())


def time_after(scenario: Scenario, seed: int, sites: int, number: int, asked: Sequence[int], before: float) -> float:
    """Return the virtual time after a round that asked some sites: a buffer's, or when the slowest of them is done.

    Args:
        scenario: Says how much sites differ in speed.
        seed: The seed of the run.
        sites: How many sites there are.
        number: The number of the round, from 1 on.
        asked: The numbers of the sites that were asked.
        before: The time after the round before.
    """
    arrivals = arrivals_of(scenario, seed, sites)
    if arrivals:
        return arrivals.flush(number).time
    return before + float(durations(seed, sites, scenario.training.duration_spread)[list(asked)].max())
