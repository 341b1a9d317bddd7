"""A strategy that is given in Python: as a class, as an object with its parameters, or by its name."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import flwr.serverapp.strategy as flowers

from fedsim.mistakes import Mistake
from fedsim.scenario import catalog
from fedsim.scenario.changes import Change, allow_strategy, with_strategy
from fedsim.scenario.code import held
from fedsim.strategy.foreign import is_flowers
from fedsim.strategy.hooks import defines
from fedsim.strategy.make import hyperparameters

_FLOWERS = "flwr.serverapp.strategy"


def with_given_strategy(strategy: Any) -> Change:  # noqa: ANN401  what the caller gave, not yet checked
    """Return the change that puts a strategy in place of a scenario's.

    Args:
        strategy: As ``text_of_strategy`` takes it.

    Raises:
        Mistake: It is no strategy.
    """
    change = with_strategy(text_of_strategy(strategy))
    if isinstance(strategy, str):
        return change
    kind = strategy if isinstance(strategy, type) else type(strategy)
    return Change(str(change), f"strategy={kind.__name__}")


def allow_given_strategy(strategy: Any) -> None:  # noqa: ANN401  as above
    """Let the strategy of a run that was begun with it be loaded again.

    Raises:
        Mistake: It is no strategy.
    """
    allow_strategy(text_of_strategy(strategy))


def text_of_strategy(strategy: Any) -> str:  # noqa: ANN401  as above
    """Return a strategy as it would be typed: ``krum:f=2``.

    Args:
        strategy: A name or code, such as ``krum:f=2`` or ``my_strategy.py:Mine``; a class, which is held from then on;
            or an object, which stands for its class and for those of its fields that differ from the defaults. Each
            training makes an object of its own, so that none has the state of another.

    Raises:
        Mistake: It is no strategy, or its parameters can't be written down.
    """
    if isinstance(strategy, str):
        return strategy
    if isinstance(strategy, type):
        return _name_of(strategy)
    name = _name_of(type(strategy))
    return ":".join([name, *(f"{key}={value}" for key, value in _parameters_of(strategy).items())])


def _name_of(kind: type) -> str:
    """Return the name of a class in a scenario: its own, or one under which it is held.

    Raises:
        Mistake: It is no strategy's class.
    """
    if is_flowers(kind):
        if getattr(flowers, kind.__name__, None) is kind:
            return f"{_FLOWERS}:{kind.__name__}"
    elif not defines(kind, "aggregate"):
        raise Mistake(
            f"strategy: expected a name, a class with a method aggregate(center, updates, weights, state), or an "
            f"object of one, got {kind.__name__}"
        )
    package, _, file = kind.__module__.rpartition(".")
    if package == "strategies" and file in catalog.titles("strategies") and catalog.load("strategies", file) is kind:
        return file
    return held.hold(kind, kind.__name__, f"{kind.__module__}.{kind.__qualname__}", kind.__module__)


def _parameters_of(strategy: Any) -> Mapping[str, str]:  # noqa: ANN401  an object of a strategy's class
    """Return {field: its value as it would be typed} of those that differ from their defaults.

    Raises:
        Mistake: They can't be read, or can't be written down.
    """
    kind = type(strategy)
    if not dataclasses.is_dataclass(strategy):
        if hyperparameters(kind):
            raise Mistake(
                f"strategy: expected an object of a dataclass, whose fields are its parameters, got {kind.__name__}; "
                f'give the class, and parameters as "strategy.NAME=VALUE"'
            )
        return {}

    found = {}
    faults = []
    for field in dataclasses.fields(strategy):
        value = getattr(strategy, field.name)
        if not field.init or _is_default(field, value):
            continue
        item = getattr(value, "item", None)
        if item is not None and not isinstance(value, str | bool | int | float):
            value = item()  # a number of NumPy's
        if not isinstance(value, str | bool | int | float) or (isinstance(value, str) and not _is_word(value)):
            faults.append(
                f"strategy.{field.name}: expected a number, true or false, or a word, which a scenario can hold, got "
                f"{type(value).__name__}; give it as a default of the class"
            )
            continue
        if isinstance(value, float):
            value = float(value)  # so is one of NumPy's, which shows itself otherwise
        found[field.name] = json.dumps(value) if isinstance(value, str | bool) else repr(value)
    if faults:
        raise Mistake("\n".join(faults))
    return found


def _is_default(field: "dataclasses.Field[Any]", value: object) -> bool:
    if field.default is not dataclasses.MISSING:
        return value is field.default or (type(value) is type(field.default) and value == field.default)
    if field.default_factory is not dataclasses.MISSING:
        return value == field.default_factory()
    return False


def _is_word(text: str) -> bool:
    return bool(text) and not set(text) & set(':=,"\\\n')
