"""Cards of scenarios, tasks, strategies, attacks and engines, as ``fedsim show`` prints them."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from textwrap import fill, wrap
from typing import Any

import tomli_w

from fedsim.data.contents import Contents, contents_of
from fedsim.data.loading import named, task_of
from fedsim.data.settling import settled
from fedsim.data.tables import Column, Number
from fedsim.data.task import Task
from fedsim.figures import level, setting, share
from fedsim.mistakes import Mistake
from fedsim.scenario import catalog
from fedsim.scenario.changes import allow_strategy, allow_task
from fedsim.scenario.files import is_path_of_scenario, parse, read
from fedsim.scenario.schema import Scenario
from fedsim.strategy.make import hyperparameters

_MOST_SITES = 40  # that are listed one by one
_MOST_LEVELS = 12
_DOCUMENTED = {
    "engine": "fedsim.engines",
    "audit": "fedsim.audits.attacks",
    "unit": "fedsim.privacy.units",
    "tracker": "fedsim.tracking.trackers",
}
"""{a kind of which the docstring of a file is shown: the package with the files}."""
_WIDTH = 80  # of a terminal


@dataclass(frozen=True)
class Card:
    """Facts about a thing, as text and as values for JSON; a picture is drawn of ``contents``."""

    text: str
    values: dict[str, Any]
    title: str = ""
    contents: Contents | None = None


def card(name: str, kind: str | None = None, changes: Sequence[str] = ()) -> Card:
    """Return the card of a thing that comes with fedsim, of a scenario by its path, or of a task or strategy in a file.

    Args:
        name: Its name.
        kind: One of ``options.KINDS`` but ``run``; by default the first that has the name.
        changes: ``key=value`` changes of a scenario.

    Raises:
        Mistake: There is nothing of that name.
    """
    if catalog.is_own_task(name):
        return _card_of_file(name, kind)
    is_scenario = is_path_of_scenario(name) or name in catalog.titles("scenarios")
    if changes and not is_scenario:
        raise Mistake(f"--task: expected a scenario beside it, got {name}")
    if kind in (None, "scenario") and is_scenario:
        return _scenario_card(read(name, changes))
    if kind in (None, "task") and name in catalog.titles("tasks"):
        return _task_card(name, named(name))
    if kind in (None, "strategy") and name in catalog.titles("strategies"):
        return _strategy_card(name, catalog.load("strategies", name))
    if kind in (None, "attack") and name in catalog.titles("attacks"):
        attack = catalog.load("attacks", name)
        return _code_card(name, inspect.getmodule(attack), hyperparameters(attack))
    for own_kind, package in _DOCUMENTED.items():
        if kind in (None, own_kind) and name in catalog.titles(f"{own_kind}s"):
            return _code_card(name, import_module(f"{package}.{name}"), {})
    raise Mistake(_nothing_called(name, kind))


def _card_of_file(name: str, kind: str | None) -> Card:
    """Return the card of a task or a strategy in a file of the user's: ``my_tasks.py:falls``, ``my_strategy.py``.

    Raises:
        Mistake: There is none.
    """
    if kind not in (None, "task", "strategy"):
        raise Mistake(_nothing_called(name, kind))
    if kind == "strategy" or (kind is None and not _holds_task(name)):
        return _strategy_card(name, catalog.load("strategies", allow_strategy(name)))
    return _task_card(name, named(allow_task(name)))


def _holds_task(name: str) -> bool:
    """Whether what a name of code in a file stands for is not a strategy's class.

    Raises:
        Mistake: The file can't be imported.
    """
    module = catalog.module_of_code(name)
    member = name.partition(":")[2]
    if member:
        return not isinstance(getattr(module, member, None), type)
    return any(isinstance(thing, Task) for thing in vars(module).values())


def _strategy_card(name: str, strategy: type) -> Card:
    documented = strategy if catalog.is_code(name) else inspect.getmodule(strategy)
    return _code_card(name, documented, hyperparameters(strategy))


def _nothing_called(name: str, kind: str | None) -> str:
    everything: list[str] = []
    for each in catalog.KINDS:
        everything.extend(catalog.titles(each))
    expected = "a scenario, task, strategy, engine or run directory"
    if kind is not None:
        expected = f"the name of {'an' if kind[0] in 'ae' else 'a'} {kind}"
    return f"show: expected {expected}, got {name!r}{catalog.nearest(name, everything)}"


def _scenario_card(scenario: Scenario) -> Card:
    fixed = settled(scenario)
    task = task_of(fixed)
    contents = contents_of(fixed)
    values = scenario.values()
    if task.kind == "binary":
        threshold = {"threshold": scenario.evaluation.threshold}  # the default, too, where it has a meaning
        values["evaluation"] = threshold | values.get("evaluation", {})

    heading = _wrapped(f"# sites of {scenario.task_label or 'the table'}: {task.title}", "# ")
    text = f"{_toml(values)}\n{heading}\n{_sites(contents)}"
    title = f"{scenario.title}\n{_partition(scenario)}"
    return Card(text, {**values, "sites": _site_values(contents)}, title, contents)


def _toml(values: Mapping[str, Any]) -> str:
    """Return a scenario as TOML; the long lines of ``about`` are folded, which keeps its value."""
    text = tomli_w.dumps(values, multiline_strings=True)
    about = tomli_w.dumps({"about": values.get("about", "")}, multiline_strings=True)
    folded = []
    for line in about.split("\n"):
        if len(line) > _WIDTH:
            pieces = wrap(line, _WIDTH - 2, break_long_words=False, break_on_hyphens=False)
            line = " \\\n".join(pieces)  # TOML joins lines that end in a backslash
        folded.append(line)
    return text.replace(about, "\n".join(folded))


def _wrapped(line: str, indent: str) -> str:
    return fill(line, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _partition(scenario: Scenario) -> str:
    """Return ``partition: dirichlet, sites 5, alpha 0.5``."""
    chosen = scenario.partition
    parameters = chosen.model_dump(exclude_none=True, exclude={"by", "seed"})
    parts = [f"partition: {chosen.by}"]
    for key, value in parameters.items():
        parts.append(f"{key} {value}")
    return ", ".join(parts)


def _task_card(name: str, task: Task) -> Card:
    contents = None
    sites = ""
    try:
        if task.load:
            of_file = allow_task(name)  # as a scenario names it
            contents = contents_of(parse({"name": "card", "title": "card", "task": of_file}))
    except Mistake as mistake:  # a task that needs a file of the scenario has a card without it
        if not task.needs_path:
            raise
        sites = f"sites: in the file\n{mistake}"

    columns = _column_values(task, contents)
    facts = _facts(task)
    lines = [name]
    for key, value in facts.items():
        lines.append(f"{key + ':':<9}{value}")
    lines += ["", *_column_lines(columns), *_group_lines(contents), sites or _sites(contents)]
    values = {
        "name": name,
        **facts,
        "columns": columns,
        "groups": contents.groups if contents else {},
        "sites": _site_values(contents),
    }
    return Card("\n".join(lines), values, f"{name}: {task.title}", contents)


def _facts(task: Task) -> dict[str, Any]:
    facts = {"title": task.title, "outcome": task.outcome, "kind": task.kind, "source": task.source}
    if task.licence:
        facts["licence"] = task.licence
    if task.range:
        facts["range"] = _range(task.range)
    if task.by_time:
        facts["split"] = "by time: the latest rows of each site are its test rows"
    return facts


def _column_values(task: Task, contents: Contents | None) -> list[dict[str, Any]]:
    missing = contents.missing if contents else {}
    columns = []
    for column in task.columns:
        columns.append(
            {
                "name": column.name,
                "range": _range(column),
                "may be missing": column.missing,
                "missing": missing.get(column.name),
            }
        )
    return columns


def _column_lines(columns: list[dict[str, Any]]) -> list[str]:
    if not columns:
        return []
    width = max(len(column["name"]) for column in columns)
    lines = ["columns (public ranges; share of rows without a value)"]
    for column in columns:
        if column["missing"] is not None:
            lacking = f", {share(column['missing'])} missing"
        elif column["may be missing"]:
            lacking = ", may be missing"
        else:
            lacking = ""
        lines.append(f"  {column['name']:<{width}}  {column['range']}{lacking}")
    return [*lines, ""]


def _group_lines(contents: Contents | None) -> list[str]:
    if not contents or not contents.groups:
        return []
    lines = ["protected attributes (rows)"]
    for name, counts in contents.groups.items():
        listed = [f"{value} {count}" for value, count in counts.items()]
        lines.append(f"  {name}: {', '.join(listed)}")
    return [*lines, ""]


def _code_card(name: str, documented: object, parameters: Mapping[str, str]) -> Card:
    """Return the card of a strategy, an attack or an engine: its docstring, and its hyperparameters with defaults."""
    about = inspect.getdoc(documented) or ""
    settings = "".join(f"\n  {key} = {value}" for key, value in parameters.items())
    values = {"name": name, "about": about, "hyperparameters": dict(parameters)}
    return Card(f"{about}\n{settings}".rstrip(), values)


def _sites(contents: Contents | None) -> str:
    """Return how many sites and rows there are, and a line for each site."""
    if contents is None:
        made = "sites: as many as the scenario asks for (partition.by = 'made', partition.sites), made when needed"
        return _wrapped(made, "  ")
    sites = contents.sites
    sizes = sorted(facts["rows"] for facts in sites.values())
    heading = f"{len(sites)} sites, {sum(sizes)} rows"
    width = max(map(len, sites))
    lines = [f"  {site:<{width}}  {facts['rows']:>6} rows, {facts['about']}" for site, facts in sites.items()]
    if len(lines) > _MOST_SITES:
        middle = sizes[len(sizes) // 2]
        heading += f"; {sizes[0]} to {sizes[-1]} at a site, half of them have {middle} or more"
        left_out = len(lines) - _MOST_SITES
        lines = [*lines[:_MOST_SITES], f"  and {left_out} more; --json lists all"]
    return "\n".join([heading, *lines])


def _site_values(contents: Contents | None) -> dict[str, dict[str, Any]]:
    sites = contents.sites if contents else {}
    return {site: {key: value for key, value in facts.items() if key != "about"} for site, facts in sites.items()}


def _range(column: Column) -> str:
    """Return ``20 to 100 years``, or ``one of f, m``."""
    if isinstance(column, Number):
        scale = ", on a logarithmic scale" if column.log else ""
        return f"{setting(column.low)} to {setting(column.high)} {column.unit}".rstrip() + scale
    levels = list(map(level, column.levels))
    listed = ", ".join(levels[:_MOST_LEVELS])
    if len(levels) > _MOST_LEVELS:
        listed += f" and {len(levels) - _MOST_LEVELS} more"
    meaning = f": {column.meaning}" if column.meaning else ""
    return f"one of {listed}{meaning}"
