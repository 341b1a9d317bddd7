"""Cards: what a scenario asks for, what a task holds, what a strategy or an engine does."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from fedsim import catalog
from fedsim.choice import hyperparameters
from fedsim.mistakes import Mistake
from fedsim.partition import PARTITIONS
from fedsim.scenario import Scenario, read
from fedsim.tables import Column, Number
from fedsim.task import Task


@dataclass(frozen=True)
class Card:
    """The same facts twice: to read and as values for JSON."""

    text: str
    values: dict[str, Any]


def card(what: str) -> Card:
    """Return the card of a scenario (by name or path), a task, a strategy or an engine.

    Raises:
        Mistake: There is nothing of that name.
    """
    if what.endswith(".toml") or Path(what).is_file() or what in catalog.titles("scenarios"):
        return _scenario_card(read(what))
    if what in catalog.titles("tasks"):
        return _task_card(what, catalog.load("tasks", what))
    for kind in ("strategies", "attacks", "engines"):
        if what in catalog.titles(kind):
            return _code_card(what, catalog.load(kind, what))
    known = [name for kind in catalog.KINDS for name in catalog.titles(kind)]
    raise Mistake(f"show: expected a scenario, task, strategy, engine or run directory, got {what!r}"
                  f"{catalog.nearest(what, known)}")  # fmt: skip


def _scenario_card(scenario: Scenario) -> Card:
    task: Task = catalog.load("tasks", scenario.task)
    sites = _sites(task, scenario.partition.by)
    values = scenario.model_dump(exclude_none=True)
    text = f"{tomli_w.dumps(values)}\n# sites of {scenario.task}: {task.title}\n{_site_lines(sites)}"
    return Card(text, values | {"sites": sites})


def _task_card(name: str, task: Task) -> Card:
    sites = _sites(task, "natural")
    columns = [{"name": c.name, "range": _range(c), "may be missing": c.missing} for c in task.columns]
    lines = [f"  {c['name']:<10} {c['range']}{', may be missing' if c['may be missing'] else ''}" for c in columns]
    head = f"{name}: {task.title}\ntarget: {task.outcome}\nsource: {task.source}\n\ncolumns (public ranges)"
    values = {"name": name, "title": task.title, "outcome": task.outcome, "source": task.source}
    return Card("\n".join([head, *lines, "", _site_lines(sites)]), values | {"columns": columns, "sites": sites})


def _code_card(name: str, thing: Any) -> Card:  # noqa: ANN401  a strategy class or an engine's module
    about = inspect.getdoc(thing if name in catalog.titles("attacks") else inspect.getmodule(thing)) or ""
    fields = hyperparameters(thing) if isinstance(thing, type) else {}
    settings = "".join(f"\n  {key} = {value}" for key, value in fields.items())
    return Card(f"{about}\n{settings}".rstrip(), {"name": name, "about": about, "hyperparameters": fields})


def _sites(task: Task, partition: str) -> dict[str, dict[str, Any]]:
    if task.load is None:
        return {}
    rows = task.load()
    return {
        site: {"rows": len(members), "positive": round(float(np.mean(rows.target[members])), 3)}
        for site, members in PARTITIONS[partition](rows).items()
    }


def _site_lines(sites: dict[str, dict[str, Any]]) -> str:
    if not sites:
        return "sites: as many as the scenario asks for (partition.by = 'made', partition.sites), made when needed"
    width = max(map(len, sites))
    lines = [
        f"  {site:<{width}}  {facts['rows']:>6} rows, {facts['positive']:.1%} positive" for site, facts in sites.items()
    ]
    return "\n".join(["sites", *lines])


def _range(column: Column) -> str:
    if isinstance(column, Number):
        return f"{column.low:g} to {column.high:g} {column.unit}".rstrip()
    return f"one of {', '.join(f'{level:g}' for level in column.levels)}: {column.meaning}"
