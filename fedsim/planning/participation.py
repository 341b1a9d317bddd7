"""Which sites take part in which round.

The choice follows from the seed, not from anybody's rows or from what happened before. A fixed number of sites is a
public draw, and no privacy is claimed from it. Where each site joins on its own (Poisson sampling of sites), the unit
``client`` claims what that is worth; with secure randomness it then follows from no seed either.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, lru_cache

import numpy as np

from fedsim.mistakes import Mistake
from fedsim.privacy.unit import Sampled
from fedsim.privacy.units import unit_of
from fedsim.randomness import Words, choose, stream
from fedsim.scenario.schema import Scenario
from fedsim.strategy.arrivals import Arrivals, durations
from fedsim.strategy.contract import Buffered
from fedsim.strategy.make import strategy_of


def joined(scenario: Scenario, names: Sequence[str], number: int) -> Sequence[int]:
    """Return the numbers of the sites, of these names, that have joined by a round, ascending."""
    first_rounds = scenario.faults.joins_late
    if not first_rounds:
        return range(len(names))
    return [site for site, name in enumerate(names) if first_rounds.get(name, 1) <= number]


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


def joining_of(scenario: Scenario, seed: int) -> Callable[[int], Words]:
    """Return, from the number of a round to the random words by which sites join it on their own, from their start.

    They are those of one training, and the same whenever it asks: by name, or under keys that nobody can know where the
    randomness is to be secure and a guarantee counts on nobody's knowing who joined.
    """
    if scenario.privacy.rng == "secure" and _hides_who_joins(scenario):
        drawn = cache(lambda number: Words.unknown())
        return lambda number: drawn(number).again()
    return lambda number: _named(scenario, seed, number)


def _hides_who_joins(scenario: Scenario) -> bool:
    """Whether the guarantee rests on nobody's knowing who joined a round."""
    return unit_of(scenario.privacy.unit).sampled is Sampled.SITES


def _named(scenario: Scenario, seed: int, number: int) -> Words:
    """Return the words of a round by name; where who joins is counted on, no two releases share them, as with noise."""
    own = (scenario.release,) if _hides_who_joins(scenario) else ()
    return Words.of(seed, "sites that join", *own, number)


def sites_of_round(
    scenario: Scenario,
    seed: int,
    names: Sequence[str],
    number: int,
    joining: Callable[[int], Words] | None = None,
) -> list[int]:
    """Return the numbers of a round's sites, ascending, from a scenario and a seed alone.

    A ``Trial`` knows when sites answer, and asks ``chosen_sites``.
    """
    arrivals = arrivals_of(scenario, seed, len(names))
    return chosen_sites(scenario, seed, names, number, joining, arrivals)


def chosen_sites(
    scenario: Scenario,
    seed: int,
    names: Sequence[str],
    number: int,
    joining: Callable[[int], Words] | None,
    arrivals: Arrivals | None,
) -> list[int]:
    """Return the numbers of a round's sites, ascending: all that have joined, or those that are drawn.

    A strategy that does not wait has the sites that answer first. Where a number is wanted, no site
    joins late, and each is as likely as any. Where there is a rate, each site joins the round with this
    probability on its own, by random words of which each site has its own; it may be none. Where sites
    take turns, each is in every n-th round, in an order that is drawn once.

    Args:
        scenario: The experiment.
        seed: The seed of the training.
        names: The sites.
        number: The number of the round, from 1 on.
        joining: The training's ``joining``; without it, the random words follow from the seed.
        arrivals: When sites answer to a strategy that does not wait; None for one that does.
    """
    if arrivals:
        return list(arrivals.flush(number).begun)

    there = joined(scenario, names, number)
    how = scenario.training.participation
    if how.rate is not None:
        words = joining(number) if joining else _named(scenario, seed, number)
        chosen = choose(words.draw(len(names)), how.rate)
        return _those_of(there, chosen)

    if how.turns is not None:
        order = _order(seed, len(names))
        return _those_of(there, (order - number) % how.turns == 0)

    wanted = how.size(len(names))
    if wanted == len(names):
        return list(there)
    drawn = stream(seed, "sites", number).choice(len(names), wanted, replace=False, shuffle=False)
    return sorted(drawn.tolist())


def _those_of(there: Sequence[int], chosen: np.ndarray) -> list[int]:
    """Return the sites of those that are there that are chosen, by whether each of all sites is, (sites,)."""
    if isinstance(there, range):  # all of them
        return np.flatnonzero(chosen).tolist()
    return [site for site in there if chosen[site]]


@lru_cache(maxsize=8)
def _order(seed: int, sites: int) -> np.ndarray:
    """Return the place of each site in the order in which they take turns, (sites,)."""
    return stream(seed, "turns of sites").permutation(sites)


def share_of_sites(scenario: Scenario, names: Sequence[str]) -> float:
    """Return which share of the sites that have joined takes part in a round, or is expected to."""
    how = scenario.training.participation
    if how.follows_a_rate:
        return how.share(len(names))
    return size_of_round(scenario, len(names)) / len(names)


def size_of_round(scenario: Scenario, sites: int) -> int:
    """Return how many sites take part in a round, or about how many, of those that have joined."""
    how = scenario.training.participation
    strategy = strategy_of(scenario, sites)
    if isinstance(strategy, Buffered) and not how.follows_a_rate:
        return min(strategy.k, sites)
    return how.size(sites)


def most_rounds(scenario: Scenario, seed: int, names: Sequence[str]) -> int:
    """Return in how many rounds the site takes part that is chosen most often."""
    rounds = scenario.training.rounds
    follows_a_rate = scenario.training.participation.follows_a_rate
    if not follows_a_rate and size_of_round(scenario, len(names)) == len(names):
        return rounds

    arrivals = arrivals_of(scenario, seed, len(names))
    times: Counter[int] = Counter()
    for number in range(1, rounds + 1):
        times.update(chosen_sites(scenario, seed, names, number, None, arrivals))
    return max(times.values(), default=1)


def time_of_slowest(scenario: Scenario, seed: int, sites: int, asked: Sequence[int]) -> float:
    """Return the virtual time of a round that waits for the slowest of the sites it asks.

    Args:
        scenario: The experiment, which says how much sites differ in speed.
        seed: The seed of the run.
        sites: The number of all sites.
        asked: The numbers of the sites that were asked.
    """
    takes = durations(seed, sites, scenario.training.duration_spread)  # (sites,)
    return float(takes[list(asked)].max(initial=0.0))
