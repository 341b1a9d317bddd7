"""What there is to choose from, by name: scenarios, tasks, strategies, attacks and engines.

The one place where fedsim reaches the packages above it. Names and titles are read from the source text, so listing
them imports nothing heavy:

- ``strategies/fedavg.py`` holds class ``FedAvg``; its title is the first line of the file's docstring.
- ``flwr.serverapp.strategy:FedYogi`` is a strategy of Flower's. Any other ``package.module:Class``, and a file
  ``my_strategy.py``, is code of the user's: it is loaded only after ``allow`` was called for it, which the command line
  does for what ``--strategy`` names. A scenario file can't.
- ``clients/hospital.py`` holds ``heart = Task(title="...", ...)``: the task ``hospital/heart``.
- ``clients/attacks/sign_flip.py`` holds class ``SignFlip``: the attack ``sign-flip``; its title is the first line of
  the file's docstring.
- ``my_tasks.py:falls``, or ``my_tasks.py`` with a single task in it, is a task of the user's own: likewise loaded only
  if the command line named it (``--task``). In a scenario its name ends in the beginning of its file's SHA-256, as in
  ``my_tasks.py:falls@3f2a9c01b2d4e5f6``, and it is loaded only from such a file.
- ``python:falls@3f2a9c01b2d4e5f6`` is a task or a strategy's class that was given in Python, see ``code.held``.
- An entry point of another package, ``"clinic/falls" = "package.module:falls"`` in the group ``fedsim.tasks``, is a
  task, too.
- ``scenarios/hospital-heart.toml`` is a scenario; its title is its ``title``.
- ``fedsim/engines/serial.py`` is an engine; its title is the first line of its docstring.
- ``fedsim/privacy/units/record.py`` is a privacy unit; likewise.
- ``fedsim/audits/attacks/membership.py`` is an attack of ``fedsim audit``; its title is found in the same way.
- ``fedsim/tracking/trackers/mlflow.py`` holds class ``MLflow``, a tracker; likewise.
"""

import ast
import difflib
import hashlib
import importlib
import re
import sys
import tomllib
import traceback
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fedsim.mistakes import Mistake, place_of
from fedsim.scenario.code import held
from fedsim.scenario.code.source_files import module_of, source_of

KINDS = ("scenarios", "tasks", "strategies", "attacks", "engines", "audits", "units", "trackers")
_SUFFIXES = (".py", ".csv", ".gz")  # of files that decide the result of a training
_PACKAGE = {
    "scenarios": "scenarios",
    "tasks": "clients",
    "strategies": "strategies",
    "attacks": "clients.attacks",
    "engines": "fedsim.engines",
    "units": "fedsim.privacy.units",
    "audits": "fedsim.audits.attacks",
    "trackers": "fedsim.tracking.trackers",
}
_MOST_HINTS = 3  # names that are suggested where one is a part of them: heart of hospital/heart
_FLOWER = re.compile(r"flwr\.serverapp\.strategy:\w+")
_allowed: set[str] = set()
_own_tasks: dict[str, Any] = {}  # {name: the task of the user's own}; a name has its file's digest


def is_code(name: str) -> bool:
    """Whether a strategy is named as code, by a file or ``package.module:Class``, and not by its name here."""
    return ":" in name or name.endswith(".py")


def is_own_task(name: str | None) -> bool:
    """Whether a task is code of the user's own."""
    if name is None:
        return False
    file = held.split_digest(name)[0].partition(":")[0]
    return held.is_object(name) or file.endswith(".py")


def allow(name: str) -> None:
    """Let code that the user named on the command line be loaded, as a strategy or a task."""
    _allowed.add(name)


def allowed() -> frozenset[str]:
    """Return the code that the user named."""
    return frozenset(_allowed)


def task_in_file(text: str) -> str:
    """Return the name in a scenario of a task that the user named: ``my_tasks.py:falls`` with its file's digest.

    Raises:
        Mistake: There is no such file.
    """
    return held.with_digest(text, _task_digest(text))


def task_hash(name: str | None) -> str:
    """Return the SHA-256 of a task of the user's own: of its file, or of the object; nothing for any other task."""
    if name is None or not is_own_task(name):
        return ""
    if held.is_object(name):
        return held.held(name, "task").digest
    return _task_digest(_place_of_task(name))


