"""The facts of a privacy unit that a scenario is checked by, read from the unit's file without importing it.

``fedsim/privacy/units`` holds a file for each unit; the folder is the list of their names. A scenario knows no
mathematics, and reading one must not import any: so the class in the file writes these facts as literals.
"""

import ast
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path

from fedsim.mistakes import Mistake
from fedsim.scenario import catalog

NO_UNIT = "none"
"""The unit of a scenario that says nothing of privacy."""

UNIT_OF_RECORDS = "record"
"""The unit of a scenario without privacy, where a privacy level is asked for all the same."""


@dataclass(frozen=True)
class UnitFacts:
    """What a scenario must know of a unit; ``fedsim.privacy.unit.Unit`` says what each means."""

    neighbours: tuple[str, ...]
    arms: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    needs: tuple[tuple[str, str], ...]
    persons: bool = False
    forbids: tuple[tuple[str, str], ...] = ()

    @property
    def promises(self) -> bool:
        """Whether anybody is protected."""
        return bool(self.arms)


def unit_names() -> list[str]:
    """Return the names of all units, sorted."""
    return list(catalog.titles("units"))


def facts_of(unit: str) -> UnitFacts:
    """Return the facts of a unit.

    Raises:
        Mistake: There is no such unit, or its file does not state them as literals.
    """
    names = catalog.titles("units")
    if unit not in names:
        names = unit_names()
        listed = f"{', '.join(map(repr, names[:-1]))} or {names[-1]!r}"
        hint = catalog.nearest(str(unit), names)
        raise Mistake(f"expected {listed}, got {unit!r}{hint if 'did you mean' in hint else ''}")
    return _facts_in(catalog.unit_path(unit))


def owners_of_settings() -> dict[str, dict[str, str]]:
    """Return {setting: {unit: why}} of the settings that only some units have a use for."""
    found: dict[str, dict[str, str]] = {}
    for name in unit_names():
        for setting, reason in facts_of(name).settings:
            found.setdefault(setting, {})[name] = reason
    return found


@cache
def _facts_in(path: Path) -> UnitFacts:
    wanted = {field.name for field in fields(UnitFacts)}
    needed = {field.name for field in fields(UnitFacts) if field.default is MISSING}
    found: dict[str, object] = {}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.ClassDef):
            continue
        for statement in node.body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in wanted:
                    found[name] = _literal(value, f"{path}: {name}")

    missing = needed - set(found)
    if missing:
        raise Mistake(f"{path}: expected a class with {', '.join(sorted(missing))}, each a literal")
    return UnitFacts(**found)  # type: ignore[arg-type]  tests hold them against the classes' own


def _literal(value: ast.expr, place: str) -> object:
    try:
        return ast.literal_eval(value)
    except ValueError:
        raise Mistake(f"{place}: expected a literal, which can be read without running the file") from None
