"""Find the task of a scenario and read its rows: once, checked, and kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from fedsim.data.own_table.prepared import Intake, Prepared, check_digest, prepare
from fedsim.data.recent import Recent
from fedsim.data.scale import SENT, without_public_scale
from fedsim.data.task import SITE, Rows, Task
from fedsim.mistakes import STOPS, Mistake, said_by
from fedsim.outcomes import outcome_of
from fedsim.scenario import catalog
from fedsim.scenario.code.fingerprint import digest_of
from fedsim.scenario.code.held import label_of
from fedsim.scenario.schema import Data, Scenario

POOLED = "(pooled)"  # stands for the rows of all sites in one pot
INSIDE = "(inside sites)"  # stands for all sites, each row compared with rows of its own site only
TOGETHER = (INSIDE, POOLED)  # stand for all sites, so that no site may have one of these names

_INPUTS = (np.dtype(np.float32), np.dtype(np.int64))

_tables = Recent[Data, Prepared](size=4)
_rows = Recent[tuple[Task, Data], Rows](size=4)
_own_rows = Recent[tuple[Task, Data], tuple[Rows, str]](size=4)


def task_of(scenario: Scenario) -> Task:
    """Return the task of a scenario: a task with a name, or the user's own table.

    Raises:
        Mistake: The table can't be made into a task.
    """
    if scenario.task is None:
        return prepared_of(scenario.data).task
    return named(scenario.task)


def named(name: str) -> Task:
    """Load a task by its name.

    Raises:
        Mistake: No task has that name, or another package's entry point leads to something else.
    """
    task = catalog.load("tasks", name)
    if not isinstance(task, Task):
        expected = "a fedsim.data.task.Task"
        if not catalog.is_own_task(name):
            expected += " at its entry point"
        raise Mistake(f"task {label_of(name)}: expected {expected}, got {type(task).__name__}")
    return task


def intake_of(scenario: Scenario) -> Intake | None:
    """Return the account of the rows of the user's own table; None for a task with a name."""
    if scenario.task:
        return None
    prepared = prepared_of(scenario.data)
    notes = [*prepared.intake.notes]
    if scenario.data.scale == "learned":
        notes.append(SENT)
    if scenario.private:
        notes += without_public_scale(prepared.task.columns, prepared.task.range)
    return replace(prepared.intake, notes=tuple(notes))


def prepared_of(data: Data) -> Prepared:
    """Read a table of the user's own and make it a task; repeated calls return the same object.

    Loaded data is kept in memory under the values of the section. Only a settled scenario, which
    holds the file's digest and ranges, is sure to be about the file as it is now.

    Raises:
        Mistake: The table can't be made into a task.
    """
    return _tables.get(data, lambda: prepare(data))


def rows_of(scenario: Scenario) -> Rows:
    """Read and check the rows of all institutions; repeated calls return the same object.

    Raises:
        Mistake: There are none, or a task loads rows that it should not, or others than when the run was begun.
    """
    task = task_of(scenario)
    if not has_digest_of_rows(scenario):
        return _rows.get((task, scenario.data), lambda: load(task, scenario.task, scenario.data))
    rows, digest = _rows_and_digest(scenario, task)
    if scenario.data.sha256 not in (None, digest):
        expected = "the rows that the run was begun with"
        raise Mistake(f"task {scenario.task_label}: expected {expected}, it loads others now; begin a new run")
    return rows


def has_digest_of_rows(scenario: Scenario) -> bool:
    """Whether a settled scenario has a digest of the rows themselves: those of a task of the user's own.

    The task's code does not tell what is in the files that it reads.
    """
    return catalog.is_own_task(scenario.task) and not scenario.data.path and task_of(scenario).load is not None


def digest_of_rows(scenario: Scenario) -> str:
    """Return the SHA-256, in hex, of the rows that the task of a scenario loads."""
    return _rows_and_digest(scenario, task_of(scenario))[1]


