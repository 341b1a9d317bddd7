"""What secure aggregation can't do, found out before anything is run."""

from typing import Any

from fedsim.flower.secure.site import grid_of
from fedsim.mistakes import Mistake
from fedsim.planning.misbehaviour import attack_of
from fedsim.privacy.unit import Place
from fedsim.privacy.units import unit_of
from fedsim.scenario.schema import Scenario
from fedsim.strategy.contract import needs_mean_only

MOST_WORDS = 1e11  # of masks in one round, in all: about ten minutes


def check_secure(scenario: Scenario, strategy: Any, sites: int, params: int) -> None:  # noqa: ANN401
    """Make sure that a scenario's rounds can be aggregated securely.

    Args:
        scenario: The scenario.
        strategy: Its strategy, ours or Flower's.
        sites: How many there are.
        params: How many parameters the model has.

    Raises:
        Mistake: The strategy or the attack needs single updates, a round has too few sites or too many for this model,
            or the sum could wrap around.
    """
    if not needs_mean_only(strategy):
        raise Mistake(f"strategy.name: expected one that uses the mean of the updates alone beside secure_aggregation, "
                      f"got {scenario.strategy.name}: the server never sees an update of one site")  # fmt: skip
    unit = scenario.privacy.unit
    if unit_of(unit).place is Place.AT_SERVER:
        raise Mistake(f'privacy.unit: expected "distributed" in place of "{unit}" beside secure_aggregation: a server '
                      "that sees no update can't clip it")  # fmt: skip
    participation = scenario.training.participation
    if participation.rate is not None:
        raise Mistake("training.site_sampling_rate: expected none beside secure_aggregation: who joins is known to the "
                      "server, and it may be too few; use training.sites_per_round")  # fmt: skip
    if hasattr(attack_of(scenario), "forge"):
        raise Mistake(f"attack.name: expected one that poisons rows beside secure_aggregation, "
                      f"got {scenario.attack.name}: it changes models on their way, where they are masked")  # fmt: skip
    least = participation.least(sites) - len(scenario.faults.joins_late)
    if least < 3:
        raise Mistake(f"secure_aggregation: expected at least 3 sites in every round, got {least}: of two, each could "
                      "subtract its own update from the sum")  # fmt: skip
    settings = scenario.secure_aggregation
    if settings.threshold_of(least) <= least / 2:
        raise Mistake(f"secure_aggregation.drop_outs: expected fewer than half of a round's sites, got "
                      f"{settings.drop_outs} of {least}")  # fmt: skip
    if settings.drop_outs is not None and settings.colluding + settings.drop_outs >= least:
        raise Mistake(f"secure_aggregation.colluding: expected sites whose noise is left, got {settings.colluding} and "
                      f"{settings.drop_outs} drop-outs of {least} sites")  # fmt: skip
    most = participation.most(sites)
    if most**2 * params > MOST_WORDS or most > 500:
        raise Mistake(f"secure_aggregation: expected a round of at most 500 sites and sites^2 x parameters of at most "
                      f"{MOST_WORDS:g}, since every two sites share a mask; got {most} sites and {params} parameters; "
                      "training.sites_per_round lowers it")  # fmt: skip
    declared = scenario.training.expected_batch
    weight = sum(declared.values()) if isinstance(declared, dict) else declared * most
    if not grid_of(settings).fits(weight):
        raise Mistake(f"secure_aggregation.range: expected one that leaves room for a sum with the weight {weight:g} "
                      f"and {settings.bits} bits after the point in 64 bits, got {settings.range:g}")  # fmt: skip
