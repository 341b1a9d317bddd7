"""From a scenario to the noise that protects whole sites, and the budget it has."""

from collections.abc import Sequence

from fedsim.grid import node_of
from fedsim.mistakes import Mistake
from fedsim.privacy.central import CentralNoise
from fedsim.privacy.ledger import Ledger
from fedsim.randomness import Words
from fedsim.sampling import joined, most_rounds, share_of_sites
from fedsim.scenario import Scenario
from fedsim.strategy import needs_mean_only
from fedsim.training import expected_batch


def steps_of_site(scenario: Scenario, seed: int, names: Sequence[str]) -> tuple[float, int]:
    """Return (sampling rate, most rounds) of a site: what its privacy costs, but for the noise.

    Sites that join on their own with a known probability are in every round with that probability. From any other
    choice nothing is claimed: what counts is in how many rounds the site is that is chosen most often.
    """
    rate = _rate(scenario)
    return (1.0, most_rounds(scenario, seed, names)) if rate is None else (rate, scenario.training.rounds)


def central_noise(
    scenario: Scenario, seed: int, arm: str, names: Sequence[str], multiplier: float, ledger: Ledger
) -> CentralNoise:
    """Return what adds noise at the server."""
    weights = {node_of(site): expected_batch(scenario, name) for site, name in enumerate(names)}
    share = share_of_sites(scenario, names)

    def expected(number: int) -> float:
        return share * sum(weights[node_of(site)] for site in joined(scenario, names, number))

    return CentralNoise(
        ledger=ledger,
        noise_multiplier=multiplier,
        clip=scenario.privacy.clip,
        sampling_rate=_rate(scenario),
        weights=weights,
        names={node_of(site): name for site, name in enumerate(names)},
        expected=expected,
        words=lambda number: Words.of(seed, "noise at the server", scenario.release, arm, number),
    )


def check_mean_only(scenario: Scenario, strategy: object) -> None:
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
    return None if training.sites_per_round is not None else 1.0
