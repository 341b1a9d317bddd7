"""From a scenario's ``[strategy]`` to the strategy, with its hyperparameters."""

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from fedsim import catalog
from fedsim.mistakes import Mistake
from fedsim.scenario import Scenario, value_of
from fedsim.strategy import FACTS


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
    facts = {
        "local_steps": training.local_steps,
        "lr": training.optimizer.lr,
        "participation": min(1.0, asked / (sites or asked)),
    }
    kind = catalog.load("strategies", scenario.strategy.name)
    return make(kind, scenario.strategy.name, scenario.strategy.model_extra or {}, facts)


def make(kind: type, name: str, given: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401
    """Make a strategy from its class, the hyperparameters that are given and the public facts it asks for.

    Raises:
        Mistake: There is no such hyperparameter, or a value is refused.
    """
    known = hyperparameters(kind)
    for key in given:
        if key not in known:
            hint = catalog.nearest(key, known) if known else "; it has no hyperparameters"
            raise Mistake(f"strategy.{key}: {name} has no such hyperparameter{hint}")
    wanted = {key: value for key, value in (facts or {}).items() if key in FACTS and key in known}
    try:
        return kind(**{**wanted, **given})
    except (TypeError, ValueError) as error:
        raise Mistake(f"strategy: {error}") from None


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
