"""Find the classes that a module defines, for folders whose files hold one each: units, attacks, kinds of outcomes."""

from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


def classes_in(module: ModuleType, base: type[T]) -> list[type[T]]:
    """Return the classes derived from ``base`` that a module defines itself, and does not import."""
    found = []
    for thing in vars(module).values():
        if isinstance(thing, type) and issubclass(thing, base) and thing.__module__ == module.__name__:
            found.append(thing)
    return found
