"""The task of a scenario and its rows: read once, checked, and kept."""

from pathlib import Path

import numpy as np

from fedsim.data.own_table.prepared import Intake, Prepared, check_digest, prepare
from fedsim.data.own_table.prepared import settled as settled_data
from fedsim.data.recent import Recent
from fedsim.data.task import SITE, Rows, Task
from fedsim.mistakes import Mistake
from fedsim.scenario import catalog
from fedsim.scenario.schema import Data, Scenario

POOLED = "(pooled)"  # stands for the rows of all sites in one pot
INSIDE = "(inside sites)"  # stands for all sites, each row compared with rows of its own site only
TOGETHER = (INSIDE, POOLED)  # stand for all sites, so that no site may have one of these names

_tables = Recent[Data, Prepared](size=4)
_rows = Recent[tuple[Task, Data], Rows](size=4)


def task_of(scenario: Scenario) -> Task:
    """Return what a scenario is about: a task by its name, or its own table.

    Raises:
        Mistake: The table can't be made into a task.
    """
    if scenario.task is None:
        return _prepared(scenario.data).task
    return named(scenario.task)


def named(name: str) -> Task:
    """Return the task of a name.

    Raises:
        Mistake: There is none, or another package's entry point leads to something else.
    """
    task = catalog.load("tasks", name)
    if not isinstance(task, Task):
        raise Mistake(f"task {name}: expected a fedsim.data.task.Task at its entry point, got {type(task).__name__}")
    return task


def intake_of(scenario: Scenario) -> Intake | None:
    """Return what became of the rows of a table of one's own; None of a task with a name."""
    return None if scenario.task else _prepared(scenario.data).intake


def settled(scenario: Scenario) -> Scenario:
    """Return the scenario as it must be written down to mean the same later and elsewhere.

    What is kept in memory is found by what the scenario says, so that only a settled one, which holds the file's
    digest and ranges, is sure to be about the file as it is now.

    Raises:
        Mistake: Its file is not there, or can't be made into a task; the message names the file of ranges.
    """
    if scenario.task is None:
        prepare(scenario.data)
    return scenario.model_copy(update={"data": settled_data(scenario.data)}) if scenario.data.path else scenario


def _prepared(data: Data) -> Prepared:
    return _tables.get(data, lambda: prepare(data))


def rows_of(scenario: Scenario) -> Rows:
    """Return the rows of all institutions of a scenario, checked; repeated calls return the same object.

    Raises:
        Mistake: There are none, or a task loads what it should not.
    """
    task = task_of(scenario)
    return _rows.get((task, scenario.data), lambda: load(task, scenario.task, scenario.data))


def load(task: Task, name: str | None, data: Data) -> Rows:
    """Read the rows of a task, and check them.

    Args:
        task: The task.
        name: Its name; None of a table of one's own.
        data: Where its rows are, if it does not know itself.

    Raises:
        Mistake: There are none, or the task loads what it should not.
    """
    if name and data.path and not task.needs_path:
        raise Mistake(f"data.path: task {name} has data of its own, got {data.path!r}")
    check_digest(data)
    rows = task.rows(Path(data.path) if data.path else None)
    for expected, wrong in _problems(task, rows).items():
        if wrong:
            raise Mistake(f"task {name or task.title}: expected {expected} from what it loads")
    check_examples(f"task {name or task.title}", task, rows.inputs, rows.target)
    return rows


def _problems(task: Task, rows: Rows) -> dict[str, bool]:
    count = len(rows.inputs)
    return {
        "as many targets and sites as inputs": len(rows.site) != count,
        f"sites with names other than {' and '.join(TOGETHER)}": bool(np.isin(rows.site, TOGETHER).any()),
        "names of sites without a zero byte": any("\0" in str(site) for site in np.unique(rows.site)),
        "as many times as inputs": rows.time is not None and len(rows.time) != count,
        "finite times": rows.time is not None and not np.isfinite(rows.time).all(),
        "times, since it is split by time,": rows.time is None and task.by_time,
        f"protected attributes with names other than {SITE}": SITE in rows.groups,
        "as many values of each protected attribute as inputs": any(
            len(values) != count for values in rows.groups.values()
        ),
    }


def check_examples(place: str, task: Task, inputs: np.ndarray, target: np.ndarray) -> None:
    """Make sure that inputs and targets are what training takes.

    Raises:
        Mistake: They are not.
    """
    expected_target = {
        "binary": ("a target of 0 or 1", lambda: np.isin(target, (0, 1)).all()),
        "classes": ("a target of class numbers, int64 from 0 on", lambda: (target >= 0).all()),
        "number": ("a target in [-1, 1]", lambda: (np.abs(target) <= 1 + 1e-6).all()),
    }
    dtype = np.dtype(np.int64 if task.kind == "classes" else np.float32)
    words, holds = expected_target[task.kind]
    problems = {
        "as many targets as inputs": len(target) != len(inputs),
        "float32 inputs": inputs.dtype != np.float32,
        words: not holds(),
        f"a target of {dtype}": target.dtype != dtype,
        "finite inputs": not np.isfinite(inputs).all(),
        "rows": len(inputs) == 0,
    }
    for expected, wrong in problems.items():
        if wrong:
            raise Mistake(f"{place}: expected {expected} from what it loads")
