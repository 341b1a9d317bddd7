"""The other side of ``fedsim.experiments.processes``: a process that does the tasks that it is sent.

Tasks and results are pickled. They go through a pair of sockets that only these two processes have, so that nobody else
can put anything into them.
"""

import logging
import os
import signal
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

import torch

from fedsim.data.own_table import frames
from fedsim.engines import cohort
from fedsim.mistakes import Mistake, RunFailed, text_of
from fedsim.scenario import catalog
from fedsim.scenario.code import held
from fedsim.scenario.code.held import Held


class Task(Protocol):
    """Work that is done in a process of its own: it is pickled, and so is what it returns."""

    def __call__(self, tell: Callable[[Any], None]) -> Any:  # noqa: ANN401  whoever gives the task knows
        """Do the work, and tell of each step with its number, or with anything else that can be pickled."""
        ...


@dataclass(frozen=True)
class Setting:
    """What a process needs to do as the one that started it would do.

    Attributes:
        cores: The cores it may use.
        cut_for: For how many cores stacks are cut.
        allowed: The strategies and tasks of the user's that may be loaded.
        held: {name: object}, of tasks and strategies that are given in Python.
        frames: {digest: table}, of pandas frames, which are in no file.
        level: From which level on messages are logged.
    """

    cores: tuple[int, ...]
    cut_for: int
    allowed: frozenset[str]
    held: Mapping[str, Held]
    frames: Mapping[str, frames.Table]
    level: int


class _Forward(logging.Handler):
    """Sends what is logged to the process that shows it."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        self._connection.send(("log", record.name, record.levelno, record.getMessage()))


def work(descriptor: int, lifeline: int) -> None:
    """Do tasks until there are no more.

    Args:
        descriptor: The file descriptor of the connection by which tasks come.
        lifeline: One that is at its end when the process that started this one is gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; whoever started this one ends it
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    connection = Connection(descriptor)
    setting: Setting = connection.recv()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, setting.cores)
    torch.set_num_threads(1)  # the number of threads changes the order of sums, so the last bits
    root = logging.getLogger()
    root.setLevel(setting.level)
    root.addHandler(_Forward(connection))
    for name in setting.allowed:
        catalog.allow(name)

    with cohort.cut_for(setting.cut_for), frames.all_of(setting.frames), held.all_of(setting.held):
        while True:
            try:
                task = connection.recv()
            except EOFError:
                return
            connection.send(_done(task, connection))


def _done(task: Task, connection: Connection) -> tuple[str, Any]:
    """Do a task; return what came of it as it is sent."""
    try:
        return "done", task(lambda step: connection.send(("step", step)))
    except BaseException as error:
        return "raised", _sendable(error)


def _sendable(error: BaseException) -> BaseException:
    """Return an error of a kind that can be made again elsewhere, with its traceback in a note."""
    if isinstance(error, OSError):
        sendable: BaseException = OSError(error.errno, error.strerror, error.filename)
    elif isinstance(error, Mistake | RunFailed):
        sendable = type(error)(str(error))
    else:
        sendable = RuntimeError(f"{type(error).__name__}: {text_of(error)}")
    sendable.add_note("".join(traceback.format_exception(error)))
    return sendable


def _end_with(lifeline: int) -> None:
    """End this process when the one that started it is gone."""
    os.read(lifeline, 1)
    os._exit(1)
