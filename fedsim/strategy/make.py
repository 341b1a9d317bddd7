"""From a scenario's ``[strategy]`` to the strategy, with its hyperparameters."""

import dataclasses
import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import UnionType
from typing import Any

from fedsim.mistakes import STOPS, Mistake, said_by, text_of
from fedsim.scenario import catalog
from fedsim.scenario.changes import value_of
from fedsim.scenario.code.held import label_of
from fedsim.scenario.schedule import optimizer_in
from fedsim.scenario.schema import Scenario
from fedsim.strategy.contract import FACTS, Strategy
from fedsim.strategy.foreign import check_is_strategy, foreign, is_flowers
from fedsim.strategy.plain_class import check_rules, with_base


def strategy_of(scenario: Scenario, sites: int | None = None) -> Strategy:
    """Make the scenario's strategy: one of ours, or a ``Foreign`` one around a Flower Strategy.

    Args:
        scenario: The scenario.
        sites: How many sites there are, for the share that takes part in a round; by default all do.

    Raises:
        Mistake: The strategy has no such hyperparameter, or refuses a value.
    """
    name = scenario.strategy.label
    given = scenario.strategy.model_extra or {}
    kind = catalog.load("strategies", scenario.strategy.name)
    if is_flowers(kind):
        check_is_strategy(kind, name)
        return foreign(make(kind, name, given))

    with _hosted(name):
        kind = with_base(kind)
    optimizer = scenario.training.optimizer
    if kind.plain_sgd and (optimizer.name, optimizer.momentum) != ("sgd", 0):
        raise Mistake(
            f"training.optimizer: expected sgd without momentum, whose steps {name} computes with, "
            f"got {optimizer.name} with momentum {optimizer.momentum:g}"
        )
    strategy = make(kind, name, given, _facts(scenario, sites))
    with _hosted(name):
        check_rules(strategy)
    return strategy


def in_round(strategy: Strategy, scenario: Scenario, round_number: int) -> Strategy:
    """Return a strategy with the sites' learning rate in a round, where it has a field for it that was not given.

    Args:
        strategy: The strategy, as ``strategy_of`` made it.
        scenario: The scenario.
        round_number: The number of the round, from 1 on.
    """
    training = scenario.training
    if training.schedule.is_flat or "lr" in (scenario.strategy.model_extra or {}):
        return strategy
    if not dataclasses.is_dataclass(strategy):
        return strategy
    if not any(field.name == "lr" and field.init for field in dataclasses.fields(strategy)):
        return strategy
    return dataclasses.replace(strategy, lr=optimizer_in(training, round_number).lr)  # type: ignore[type-var]


@contextmanager
def _hosted(name: str) -> Iterator[None]:
    """Tell what the code of a strategy raises as a mistake, with its place.

    Raises:
        Mistake: It raised something.
    """
    try:
        yield
    except (Mistake, *STOPS):
        raise
    except BaseException as error:
        raise Mistake(f"strategy {name}: {said_by(error)}") from None


def _facts(scenario: Scenario, sites: int | None) -> dict[str, Any]:
    """Return the public facts of a scenario that a strategy may have fields for."""
    training = scenario.training
    participation = training.participation
    known_sites = sites or participation.number or 1  # a number of unknown sites counts as all
    return {
        "local_steps": training.local_steps,
        "lr": training.optimizer.lr,
        "weight_decay": training.optimizer.weight_decay,
        "participation": participation.share(known_sites),
    }


def make(
    kind: type, name: str, given: Mapping[str, Any], facts: Mapping[str, Any] | None = None, section: str = "strategy"
) -> Any:  # noqa: ANN401  an instance of the class
    """Make a strategy or an attack from its class, the parameters that are given and the public facts it asks for.

    Raises:
        Mistake: There is no such hyperparameter, or a value is refused.
    """
    known = hyperparameters(kind)
    for key in given:
        if key not in known:
            hint = catalog.nearest(key, known) if known else "; it has no hyperparameters"
            raise Mistake(f"{section}.{key}: {name} has no such hyperparameter{hint}")
    check_types(kind, given, section)
    wanted = {key: value for key, value in (facts or {}).items() if key in FACTS and key in known}
    try:
        return kind(**{**wanted, **given})
    except (TypeError, ValueError) as error:
        raise Mistake(f"{section}: {text_of(error)}") from None
    except STOPS:
        raise
    except BaseException as error:  # whatever the code of somebody else raises
        raise Mistake(f"{section}: {name} refuses its parameters: {said_by(error)}") from None


_TYPES: dict[object, tuple[str, type | UnionType]] = {
    bool: ("true or false", bool),
    int: ("a whole number", int),
    float: ("a number", int | float),
    str: ("a text", str),
}
"""{annotation of a field: (what is expected, the types of it)}."""


def check_types(kind: type, given: Mapping[str, Any], section: str) -> None:
    """Make sure that parameters have the types that a dataclass declares; fields of other types are left to the class.

    Raises:
        Mistake: Some have not; each has a line.
    """
    if not dataclasses.is_dataclass(kind):
        return
    declared = {field.name: field.type for field in dataclasses.fields(kind)}
    by_text = {expected.__name__: expected for expected in (bool, int, float, str)}
    faults = []
    for key, value in given.items():
        annotation = by_text.get(str(declared.get(key)), declared.get(key))
        if annotation not in _TYPES:
            continue
        expected, types = _TYPES[annotation]
        if not isinstance(value, types) or (isinstance(value, bool) and annotation is not bool):
            faults.append(f"{section}.{key}: expected {expected}, got {value!r}")
    if faults:
        raise Mistake("\n".join(faults))


def hyperparameters(kind: type) -> dict[str, str]:
    """Return {name: default} of what a strategy takes, as text."""
    if dataclasses.is_dataclass(kind):
        return {field.name: str(field.default) for field in dataclasses.fields(kind)}
    parameters = inspect.signature(kind).parameters.values()
    return {
        parameter.name: str(parameter.default)
        for parameter in parameters
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }


def made_of(name: str, settings: Iterable[str]) -> Strategy:
    """Make a strategy of ours from its name or code, and ``key=value`` hyperparameters.

    Raises:
        Mistake: There is no such strategy, it refuses a value, or it is one of Flower's.
    """
    kind = catalog.load("strategies", name)
    name = label_of(name)
    if is_flowers(kind):
        raise Mistake(f"{name}: expected a class with a method aggregate(center, updates, weights, state), "
                      f"got {kind.__name__}")  # fmt: skip
    with _hosted(name):
        strategy = make(with_base(kind), name, dict(value_of(setting) for setting in settings))
        check_rules(strategy)
    return strategy
