"""What secure aggregation can't do, found out before anything is run."""

from collections.abc import Iterator

from fedsim.flower.secure.site import grid_of
from fedsim.planning.misbehaviour import attack_class
from fedsim.privacy.unit import Place
from fedsim.privacy.units import unit_of
from fedsim.scenario.schema import Scenario
from fedsim.strategy.contract import Strategy, needs_mean_only

MOST_WORDS = 1e11  # of masks in one round, in all: about ten minutes
_MOST_SITES = 500  # in one round


def secure_faults(scenario: Scenario, strategy: Strategy, sites: int, params: int) -> Iterator[str]:
    """Yield why a scenario's rounds can't be aggregated securely.

    Args:
        scenario: The scenario.
        strategy: Its strategy.
        sites: How many there are.
        params: How many parameters the model has.
    """
    yield from _needs_of_single_updates(scenario, strategy)
    yield from _faults_of_small_rounds(scenario, sites)
    yield from _faults_of_large_rounds(scenario, sites, params)


def _needs_of_single_updates(scenario: Scenario, strategy: Strategy) -> Iterator[str]:
    """Yield what would need an update of one site, or the list of sites, where the server has the sum alone."""
    if not needs_mean_only(strategy):
        yield (
            "strategy.name: expected one that uses the mean of the updates alone beside secure_aggregation, "
            f"got {scenario.strategy.label}: the server never sees an update of one site"
        )
    unit = scenario.privacy.unit
    if unit_of(unit).place is Place.AT_SERVER:
        yield (
            f'privacy.unit: expected "distributed" in place of "{unit}" beside secure_aggregation: a server '
            "that sees no update can't clip it"
        )
    if scenario.training.participation.rate is not None:
        yield (
            "training.site_sampling_rate: expected none beside secure_aggregation: who joins is known to the "
            "server, and it may be too few; use training.sites_per_round"
        )
    attack = attack_class(scenario)
    if attack is not None and attack.forges():
        yield (
            "attack.name: expected one that poisons rows beside secure_aggregation, "
            f"got {scenario.attack.name}: it changes models on their way, where they are masked"
        )


def _faults_of_small_rounds(scenario: Scenario, sites: int) -> Iterator[str]:
    """Yield why the smallest round has too few sites to hide each other's updates."""
    least = scenario.training.participation.least(sites) - len(scenario.faults.joins_late)
    if least < 3:
        yield (
            f"secure_aggregation: expected at least 3 sites in every round, got {least}: of two, each could "
            "subtract its own update from the sum"
        )
        return  # shares of secrets for fewer mean nothing

    settings = scenario.secure_aggregation
    if settings.threshold_of(least) <= least / 2:
        yield (
            "secure_aggregation.drop_outs: expected fewer than half of a round's sites, got "
            f"{settings.drop_outs} of {least}"
        )
    if settings.drop_outs is not None and settings.colluding + settings.drop_outs >= least:
        yield (
            f"secure_aggregation.colluding: expected sites whose noise is left, got {settings.colluding} and "
            f"{settings.drop_outs} drop-outs of {least} sites"
        )


def _faults_of_large_rounds(scenario: Scenario, sites: int, params: int) -> Iterator[str]:
    """Yield why the largest round would take hours, or a sum that wraps around."""
    settings = scenario.secure_aggregation
    most = scenario.training.participation.most(sites)
    if most**2 * params > MOST_WORDS or most > _MOST_SITES:
        yield (
            f"secure_aggregation: expected a round of at most {_MOST_SITES} sites and sites^2 x parameters of at most "
            f"{MOST_WORDS:g}, since every two sites share a mask; got {most} sites and {params} parameters; "
            "training.sites_per_round lowers it"
        )

    declared = scenario.training.expected_batch
    weight = sum(declared.values()) if isinstance(declared, dict) else declared * most
    if not grid_of(settings).fits(weight):
        yield (
            f"secure_aggregation.range: expected one that leaves room for a sum with the weight {weight:g} "
            f"and {settings.bits} bits after the point in 64 bits, got {settings.range:g}"
        )
