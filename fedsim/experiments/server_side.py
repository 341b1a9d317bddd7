"""What a server needs for the federated arm, whether its sites are simulated or real."""

from collections.abc import Iterator, Mapping
from functools import cache, partial
from typing import Any

from fedsim.flower.adapter import Adapter
from fedsim.flower.grid import FIRST_NODE, by_node, node_of, nodes_of
from fedsim.flower.rounds import Budget, CentralBudget, Finished
from fedsim.flower.secure.server import SecureAdapter
from fedsim.flower.secure.shares import weights_of
from fedsim.of_sites import OfSites
from fedsim.planning.budgets import Spending
from fedsim.planning.trial import Trial
from fedsim.privacy.unit import Place
from fedsim.scenario import catalog
from fedsim.strategy.initial_models import initial_models
from fedsim.training.work import Plan


def adapted(trial: Trial, spending: Spending | None, budget: Budget | CentralBudget | None) -> Adapter | SecureAdapter:
    """Adapt a strategy of ours to Flower, with the server's noise or masks around it.

    Args:
        trial: The training.
        spending: What its sites may spend; None without privacy.
        budget: The same, as the rounds ask for it.
    """
    scenario = trial.scenario
    strategy = trial.strategy

    # Under masks the sites add shares of the noise, for sums of public weights of at most 1.
    shares = None
    weights = trial.weights
    if trial.unit.place is Place.IN_SHARES:
        shares = spending
    if shares:
        weights = weights_of(scenario, trial.names)

    def schedule(number: int) -> list[int]:
        return [node_of(site) for site in trial.sites_of(number)]

    draw = partial(initial_models, trial.model, trial.seed)
    adapter = Adapter(
        strategy,
        weights=by_node(weights, trial.names),
        fixed_denominator=trial.private,
        schedule=None if trial.arrivals else schedule,  # a buffer chooses its sites itself
        arrivals=trial.arrivals,
        state=strategy.first_state(draw),
        noise=budget.noise if isinstance(budget, CentralBudget) else None,
        own_participation="participation" in (scenario.strategy.model_extra or {}),
        in_round=trial.strategy_in,
    )
    if not scenario.secure_aggregation.on:
        return adapter
    return SecureAdapter(adapter, scenario.secure_aggregation, shares.share if shares else None)


def plans_of(trial: Trial) -> Mapping[int, tuple[str, Plan]]:
    """Return {node: (its site, what the site trains in a round, once)}; the learning rate is the full one."""
    plan = cache(trial.plan)  # sites with one expected batch have one plan

    def plan_of(node: int) -> tuple[str, Plan]:
        name = trial.names[node - FIRST_NODE]
        return name, plan(trial.weights[name])

    return OfSites(nodes_of(trial.names), plan_of)


def names_of_nodes(trial: Trial) -> Mapping[int, str]:
    """Return {node: its site}."""
    names = trial.names
    return OfSites(nodes_of(names), lambda node: names[node - FIRST_NODE])


def irregularities(finished: Finished, names: Mapping[int, str]) -> Iterator[str]:
    """Yield notes on replies that were set aside, reports that can't be, and refused rounds."""
    for number, rejected in finished.rejected.items():
        for rejection in rejected:
            site = names.get(rejection.node, f"node {rejection.node}")
            yield f"round {number}: {site} was left out: {rejection.reason}"
    for number, doubted in finished.doubted.items():
        for node, doubt in doubted.items():
            yield f"round {number}: {names[node]} was charged as planned: {doubt}"
    for number, reason in finished.refused.items():
        yield f"round {number} was refused: {reason}"


def run_config(trial: Trial) -> dict[str, Any]:
    """Return the configuration that the server sends to every site."""
    scenario = trial.scenario
    told: dict[str, Any] = {
        "scenario": scenario.model_dump_json(),
        "seed": trial.seed,
        "arm": trial.arm,
        "strategy-code": catalog.code_hash(scenario.strategy.name),
    }
    if trial.noise is not None:
        told["noise-multiplier"] = trial.noise
    if scenario.secure_aggregation.on:
        told["secure-aggregation"] = True
    return told
