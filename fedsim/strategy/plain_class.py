"""Strategies written as plain classes: one with a method ``aggregate`` and no base class gets its defaults here."""

from functools import lru_cache
from types import new_class
from typing import Any

from fedsim.mistakes import Mistake
from fedsim.strategy.contract import Buffered, Strategy
from fedsim.strategy.hooks import defines, public_names
from fedsim.strategy.local_rule import LocalRule, kinds_of


@lru_cache(maxsize=64)
def with_base(kind: type) -> type[Strategy]:
    """Return a class as a subclass of ``Strategy``; itself if it is one.

    Raises:
        Mistake: It has no method ``aggregate`` or a misspelt hook, or it counts on what was a coincidence of names.
    """
    if issubclass(kind, Strategy):
        return kind
    if not defines(kind, "aggregate"):
        raise Mistake(f"expected a class with a method aggregate(center, updates, weights, state), got {kind.__name__}")
    names = [name for part in kind.__mro__ for name in public_names(part)]
    if all(name in names for name in public_names(Buffered)):
        raise Mistake(
            f"{kind.__name__}: a strategy with fields k and concurrency, whose sites are not in step, says so now: "
            f"write class {kind.__name__}(Buffered), with from fedsim.strategy import Buffered"
        )

    def name_it(body: dict[str, Any]) -> None:
        body.update(__module__=kind.__module__, __qualname__=kind.__qualname__, __doc__=kind.__doc__)

    return new_class(kind.__name__, (kind, Strategy), exec_body=name_it)


def check_rules(strategy: Strategy) -> None:
    """Make sure that the client halves of a strategy are local rules.

    Raises:
        Mistake: One is a class without a base class; the message says what to write.
    """
    halves = {"local_rule": strategy.local_rule(), "second_rule": strategy.second_rule() or LocalRule()}
    for hook, rule in halves.items():
        if not isinstance(rule, LocalRule):
            name = type(rule).__name__
            bases = ", ".join(base.__name__ for base in kinds_of(type(rule)))
            raise Mistake(
                f"{type(strategy).__name__}.{hook}: expected a local rule with a base class, got {name}; "
                f"write class {name}({bases}), with from fedsim.strategy import {bases}"
            )