def _rows_and_digest(scenario: Scenario, task: Task) -> tuple[Rows, str]:
    data = scenario.data.model_copy(update={"sha256": None})

    def read() -> tuple[Rows, str]:
        rows = load(task, scenario.task, data)
        return rows, digest_of(rows)

    return _own_rows.get((task, data), read)


def load(task: Task, name: str | None, data: Data) -> Rows:
    """Read the rows of a task, and check them.

    Args:
        task: The task.
        name: The task's name; None for the user's own table.
        data: The place of the rows, for a task that does not know it itself.

    Raises:
        Mistake: There are none, or the task loads rows that it should not.
    """
    if name and data.path and not task.needs_path:
        raise Mistake(f"data.path: task {name} has data of its own, got {data.path!r}")
    check_digest(data)
    path = Path(data.path) if data.path else None
    rows = _loaded(task, name, path)

    place = f"task {label_of(name) if name else task.title}"
    for expected, broken in _rules_of_rows(task, rows).items():
        if broken:
            raise Mistake(f"{place}: expected {expected} from what it loads")
    check_examples(place, task, rows.inputs, rows.target)
    return rows


def _loaded(task: Task, name: str | None, path: Path | None) -> Rows:
    """Return what a task loads; what the code of a task of the user's own raises is told as a mistake.

    Raises:
        Mistake: It can't be loaded.
    """
    if not catalog.is_own_task(name):
        return task.rows(path)
    place = f"task {label_of(name or '')}"
    try:
        rows = task.rows(path)
    except (Mistake, *STOPS):
        raise
    except BaseException as error:
        raise Mistake(f"{place}: its rows can't be loaded: {said_by(error)}") from None
    if not isinstance(rows, Rows):
        raise Mistake(f"{place}: expected fedsim.data.task.Rows from what it loads, got {type(rows).__name__}")
    return rows


def _rules_of_rows(task: Task, rows: Rows) -> dict[str, bool]:
    """Return {rule in words: whether the rows break it}, in the order of reporting."""
    count = len(rows.inputs)
    reserved_name = bool(np.isin(rows.site, TOGETHER).any())
    zero_byte = any("\0" in str(site) for site in np.unique(rows.site))
    uneven_groups = any(len(values) != count for values in rows.groups.values())
    return {
        "as many targets and sites as inputs": len(rows.site) != count,
        f"sites with names other than {' and '.join(TOGETHER)}": reserved_name,
        "names of sites without a zero byte": zero_byte,
        "as many times as inputs": rows.time is not None and len(rows.time) != count,
        "finite times": rows.time is not None and not np.isfinite(rows.time).all(),
        "times, since it is split by time,": rows.time is None and task.by_time,
        f"protected attributes with names other than {SITE}": SITE in rows.groups,
        "as many values of each protected attribute as inputs": uneven_groups,
    }


def check_examples(place: str, task: Task, inputs: np.ndarray, target: np.ndarray) -> None:
    """Check that inputs and targets are fit for training.

    Args:
        place: The name of the rows' source in messages.
        task: The task.
        inputs: As in ``Rows``, (rows, ...).
        target: As in ``Rows``, (rows, ...).

    Raises:
        Mistake: They are not.
    """
    outcome = outcome_of(task.kind)
    dtype = np.dtype(np.int64 if outcome.is_whole else np.float32)
    right_type = target.dtype == dtype
    fault = outcome.fault_of(target) if right_type and len(target) == len(inputs) else None
    rules = {
        "as many targets as inputs": len(target) != len(inputs),
        "inputs of int64 (for a model that begins with an embedding) or float32 inputs": inputs.dtype not in _INPUTS,
        f"a target of {dtype}": not right_type,
        fault or "": fault is not None,
        "finite inputs": not np.isfinite(inputs).all(),
        "rows": len(inputs) == 0,
    }
    for expected, broken in rules.items():
        if broken:
            raise Mistake(f"{place}: expected {expected} from what it loads")
