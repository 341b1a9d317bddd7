"""From a scenario to the noise that protects whole sites, and the budget it has."""

from collections.abc import Callable, Sequence

from fedsim.flower.grid import node_of
from fedsim.mistakes import Mistake
from fedsim.planning.participation import joined, most_rounds, share_of_sites
from fedsim.privacy.adaptive_clip import AdaptiveClip, noise_on_the_sum
from fedsim.privacy.central import CentralNoise, PublicSites
from fedsim.privacy.ledger import Ledger
from fedsim.randomness import Words
from fedsim.scenario.schema import Scenario
from fedsim.strategy.contract import Strategy, needs_mean_only


def steps_of_site(scenario: Scenario, seed: int, names: Sequence[str]) -> tuple[float, int]:
    """Return (sampling rate, most rounds) of a site: what its privacy costs, but for the noise.

    Sites that join on their own with a known probability are in every round with that probability. From any other
    choice nothing is claimed: what counts is in how many rounds the site is that is chosen most often.
    """
    rate = _rate(scenario)
    return (1.0, most_rounds(scenario, seed, names)) if rate is None else (rate, scenario.training.rounds)


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
    """Return what adds noise at the server, where sites join by the words of ``joining``, if on their own."""
    weights = {node_of(site): scenario.expected_batch(name) for site, name in enumerate(names)}
    share, privacy = share_of_sites(scenario, names), scenario.privacy

    def expected(number: int) -> tuple[float, float]:
        there = [weights[node_of(site)] for site in joined(scenario, names, number)]
        return share * len(there), share * sum(there)

    return CentralNoise(
        ledger=ledger,
        noise_multiplier=multiplier,
        clip=privacy.clip,
        sites=PublicSites(
            names={node_of(site): name for site, name in enumerate(names)},
            weights=weights,
            sampling_rate=_rate(scenario),
            expected=expected,
        ),
        words=lambda number: noise_words(scenario, seed, "noise at the server", arm, number),
        joining=joining,
        adaptive=_adaptive(scenario, share * len(names)),
        band=(scenario.training.site_turns or 1) if privacy.correlated else 1,
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


def _rate(scenario: Scenario) -> float | None:
    training = scenario.training
    if training.site_sampling_rate is not None:
        return training.site_sampling_rate
    return None if training.sites_per_round is not None or training.site_turns is not None else 1.0
