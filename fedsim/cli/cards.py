"""Cards: what a scenario asks for, what a task holds, what a strategy or an engine does."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from textwrap import fill, wrap
from typing import Any

import tomli_w

from fedsim.data.contents import Contents, contents_of
from fedsim.data.loading import named, settled, task_of
from fedsim.data.tables import Column, Number
from fedsim.data.task import Task
from fedsim.mistakes import Mistake
from fedsim.scenario import catalog
from fedsim.scenario.files import parse, read
from fedsim.scenario.schema import Scenario
from fedsim.strategy.make import hyperparameters

_MOST_SITES = 40  # that are listed one by one
_WIDTH = 80  # of a terminal


@dataclass(frozen=True)
class Card:
    """The same facts twice: to read and as values for JSON; and what a picture can be made of."""

    text: str
    values: dict[str, Any]
    title: str = ""
    contents: Contents | None = None


def card(name: str, kind: str | None = None) -> Card:
    """Return the card of a scenario (by name or path), a task, a strategy, an attack or an engine.

    Args:
        name: Its name.
        kind: ``scenario``, ``task``, ``strategy``, ``attack`` or ``engine``; by default the first that has the name.

    Raises:
        Mistake: There is nothing of that name.
    """
    is_file = name.endswith(".toml") or Path(name).is_file()
    if kind in (None, "scenario") and (is_file or name in catalog.titles("scenarios")):
        return _scenario_card(read(name))
    if kind in (None, "task") and name in catalog.titles("tasks"):
        return _task_card(name, named(name))
    if kind in (None, "strategy") and name in catalog.titles("strategies"):
        strategy = catalog.load("strategies", name)
        return _code_card(name, inspect.getmodule(strategy), hyperparameters(strategy))
    if kind in (None, "attack") and name in catalog.titles("attacks"):
        attack = catalog.load("attacks", name)
        return _code_card(name, attack, hyperparameters(attack))
    if kind in (None, "engine") and name in catalog.titles("engines"):
        return _code_card(name, import_module(f"fedsim.engines.{name}"), {})
    raise Mistake(_nothing_called(name, kind))


def _nothing_called(name: str, kind: str | None) -> str:
    everything: list[str] = []
    for each in catalog.KINDS:
        everything.extend(catalog.titles(each))
    expected = "a scenario, task, strategy, engine or run directory"
    if kind is not None:
        expected = f"the name of {'an' if kind[0] in 'ae' else 'a'} {kind}"
    return f"show: expected {expected}, got {name!r}{catalog.nearest(name, everything)}"


def _scenario_card(scenario: Scenario) -> Card:
    fixed, values = settled(scenario), scenario.values()
    task, contents = task_of(fixed), contents_of(fixed)
    heading = _wrapped(f"# sites of {scenario.task or 'the table'}: {task.title}", "# ")
    text = f"{_toml(values)}\n{heading}\n{_sites(contents)}"
    values |= {"sites": _site_values(contents)}
    return Card(text, values, f"{scenario.title}\n{_partition(scenario)}", contents)


def _toml(values: Mapping[str, Any]) -> str:
    """Return a scenario as TOML; what it is about keeps to the width, in the same value."""
    text, about = (tomli_w.dumps(each, multiline_strings=True) for each in (values, {"about": values.get("about", "")}))
    folded = [
        " \\\n".join(wrap(line, _WIDTH - 2, break_long_words=False, break_on_hyphens=False))
        if len(line) > _WIDTH
        else line
        for line in about.split("\n")
    ]
    return text.replace(about, "\n".join(folded))


def _wrapped(line: str, indent: str) -> str:
    return fill(line, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _partition(scenario: Scenario) -> str:
    chosen = scenario.partition
    given = chosen.model_dump(exclude_none=True, exclude={"by", "seed"})
    return ", ".join([f"partition: {chosen.by}", *(f"{key} {value}" for key, value in given.items())])


def _task_card(name: str, task: Task) -> Card:
    contents, problem = None, ""
    try:
        contents = contents_of(parse({"name": "card", "title": "card", "task": name})) if task.load else None
    except Mistake as mistake:  # a task that needs a file of the scenario has a card without it
        if not task.needs_path:
            raise
        problem = f"sites: in the file\n{mistake}"
    missing = contents.missing if contents else {}
    columns = [
        {"name": c.name, "range": _range(c), "may be missing": c.missing, "missing": missing.get(c.name)}
        for c in task.columns
    ]
    facts = {"title": task.title, "outcome": task.outcome, "kind": task.kind, "source": task.source}
    facts |= {"licence": task.licence} if task.licence else {}
    facts |= {"range": _range(task.range)} if task.range else {}
    facts |= {"split": "by time: the latest rows of each site are its test rows"} if task.by_time else {}
    lines = [f"{key + ':':<9}{value}" for key, value in facts.items()]
    text = [name, *lines, "", *_column_lines(columns), *_group_lines(contents), problem or _sites(contents)]
    groups = contents.groups if contents else {}
    values = {"name": name, **facts, "columns": columns, "groups": groups, "sites": _site_values(contents)}
    return Card("\n".join(text), values, f"{name}: {task.title}", contents)


def _column_lines(columns: list[dict[str, Any]]) -> list[str]:
    if not columns:
        return []
    width = max(len(column["name"]) for column in columns)
    lines = ["columns (public ranges; share of rows without a value)"]
    for column in columns:
        unknown = ", may be missing" if column["may be missing"] else ""
        lacking = unknown if column["missing"] is None else f", {column['missing']:.0%} missing"
        lines.append(f"  {column['name']:<{width}}  {column['range']}{lacking}")
    return [*lines, ""]


def _group_lines(contents: Contents | None) -> list[str]:
    if not contents or not contents.groups:
        return []
    lines = [
        f"  {name}: {', '.join(f'{value} {count}' for value, count in counts.items())}"
        for name, counts in contents.groups.items()
    ]
    return ["protected attributes (rows)", *lines, ""]


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
    if isinstance(column, Number):
        return f"{column.low:g} to {column.high:g} {column.unit}".rstrip()
    levels = [level if isinstance(level, str) else f"{level:g}" for level in column.levels]
    listed = ", ".join(levels[:12]) + (f" and {len(levels) - 12} more" if len(levels) > 12 else "")
    return f"one of {listed}{': ' + column.meaning if column.meaning else ''}"
