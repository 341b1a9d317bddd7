"""What a strategy can't do in a scenario, found out before anything is run."""

import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from fedsim.data.federation import Federation
from fedsim.mistakes import Mistake
from fedsim.planning.participation import arrivals_of, size_of_round
from fedsim.planning.secure_checks import check_secure
from fedsim.planning.whole_sites import check_mean_only
from fedsim.privacy.unit import Place
from fedsim.privacy.units import unit_of
from fedsim.scenario.schema import Scenario
from fedsim.strategy.contract import WITHOUT_NOISE, reports_of
from fedsim.strategy.make import asked_of, rule_of, strategy_of
from fedsim.training.model import layers_of


def check_expected_batches(scenario: Scenario, federation: Federation) -> None:
    """Make sure that a table of expected batches is for the sites there are.

    Raises:
        Mistake: It names others, or not all.
    """
    declared = scenario.training.expected_batch
    if isinstance(declared, dict) and sorted(declared) != sorted(federation.names):
        raise Mistake(
            f"training.expected_batch: expected one number for each of {', '.join(federation.names)}, "
            f"got them for {', '.join(declared)}"
        )


def check_strategy(scenario: Scenario, sites: int, model: nn.Module) -> None:
    """Find out before anything is run what the strategy can't do here.

    Raises:
        Mistake: It wants losses or a choice by losses under privacy, can't use the model, or can't aggregate as many
            updates as are asked for.
    """
    strategy, waits = strategy_of(scenario, sites), arrivals_of(scenario, scenario.seed, sites) is None
    if unit_of(scenario.privacy.unit).place is Place.AT_SERVER:
        check_mean_only(scenario, strategy)
    for name in asked_of(strategy):
        if scenario.private and name in WITHOUT_NOISE:
            raise Mistake(
                f"strategy.name: expected one that does without {WITHOUT_NOISE[name]} under privacy, got "
                f"{scenario.strategy.name}: losses are computed from rows without noise"
            )
    ours = hasattr(strategy, "aggregate")
    choices = {
        "training.sites_per_round": scenario.training.sites_per_round,
        "training.site_sampling_rate": scenario.training.site_sampling_rate,
        "training.site_turns": scenario.training.site_turns,
        "faults.joins_late": scenario.faults.joins_late,
    }
    for key in [key for key, value in choices.items() if value and not (ours and waits)]:
        raise Mistake(f"{key}: expected none beside {scenario.strategy.name}, which chooses among all sites itself")
    start = parameters_to_vector(model.parameters()).detach()
    if scenario.secure_aggregation.on:
        check_secure(scenario, strategy, sites, len(start))
    try:
        rule_of(strategy).begin(start, {}, layers_of(model))
        if ours:
            asked = size_of_round(scenario, sites)
            few = start[:8]  # what it can't do depends on how many updates there are, not on their length
            reports = {name: torch.ones(asked) for name in reports_of(strategy)}
            more = (reports,) if reports else ()
            strategy.aggregate(few, few.expand(asked, -1), torch.full((asked,), 1 / asked).to(few), {}, *more)
    except ValueError as error:
        raise Mistake(f"strategy {scenario.strategy.name}: {error}") from error
