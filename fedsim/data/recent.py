"""Keep a few values that are costly to make, found by keys that can be compared but not hashed."""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """A cache of the values that were used last.

    A scenario's sections are frozen but hold lists and tables, so that they have no hash. Few of
    them are in use at a time, so that comparing a key with each is cheap.
    """

    def __init__(self, size: int) -> None:
        """Keep at most ``size`` values."""
        self._kept: deque[tuple[Key, Value]] = deque(maxlen=size)

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """Return the value of a key; ``make`` is called if the value is not kept."""
        for place, (known, value) in enumerate(self._kept):
            if known == key:
                # The value moves to the end, where it is the last to be dropped.
                del self._kept[place]
                self._kept.append((known, value))
                return value

        value = make()
        self._kept.append((key, value))
        return value
