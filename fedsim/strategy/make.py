"""From a scenario's ``[strategy]`` to the strategy, with its hyperparameters."""

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from fedsim.mistakes import Mistake
from fedsim.scenario import catalog
from fedsim.scenario.changes import value_of
from fedsim.scenario.schema import Scenario
from fedsim.strategy.contract import FACTS, reports_of
from fedsim.strategy.local_rule import LocalRule, Plain


def strategy_of(scenario: Scenario, sites: int | None = None) -> Any:  # noqa: ANN401  a Strategy, ours or Flower's
    """Make the scenario's strategy: one of ours, or a Flower Strategy.

    Args:
        scenario: The scenario.
        sites: How many sites there are, for the share that takes part in a round; by default all do.

    Raises:
        Mistake: The strategy has no such hyperparameter, or refuses a value.
    """
    training = scenario.training
    asked = training.sites_per_round or sites or 1
    rate = training.site_sampling_rate or (1 / training.site_turns if training.site_turns else None)
    facts = {
        "local_steps": training.local_steps,
        "lr": training.optimizer.lr,
        "weight_decay": training.optimizer.weight_decay,
        "participation": min(1.0, asked / (sites or asked)) if rate is None else rate,
    }
    kind = catalog.load("strategies", scenario.strategy.name)
    optimizer = training.optimizer
    if getattr(kind, "plain_sgd", False) and (optimizer.name, optimizer.momentum) != ("sgd", 0):
        raise Mistake(
            f"training.optimizer: expected sgd without momentum, whose steps {scenario.strategy.name} computes with, "
            f"got {optimizer.name} with momentum {optimizer.momentum:g}"
        )
    return make(kind, scenario.strategy.name, scenario.strategy.model_extra or {}, facts)


def make(
    kind: type, name: str, given: Mapping[str, Any], facts: Mapping[str, Any] | None = None, section: str = "strategy"
) -> Any:  # noqa: ANN401
    """Make a strategy or an attack from its class, the parameters that are given and the public facts it asks for.

    Raises:
        Mistake: There is no such hyperparameter, or a value is refused.
    """
    known = hyperparameters(kind)
    for key in given:
        if key not in known:
            hint = catalog.nearest(key, known) if known else "; it has no hyperparameters"
            raise Mistake(f"{section}.{key}: {name} has no such hyperparameter{hint}")
    wanted = {key: value for key, value in (facts or {}).items() if key in FACTS and key in known}
    try:
        return kind(**{**wanted, **given})
    except (TypeError, ValueError) as error:
        raise Mistake(f"{section}: {error}") from None


def rule_of(strategy: Any) -> LocalRule:  # noqa: ANN401  a Strategy, ours or Flower's
    """Return the client half of a strategy; that of federated averaging where it has none of its own."""
    return strategy.local_rule() if hasattr(strategy, "local_rule") else Plain()


def asked_of(strategy: Any) -> tuple[str, ...]:  # noqa: ANN401  a Strategy, ours or Flower's
    """Return what a strategy wants to know of each site beside its model; Flower's q-FedAvg has a key for losses."""
    return ("loss",) if hasattr(strategy, "train_loss_key") else reports_of(strategy)


def hyperparameters(kind: type) -> dict[str, str]:
    """Return {name: default} of what a strategy takes, as text."""
    if dataclasses.is_dataclass(kind):
        return {field.name: str(field.default) for field in dataclasses.fields(kind)}
    parameters = inspect.signature(kind).parameters.values()
    return {one.name: str(one.default) for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)}


def made_of(name: str, settings: Iterable[str]) -> Any:  # noqa: ANN401  a strategy of ours
    """Make a strategy of ours from its name or code, and ``key=value`` hyperparameters.

    Raises:
        Mistake: There is no such strategy, it refuses a value, or it is one of Flower's.
    """
    kind = catalog.load("strategies", name)
    if not hasattr(kind, "aggregate"):
        raise Mistake(f"{name}: expected a class with a method aggregate(center, updates, weights, state), "
                      f"got {kind.__name__}")  # fmt: skip
    return make(kind, name, dict(value_of(setting) for setting in settings))