def source_hash(strategy: str) -> str:
    """Return the SHA-256 of the file a strategy is defined in, or of the class that was given in Python."""
    if held.is_object(strategy):
        return held.held(strategy, "strategy").digest
    module = sys.modules[load("strategies", strategy).__module__]
    return hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest()


def code_hash(strategy: str) -> str:
    """Return the SHA-256 of the file of a strategy that is named as code; nothing for one that comes with fedsim."""
    return source_hash(strategy) if is_code(strategy) else ""


def facts_of_code(kind: str, name: str | None) -> dict[str, str]:
    """Return what a run directory says of a task or strategy that is the user's own code; empty for any other.

    Args:
        kind: ``task`` or ``strategy``.
        name: The name in the scenario.
    """
    if name is not None and held.is_object(name):
        return held.held(name, kind).facts
    if kind == "task" and is_own_task(name):
        return {"name": held.label_of(str(name)), "file_sha256": task_hash(name)}
    if kind == "strategy" and name is not None and is_code(name) and not _FLOWER.fullmatch(name):
        return {"name": name, "file_sha256": source_hash(name)}
    return {}


def source_folders() -> list[Path]:
    """Return the folders of the code that trains: fedsim's own and the clients'."""
    return [Path(__file__).parents[1], _folder("tasks")]


@cache
def source_digest() -> str:
    """Return the SHA-256 of the code that trains, and of the data that come with it."""
    parts = []
    for folder in source_folders():
        for path in sorted(folder.rglob("*")):
            if path.suffix in _SUFFIXES:
                parts.append(path.read_bytes())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def titles(kind: str) -> Mapping[str, str]:
    """Return {name: title} of all scenarios, tasks, strategies or engines, sorted by name."""
    of_files = _titles_in(kind, _folder(kind))
    if kind != "tasks":
        return of_files
    of_packages = {name: f"(by {entry.dist.name if entry.dist else '?'})" for name, entry in _entries().items()}
    return MappingProxyType(dict(sorted({**of_files, **of_packages}.items())))


@cache
def _titles_in(kind: str, folder: Path) -> Mapping[str, str]:
    if kind == "scenarios":
        found = {path.stem: _title(path) for path in folder.glob("*.toml")}
    elif kind == "tasks":
        found = {name: title for path in folder.glob("*.py") for name, title in _tasks_in(path)}
    else:
        found = {_name_of(kind, path): _first_line(path) for path in folder.glob("*.py") if path.stem[0] != "_"}
    return MappingProxyType(dict(sorted(found.items())))


def load(kind: str, name: str) -> Any:  # noqa: ANN401  a task, a strategy class or an attack's class
    """Import what ``name`` stands for: a Task, a strategy class or an attack's class.

    Raises:
        Mistake: There is no such name; the message has the nearest ones.
    """
    if kind == "strategies" and is_code(name):
        return held.held(name, "strategy").thing if held.is_object(name) else _from_code(name)
    if kind == "tasks" and is_own_task(name):
        return held.held(name, "task").thing if held.is_object(name) else _own_task(name)
    check(kind, name)
    if kind == "tasks" and name in _entries():
        return _entries()[name].load()
    module_name, _, member = name.partition("/")
    if kind == "attacks":
        module_name = name.replace("-", "_")
    module = importlib.import_module(f"{_PACKAGE[kind]}.{module_name}")
    if kind == "tasks":
        return getattr(module, member.replace("-", "_"))
    if kind == "strategies":
        return _class_in(module, name, ("aggregate", "aggregate_train"))
    if kind == "attacks":
        return _class_in(module, name, ("poison", "forge"))
    if kind == "trackers":
        return _class_in(module, name, ("log",))
    raise ValueError(f"expected tasks, strategies, attacks or trackers, got {kind}")


def _name_of(kind: str, path: Path) -> str:
    """Return the name of what a file holds: ``sign_flip.py`` among the attacks is ``sign-flip``."""
    return path.stem.replace("_", "-") if kind == "attacks" else path.stem


