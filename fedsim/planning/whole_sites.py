"""From a scenario to the noise that protects whole sites, and the faults that rule it out."""

from collections.abc import Callable, Sequence

from fedsim.flower.grid import FIRST_NODE, by_node, node_of, nodes_of
from fedsim.mistakes import Mistake
from fedsim.of_sites import OfSites, total
from fedsim.planning.participation import joined, share_of_sites
from fedsim.privacy.adaptive_clip import AdaptiveClip, noise_on_the_sum
from fedsim.privacy.central import CentralNoise, PublicSites
from fedsim.privacy.ledger import Ledger
from fedsim.privacy.units import unit_of
from fedsim.randomness import Words
from fedsim.scenario.schema import Scenario
from fedsim.strategy.contract import Strategy, needs_mean_only


def noise_words(scenario: Scenario, seed: int, purpose: str, *place: int | str) -> Words:
    """Return the random words of the noise on one release, or on one site's share of it.

    They follow from names; if ``privacy.rng`` is ``secure``, they are drawn under a key that nobody can
    know, and are others in each call.

    Args:
        scenario: The experiment. All of it that shapes the release is a part of the name: no two
            releases share noise.
        seed: The seed of the training.
        purpose: Says by words which noise it is, such as "noise at the server".
        place: The arm, the site unless it is the server, and the round.
    """
    if scenario.privacy.rng == "secure":
        return Words.unknown()
    return Words.of(seed, purpose, scenario.release, *place)


def central_noise(
    scenario: Scenario,
    seed: int,
    arm: str,
    names: Sequence[str],
    multiplier: float,
    ledger: Ledger,
    joining: Callable[[int], Words],
) -> CentralNoise:
    """Build the server's noise mechanism.

    Args:
        scenario: The experiment.
        seed: The seed of the training.
        arm: The arm of the training.
        names: The sites.
        multiplier: The noise multiplier.
        ledger: The ledger where every release is written down.
        joining: From the number of a round to the random words by which sites join it (Poisson
            sampling).
    """
    privacy = scenario.privacy
    participation = scenario.training.participation
    share = share_of_sites(scenario, names)

    # Nodes in place of sites: the server knows its sites by the numbers that Flower gives them.
    name_of = OfSites(nodes_of(names), lambda node: names[node - FIRST_NODE])
    weights = by_node(scenario.expected_batches(names), names)
    of_all = len(names), total(weights)

    def expected(number: int) -> tuple[float, float]:
        """Return the number of sites that are expected in a round, and their weight together."""
        if not scenario.faults.joins_late:
            count, weight = of_all
            return share * count, share * weight
        weights_there = [weights[node_of(site)] for site in joined(scenario, names, number)]
        return share * len(weights_there), share * sum(weights_there)

    def words(number: int) -> Words:
        return noise_words(scenario, seed, "noise at the server", arm, number)

    # Noise is correlated over as many rounds as lie between two of one site.
    band = 1
    if privacy.correlated and participation.turns:
        band = participation.turns

    sites = PublicSites(
        names=name_of,
        weights=weights,
        sampling_rate=participation.joining_rate,
        expected=expected,
    )
    return unit_of(privacy.unit).at_server(
        ledger=ledger,
        noise_multiplier=multiplier,
        clip=privacy.clip,
        sites=sites,
        words=words,
        joining=joining,
        adaptive=_adaptive(scenario, share * len(names)),
        band=band,
    )


def _adaptive(scenario: Scenario, sites: float) -> AdaptiveClip | None:
    """Build the rule that moves the clip; None if it stays.

    If no other is chosen, the bits' noise is a twentieth of the sites of a round, as Andrew et al. advise.
    """
    chosen = scenario.privacy.adaptive_clip
    if chosen is None:
        return None
    bit_noise = chosen.bit_noise or sites / 20
    return AdaptiveClip(scenario.privacy.clip, chosen.quantile, chosen.rate, bit_noise)


def check_bits(scenario: Scenario, names: Sequence[str], multiplier: float) -> None:
    """Make sure that the bits by which a clip moves leave something of the budget.

    Raises:
        Mistake: Their noise is too small for that.
    """
    sites_in_a_round = share_of_sites(scenario, names) * len(names)
    adaptive = _adaptive(scenario, sites_in_a_round)
    if adaptive:
        noise_on_the_sum(multiplier, adaptive.bit_noise)


def check_mean_only(scenario: Scenario, strategy: Strategy) -> None:
    """Make sure that a strategy can work with the noisy mean alone.

    Raises:
        Mistake: It wants to see each update.
    """
    if not needs_mean_only(strategy):
        raise Mistake(
            f"strategy.name: expected one that needs the mean of the updates only with privacy.unit = "
            f"{scenario.privacy.unit!r}, such as fedavg or fedadam, got {scenario.strategy.label}: the "
            "server sees each update, but may use nothing but their noisy mean"
        )
