"""Facts about all sites that take no memory for each: of a million sites, a round asks for those it has."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Generic, TypeVar, overload

Key = TypeVar("Key")
Value = TypeVar("Value")


class MadeNames(Sequence[str]):
    """The names of made-up sites: ``site-007``, with as many digits as the last has, so that they are sorted.

    Args:
        count: The number of sites.
    """

    def __init__(self, count: int) -> None:
        self._numbers = range(count)
        self._width = len(str(count - 1))

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self._name(number) for number in self._numbers[place]]
        return self._name(self._numbers[place])

    def __iter__(self) -> Iterator[str]:
        return map(self._name, self._numbers)

    def __contains__(self, name: object) -> bool:
        return self._number(name) is not None

    def __eq__(self, other: object) -> bool:
        if isinstance(other, MadeNames):
            return len(self) == len(other)
        return isinstance(other, list) and list(self) == other

    def __hash__(self) -> int:
        return hash(("made", len(self)))

    def index(self, name: str, start: int = 0, stop: int | None = None) -> int:  # type: ignore[override]
        """Return the number of the site of a name, without going through the names.

        Raises:
            ValueError: There is none.
        """
        number = self._number(name)
        if number is None or number not in self._numbers[start:stop]:
            raise ValueError(f"expected the name of a site, got {name!r}")
        return number

    def _name(self, number: int) -> str:
        return f"site-{number:0{self._width}}"

    def _number(self, name: object) -> int | None:
        if not isinstance(name, str):
            return None
        digits = name.removeprefix("site-")
        if not digits.isdecimal() or not digits.isascii():
            return None
        number = int(digits)
        return number if number in self._numbers and self._name(number) == name else None


class OfSites(Mapping[Key, Value], Generic[Key, Value]):
    """{site: a fact about it}; the fact is made when it is asked for.

    Args:
        sites: The sites, by name or node; a collection that knows its members without going through them.
        fact: From a site to its fact.
    """

    def __init__(self, sites: Collection[Key], fact: Callable[[Key], Value]) -> None:
        self._sites = sites
        self._fact = fact

    def __len__(self) -> int:
        return len(self._sites)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._sites)

    def __getitem__(self, site: Key) -> Value:
        if site not in self._sites:
            raise KeyError(site)
        return self._fact(site)


class Alike(OfSites[Key, float]):
    """{site: a number}, where all sites have the same.

    Args:
        sites: The sites, by name or node, as for ``OfSites``.
        number: The number of each.
    """

    def __init__(self, sites: Collection[Key], number: float) -> None:
        super().__init__(sites, lambda site: number)
        self.number = number


def total(numbers: Mapping[Key, float]) -> float:
    """Return the sum of the sites' numbers, added up one by one: a product may differ in its last bit."""
    if isinstance(numbers, Alike):
        return sum(repeat(numbers.number, len(numbers)))
    return sum(numbers.values())


def largest(numbers: Mapping[Key, float]) -> float:
    """Return the largest of the sites' numbers, of which there is one at least."""
    return numbers.number if isinstance(numbers, Alike) and len(numbers) else max(numbers.values())
