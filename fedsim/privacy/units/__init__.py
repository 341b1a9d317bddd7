"""The privacy units, one file each. The folder is their list: to add a unit is to add a file.

``fedsim.privacy.unit`` says what a unit has to have.
"""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from fedsim.classes import classes_in
from fedsim.mistakes import Mistake
from fedsim.privacy.ledger import Release
from fedsim.privacy.unit import Unit

_BEFORE_KINDS = ("noisy-steps", "noisy-sum", "noisy-update", "noise-share")
"""The kinds of releases that files may hold without a tag; no two of them have the same fields."""


def names() -> list[str]:
    """Return the names of all units, sorted."""
    return sorted(path.stem for folder in __path__ for path in Path(folder).glob("[!_]*.py"))


@cache
def unit_of(name: str) -> Unit:
    """Return a unit by its name, which is that of its file.

    Raises:
        Mistake: There is no such unit; none stands in for it.
        TypeError: Its file does not hold one class of a unit, or the unit lacks something.
    """
    known = names()
    if name not in known:
        raise Mistake(f"privacy.unit: expected {', '.join(map(repr, known))}, got {name!r}")

    module = import_module(f"{__name__}.{name}")
    classes = classes_in(module, Unit)
    if len(classes) != 1:
        raise TypeError(f"{module.__file__}: expected one subclass of Unit, got {len(classes)}")
    return classes[0]()  # pyright: ignore[reportAbstractUsage]  a class derived from it


@cache
def _kinds() -> Mapping[str, type[Release]]:
    """Return {kind: class} of all releases that units write into a ledger.

    Raises:
        TypeError: Two classes have the same kind.
    """
    found: dict[str, type[Release]] = {}
    for name in names():
        for release in unit_of(name).releases:
            if found.setdefault(release.kind, release) is not release:
                raise TypeError(f"{release.__name__}: expected a kind of its own, {release.kind!r} is taken")
    return found


def released_in(entry: Mapping[str, Any]) -> Release:
    """Return the release of one entry of ``ledger.json``.

    Entries of earlier versions have no ``kind``; there the fields tell the kinds of that time apart.

    Raises:
        ValueError: It is no kind of release, or its fields are not that kind's.
    """
    values = entry["mechanism"]
    kinds = _kinds()
    if "kind" in entry:
        if entry["kind"] not in kinds:
            raise ValueError(f"expected a release of the kinds {', '.join(sorted(kinds))}, got {entry['kind']!r}")
        candidates = [kinds[entry["kind"]]]
    else:
        candidates = [kinds[kind] for kind in _BEFORE_KINDS]

    for candidate in candidates:
        if candidate.has_fields(values):
            return candidate(**values)
    raise ValueError(f"expected a release, got the fields {sorted(values)}")
