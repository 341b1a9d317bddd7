"""From a scenario to the noise that protects whole sites, and the budget it has."""

from collections.abc import Callable, Sequence

from fedsim.flower.grid import node_of
from fedsim.mistakes import Mistake
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

    By name, or under a key that nobody can know if ``privacy.rng`` is ``secure``; then they are others in each call.

    Args:
        scenario: All of it that shapes the release is a part of the name: no two releases share noise.
        seed: The seed of the training.
        purpose: Who adds the noise to what.
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
        seed: Of the training.
        arm: Of the training.
        names: The sites.
        multiplier: The noise multiplier.
        ledger: Where every release is written down.
        joining: From the number of a round to the random words by which sites join it (Poisson sampling).
    """
    training = scenario.training
    privacy = scenario.privacy
    weights = {node_of(site): scenario.expected_batch(name) for site, name in enumerate(names)}
    share = share_of_sites(scenario, names)

    def expected(number: int) -> tuple[float, float]:
        there = [weights[node_of(site)] for site in joined(scenario, names, number)]
        return share * len(there), share * sum(there)

    return unit_of(privacy.unit).at_server(
        ledger=ledger,
        noise_multiplier=multiplier,
        clip=privacy.clip,
        sites=PublicSites(
            names={node_of(site): name for site, name in enumerate(names)},
            weights=weights,
            sampling_rate=training.participation.joining_rate,
            expected=expected,
        ),
        words=lambda number: noise_words(scenario, seed, "noise at the server", arm, number),
        joining=joining,
        adaptive=_adaptive(scenario, share * len(names)),
        band=(training.participation.turns or 1) if privacy.correlated else 1,
    )


def _adaptive(scenario: Scenario, sites: float) -> AdaptiveClip | None:
    """Return what moves the clip; the bits' noise is a twentieth of the sites of a round, as Andrew et al. advise."""
    chosen = scenario.privacy.adaptive_clip
    if chosen is None:
        return None
    return AdaptiveClip(scenario.privacy.clip, chosen.quantile, chosen.rate, chosen.bit_noise or sites / 20)


def check_bits(scenario: Scenario, names: Sequence[str], multiplier: float) -> None:
    """Make sure that the bits by which a clip moves leave something of the budget.

    Raises:
        Mistake: Their noise is too small for that.
    """
    adaptive = _adaptive(scenario, share_of_sites(scenario, names) * len(names))
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
            f"{scenario.privacy.unit!r}, such as fedavg or fedadam, got {scenario.strategy.name}: the server sees "
            "each update, but may use nothing but their noisy mean"
        )