def _from_code(name: str) -> Any:  # noqa: ANN401  a strategy class, ours or Flower's
    """Import a strategy of Flower's, or one that the user allowed."""
    if not _FLOWER.fullmatch(name) and name not in _allowed:
        raise Mistake(f"strategy.name: {name} is code; name it: --strategy {name}, or strategy={name!r} in Python")
    module = module_of_code(name)
    place, _, member = name.partition(":")
    if not member:
        return _class_in(module, Path(place).stem, ("aggregate", "aggregate_train"))
    found = getattr(module, member, None)
    if not isinstance(found, type):
        known = [key for key, thing in vars(module).items() if isinstance(thing, type)]
        raise Mistake(f"{name}: expected a class{nearest(member, known)}")
    return found


def module_of_code(name: str) -> Any:  # noqa: ANN401  a module
    """Import the file or module of ``my_file.py:name``, ``my_file.py`` or ``package.module:name``.

    Raises:
        Mistake: It can't be.
    """
    place = name.partition(":")[0]
    try:
        return module_of(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except (Exception, SystemExit) as error:
        if isinstance(error, Mistake):
            raise
        where = "" if isinstance(error, SyntaxError | ImportError) else f" ({place_of(error)})"
        hint = _moved(error, traceback.extract_tb(error.__traceback__)[-1])
        raise Mistake(f"{name}: can't be imported: {type(error).__name__}: {error}{where}{hint}") from None


def _own_task(name: str) -> Any:  # noqa: ANN401  whoever loads it makes sure that it is a task
    """Import a task that the user allowed, once, from a file with the digest that its name has."""
    if name not in _own_tasks:
        _own_tasks[name] = _task_at(_place_of_task(name))
    return _own_tasks[name]


def _task_at(place: str) -> Any:  # noqa: ANN401  as above
    """Import a task from its file: ``my_tasks.py:falls``.

    Raises:
        Mistake: There is none.
    """
    module = module_of_code(place)
    member = place.partition(":")[2]
    tasks = {key: thing for key, thing in vars(module).items() if type(thing).__name__ == "Task"}
    if not member and len(tasks) == 1:
        return next(iter(tasks.values()))
    if not member:
        found = f"{len(tasks)}: {', '.join(tasks)}; name one, as in {place}:{next(iter(tasks))}" if tasks else "none"
        raise Mistake(f"--task {place}: expected a file with one task in it, got {found}")
    if not hasattr(module, member):
        known = nearest(member, tasks) if tasks else "; there is no task in it"
        raise Mistake(f"--task {place}: expected the name of a task in it, got {member!r}{known}")
    return getattr(module, member)


def _place_of_task(name: str) -> str:
    """Return where a task of the user's own is: what was typed for it, from wherever that is meant.

    Raises:
        Mistake: The user did not name it, or its file has changed.
    """
    label, digest = held.split_digest(name)
    file, _, member = label.partition(":")
    others = []
    for known in sorted(_allowed):
        place, own_digest = held.split_digest(known)
        own_file, _, own_member = place.partition(":")
        if not own_digest or own_member != member or held.is_object(known):
            continue
        if own_digest == digest and _is_still(place, digest):
            return place
        if Path(own_file).name == Path(file).name:
            others.append(place)
    if others and digest:
        expected = f"{label} as it was when the run was begun (SHA-256 {digest}...)"
        raise Mistake(f"--task {others[-1]}: expected {expected}, its file has changed")
    raise Mistake(f"task: {label} is code; name it: --task {label}, or task={label!r} in Python")


def _is_still(place: str, digest: str) -> bool:
    """Whether the file of a task is there, with the digest that it had."""
    try:
        return _task_digest(place).startswith(digest)
    except Mistake:
        return False


def _task_digest(place: str) -> str:
    """Return the SHA-256 of the file of a task ``my_tasks.py:falls``.

    Raises:
        Mistake: There is none.
    """
    return hashlib.sha256(source_of(Path(place.partition(":")[0]))).hexdigest()


_MOVED = {
    "fedsim.local_rule": "fedsim.strategy",
    "fedsim.private_layers": "fedsim.strategy",
    "fedsim.arrivals": "fedsim.strategy.arrivals",
    "fedsim.adapter": "fedsim.flower.adapter",
}
"""Modules that strategy files of older versions import from: {name then: name now}."""


def _moved(error: BaseException, place: traceback.FrameSummary) -> str:
    """Return what to write in place of an import from a module that has moved; nothing for any other error."""
    if not isinstance(error, ModuleNotFoundError) or error.name not in _MOVED:
        return ""
    now = _MOVED[error.name]
    line = (place.line or f"import {error.name}").replace(error.name, now)
    return f"; {error.name} is {now} now: write `{line}` ({Path(place.filename).name}:{place.lineno})"


@cache
def _entries() -> Mapping[str, EntryPoint]:
    """Return {name: entry point} of other packages' tasks."""
    return _not_taken(entry_points(group="fedsim.tasks"))


def _not_taken(entries: Iterable[EntryPoint]) -> Mapping[str, EntryPoint]:
    """Return the entry points by name; a name that is taken here stays what it is here."""
    taken = _titles_in("tasks", _folder("tasks"))
    return {entry.name: entry for entry in entries if entry.name not in taken}


def _class_in(module: Any, name: str, methods: Sequence[str]) -> Any:  # noqa: ANN401  a module, a class
    """Return the class that a file is about: ``FedAvg`` in ``fedavg.py`` or ``fed_avg.py``, or its only one.

    Args:
        module: The file, imported.
        name: The file's name.
        methods: The class has one of these methods. That is how a class without a base class is recognised, too.

    Raises:
        Mistake: There is no such class, or there are several; where a method is misspelt, the message says so.
    """
    own = [thing for thing in vars(module).values() if isinstance(thing, type) and thing.__module__ == module.__name__]
    able = [kind for kind in own if not _methods_of(kind).isdisjoint(methods)]
    called = re.sub(r"[_-]", "", name).lower()
    named = [kind for kind in able if kind.__name__.lower() == called]
    if len(named or able) == 1:
        return (named or able)[0]

    title = re.sub(r"[_-]", " ", name).title().replace(" ", "")
    found = ", ".join(kind.__name__ for kind in able) or "none"
    hint = "" if able else _misspelt(own, methods)
    raise Mistake(f"{module.__file__}: expected a class {title} with a method {methods[0]}, got {found}{hint}")


def _methods_of(kind: type) -> set[str]:
    """Return the names that a class and its bases define."""
    return {name for part in kind.__mro__ for name in vars(part)}


def _misspelt(kinds: Iterable[type], methods: Iterable[str]) -> str:
    """Return a hint at a method of some classes that is nearly called like one that is expected."""
    for kind in kinds:
        for method in methods:
            close = difflib.get_close_matches(method, _methods_of(kind), n=1, cutoff=0.8)
            if close:
                return f"; did you mean {method!r} by {kind.__name__}.{close[0]}?"
    return ""


def scenario_path(name: str) -> Path:
    """Return the file of a scenario that comes with fedsim."""
    check("scenarios", name)
    return _folder("scenarios") / f"{name}.toml"


def unit_path(name: str) -> Path:
    """Return the file of a privacy unit."""
    check("units", name)
    return _folder("units") / f"{name}.py"


def check(kind: str, name: str) -> None:
    """Raise a Mistake that names the nearest valid names if there is no ``name`` of this kind."""
    known = titles(kind)
    if name not in known:
        article = "an" if kind[0] in "ae" else "a"
        one = {"strategies": "a strategy", "units": "a privacy unit"}.get(kind, f"{article} {kind[:-1]}")
        raise Mistake(f"expected the name of {one}, got {name!r}{nearest(name, known)}")


def closest(name: str, known: Iterable[str]) -> str:
    """Return the known name that is close to a misspelt one; empty if none is."""
    by_fold = {each.casefold(): each for each in known}
    close = difflib.get_close_matches(name.casefold(), by_fold, n=1, cutoff=0.6)
    return by_fold[close[0]] if close else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint: the closest known name, or all of them when none is close."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not close:
        close = [each for each in known if name and name.lower() in re.split(r"[/_-]", each)][:_MOST_HINTS]
    if close:
        return f"; did you mean {' or '.join(map(repr, close))}?"
    return f"; there is {', '.join(map(repr, known))}"


@cache
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
