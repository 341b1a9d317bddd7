"""A task that is given in Python: as an object, or by its name."""

import sys
from typing import Any

from fedsim.data.task import Task
from fedsim.mistakes import Mistake
from fedsim.scenario.changes import Change, allow_task, with_task
from fedsim.scenario.code import held


def with_given_task(task: Any) -> Change:  # noqa: ANN401  what the caller gave, not yet checked
    """Return the change that puts a task in place of a scenario's.

    Args:
        task: A ``Task``, which is held from then on; or a name, such as ``my_tasks.py:falls``.

    Raises:
        Mistake: It is neither.
    """
    if isinstance(task, str):
        return with_task(task)
    name = hold_task(task)
    return Change(f"task={name}", f"task={held.label_of(name)}")


def allow_given_task(task: Any) -> None:  # noqa: ANN401  as above
    """Let the task of a run that was begun with it be loaded again.

    Raises:
        Mistake: It is no task and no name of one.
    """
    if isinstance(task, str):
        allow_task(task)
    else:
        hold_task(task)


def hold_task(task: Any) -> str:  # noqa: ANN401  as above
    """Hold a task until Python ends; return its name in a scenario.

    Raises:
        Mistake: It is no task.
    """
    if not isinstance(task, Task):
        hint = "; give the task itself, not its class" if task is Task else ""
        got = task.__name__ if isinstance(task, type) else type(task).__name__
        raise Mistake(f"task: expected a fedsim.data.task.Task, or the name of one as text, got {got}{hint}")
    module, name = _place_of(task)
    qualified = f"{module}.{name}" if name else f"a task of {module}"
    return held.hold(task, name or task.title.lower(), qualified, module)


def _place_of(task: Task) -> tuple[str, str]:
    """Return the module that a task's code is in, and the task's name there; no name where it has none."""
    modules = []
    for function in (task.load, task.make, task.model):
        module = getattr(function, "__module__", None)
        if function is not None and isinstance(module, str):
            modules.append(module)
    for module in dict.fromkeys([*modules, "__main__"]):
        for name, thing in vars(sys.modules.get(module, held)).items():
            if thing is task and not name.startswith("_"):
                return module, name
    return (modules or ["__main__"])[0], ""
