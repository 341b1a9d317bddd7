"""What there is to choose from, by name: scenarios, tasks, strategies and engines.

The one place where fedsim reaches the packages above it. Names and titles are read from the source text, so listing
them imports nothing heavy:

- ``strategies/fedavg.py`` holds class ``FedAvg``; its title is the first line of the file's docstring.
- ``clients/hospital.py`` holds ``heart = Task(title="...", ...)``: the task ``hospital/heart``.
- An entry point of another package, ``"clinic/falls" = "package.module:falls"`` in the group ``fedsim.tasks``, is a
  task, too.
- ``scenarios/hospital-heart.toml`` is a scenario; its title is its ``title``.
- ``fedsim/engines/serial.py`` is an engine; its title is the first line of its docstring.
"""

import ast
import difflib
import importlib
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fedsim.mistakes import Mistake

KINDS = ("scenarios", "tasks", "strategies", "engines")
_PACKAGE = {"scenarios": "scenarios", "tasks": "clients", "strategies": "strategies", "engines": "fedsim.engines"}


@cache
def titles(kind: str) -> Mapping[str, str]:
    """Return {name: title} of all scenarios, tasks, strategies or engines, sorted by name."""
    folder = _folder(kind)
    if kind == "scenarios":
        found = {path.stem: _title(path) for path in folder.glob("*.toml")}
    elif kind == "tasks":
        others = {name: f"(by {entry.dist.name if entry.dist else '?'})" for name, entry in _entries().items()}
        found = others | {name: title for path in folder.glob("*.py") for name, title in _tasks_in(path)}
    else:
        found = {path.stem: _first_line(path) for path in folder.glob("*.py") if not path.stem.startswith("_")}
    return MappingProxyType(dict(sorted(found.items())))


def load(kind: str, name: str) -> Any:  # noqa: ANN401  a task, a strategy class or an engine's module
    """Import what ``name`` stands for: a Task, a strategy class, or the module of an engine.

    Raises:
        Mistake: There is no such name; the message has the nearest ones.
    """
    check(kind, name)
    if kind == "tasks" and name in _entries():
        return _entries()[name].load()
    module_name, _, member = name.partition("/")
    module = importlib.import_module(f"{_PACKAGE[kind]}.{module_name}")
    if kind == "tasks":
        return getattr(module, member.replace("-", "_"))
    if kind == "strategies":
        return _strategy_in(module, name)
    return module


@cache
def _entries() -> Mapping[str, EntryPoint]:
    """Return {name: entry point} of other packages' tasks; a name that is taken here stays what it is here."""
    own = {name for path in _folder("tasks").glob("*.py") for name, _ in _tasks_in(path)}
    return {entry.name: entry for entry in entry_points(group="fedsim.tasks") if entry.name not in own}


def _strategy_in(module: Any, name: str) -> Any:  # noqa: ANN401  a module, a class
    """Return the dataclass a strategy's file holds: ``FedAvg`` in ``fedavg.py`` or ``fed_avg.py``."""
    for key, thing in vars(module).items():
        own = isinstance(thing, type) and thing.__module__ == module.__name__
        if own and key.lower() == name.replace("_", "") and hasattr(thing, "__dataclass_fields__"):
            return thing
    raise Mistake(f"{module.__file__}: expected a dataclass named {name.replace('_', ' ').title().replace(' ', '')}")


def client_app() -> Any:  # noqa: ANN401  a flwr.clientapp.ClientApp, which this module must not import
    """Import the Flower ClientApp that every site runs."""
    return importlib.import_module("clients.app").app


def scenario_path(name: str) -> Path:
    """Return the file of a scenario that comes with fedsim."""
    check("scenarios", name)
    return _folder("scenarios") / f"{name}.toml"


def check(kind: str, name: str) -> None:
    """Raise a Mistake that names the nearest valid names if there is no ``name`` of this kind."""
    known = titles(kind)
    if name not in known:
        one = {"strategies": "a strategy", "engines": "an engine"}.get(kind, f"a {kind[:-1]}")
        raise Mistake(f"expected the name of {one}, got {name!r}{nearest(name, known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint: the closest known name, or all of them when none is close."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; there is {', '.join(map(repr, known))}"


def _folder(kind: str) -> Path:
    spec = find_spec(_PACKAGE[kind])
    if spec is None or not spec.submodule_search_locations:
        raise Mistake(f"the package {_PACKAGE[kind]!r} is not installed beside fedsim")
    return Path(next(iter(spec.submodule_search_locations)))


def _first_line(path: Path) -> str:
    try:
        docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    except (SyntaxError, ValueError) as error:
        return f"(can't be read: {error})"
    return docstring.partition("\n")[0].rstrip(".")


def _title(path: Path) -> str:
    try:
        return str(tomllib.loads(path.read_text("utf-8-sig"))["title"])
    except (KeyError, ValueError) as error:
        return f"(can't be read: {type(error).__name__} {error})"


def _tasks_in(path: Path) -> list[tuple[str, str]]:
    """Return (name, title) of every ``name = Task(title="...", ...)`` at the top level of a module."""
    found = []
    try:
        body = ast.parse(path.read_text("utf-8")).body
    except (SyntaxError, ValueError):
        return []  # importing it would say why; the other files' tasks are there all the same
    for node in body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        match target, node.value:
            case ast.Name(id=name), ast.Call(func=ast.Name(id="Task"), keywords=keywords):
                titles = [k.value.value for k in keywords if k.arg == "title" and isinstance(k.value, ast.Constant)]
                found.append((f"{path.stem}/{name.replace('_', '-')}", str(titles[0]) if titles else "(no title)"))
    return found
