"""A small memory for values that are costly to make, found by keys that can be compared but not hashed."""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """Keeps the values that were asked for last.

    A scenario's sections are frozen but hold lists and tables, so that they have no hash; few of them are in use at a
    time, so that comparing each is cheap.
    """

    def __init__(self, size: int) -> None:
        """Keep at most ``size`` values."""
        self._kept: deque[tuple[Key, Value]] = deque(maxlen=size)

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """Return the value of a key, which is made if it is not kept."""
        for place, (known, value) in enumerate(self._kept):
            if known == key:
                del self._kept[place]
                self._kept.append((known, value))
                return value

        value = make()
        self._kept.append((key, value))
        return value
