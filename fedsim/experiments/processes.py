"""Trainings in several processes of one machine, each on cores of its own and, where there are any, on a GPU.

What comes of a training depends on its scenario, seed and arm, and not on which process it ran in or on what runs
beside it: the processes share nothing but files, and stacks of sites are cut as they would be cut in one process.

A process is started as a program of its own, and not forked: the threads and the CUDA context of this one could not
live on in it. It ends when this process ends, however that may be.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from types import TracebackType
from typing import Any, Self

import torch

from fedsim.data.own_table import frames
from fedsim.engines import cohort
from fedsim.experiments.worker import Setting, Task
from fedsim.scenario import catalog
from fedsim.scenario.code import held

_SECONDS_TO_END = 5.0


@dataclass(frozen=True)
class Place:
    """Where a process computes.

    Attributes:
        cores: Its cores, by their numbers.
        gpu: Its GPU, as ``CUDA_VISIBLE_DEVICES`` has it; None where there is none.
    """

    cores: tuple[int, ...]
    gpu: str | None


def run_all(
    tasks: Sequence[Task], jobs: int, tell: Callable[[int, Any], None], lost: Callable[[int, str], Any]
) -> list[Any]:
    """Do all tasks, in this process or in several; return what they return, in their order.

    Args:
        tasks: The tasks.
        jobs: In how many processes. With 1, and where there is one task only, all is done in this process.
        tell: Called with the number of a task and what it tells, such as the number of its step.
        lost: Called with the number of a task whose process ended, and how; its result stands in for the task's.

    Raises:
        Exception: Whatever a task raised first; the others are ended.
    """
    if jobs == 1 or len(tasks) <= 1:
        return [task(lambda step, number=number: tell(number, step)) for number, task in enumerate(tasks)]
    with _Processes(min(jobs, len(tasks))) as processes:
        return processes.run(tasks, tell, lost)


def places(jobs: int, cores: Sequence[int], gpus: Sequence[str]) -> list[Place]:
    """Share cores and GPUs among so many processes: as evenly as may be, and no core twice where they suffice.

    Args:
        jobs: The number of processes.
        cores: The cores, by their numbers.
        gpus: The GPUs, as ``CUDA_VISIBLE_DEVICES`` has them.
    """
    shared = []
    for job in range(jobs):
        first, end = job * len(cores) // jobs, (job + 1) * len(cores) // jobs
        own = tuple(cores[first:end]) or (cores[job % len(cores)],)
        shared.append(Place(own, gpus[job % len(gpus)] if gpus else None))
    return shared


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` has them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


class _Process:
    """A process that does one task after another.

    Args:
        place: Where it computes.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.task: int | None = None
        self.connection, theirs = Pipe()
        alive, self._lifeline = os.pipe()
        start = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            "from fedsim import memory; memory.keep_freed(); memory.collect_seldom(); "
            "from fedsim.experiments.worker import work"
        )
        environment = dict(os.environ)
        if place.gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = place.gpu
        self._running = subprocess.Popen(  # noqa: S603  this Python, and code of ours
            [sys.executable, "-c", f"{start}; work({theirs.fileno()}, {alive})"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=2,  # what somebody's code prints is no part of a document
            pass_fds=(theirs.fileno(), alive),
        )
        theirs.close()
        os.close(alive)
        self.connection.send(
            Setting(
                cores=place.cores,
                cut_for=cohort.cores_to_cut_for(),
                allowed=catalog.allowed(),
                held=held.all_sendable(),
                frames=frames.all_held(),
                level=logging.getLogger().getEffectiveLevel(),
            )
        )

    def begin(self, number: int, task: Task) -> None:
        self.task = number
        self.connection.send(task)

    def how_it_ended(self) -> str:
        """Return in words how it ended by itself."""
        code = self._running.wait(_SECONDS_TO_END)
        if code >= 0:
            return f"its process ended with exit code {code}"
        hint = "; the memory of this machine may have run out" if code == -9 else ""
        return f"its process was ended by signal {-code}{hint}"

    def end(self) -> None:
        self._running.kill()
        self._running.wait()
        self.connection.close()
        os.close(self._lifeline)


class _Processes:
    """Some processes, which are ended with the body of a ``with``.

    Args:
        jobs: How many.
    """

    def __init__(self, jobs: int) -> None:
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        self._places = places(jobs, list(cores), visible_gpus())
        self._running: dict[Connection, _Process] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running.values():
            process.end()

    def run(
        self, tasks: Sequence[Task], tell: Callable[[int, Any], None], lost: Callable[[int, str], Any]
    ) -> list[Any]:
        """Do all tasks; see ``run_all``."""
        results: dict[int, Any] = {}
        waiting = iter(enumerate(tasks))
        for place in self._places:
            self._start(place, waiting)

        while len(results) < len(tasks):
            for connection in wait(list(self._running)):
                process = self._running[connection]  # type: ignore[index]  each is a Connection
                try:
                    kind, *content = process.connection.recv()
                except (EOFError, ConnectionError):
                    results[_number(process)] = lost(_number(process), process.how_it_ended())
                    del self._running[process.connection]
                    process.end()
                    self._start(process.place, waiting)
                    continue
                if kind == "step":
                    tell(_number(process), *content)
                elif kind == "log":
                    name, level, message = content
                    logging.getLogger(name).log(level, "%s", message)
                elif kind == "done":
                    results[_number(process)] = content[0]
                    self._begin_next(process, waiting)
                else:
                    raise content[0]
        return [results[number] for number in range(len(tasks))]

    def _start(self, place: Place, waiting: Any) -> None:  # noqa: ANN401  an iterator of numbered tasks
        """Start a process at a place, if there is a task for it."""
        task = next(waiting, None)
        if task is None:
            return
        process = _Process(place)
        self._running[process.connection] = process
        process.begin(*task)

    def _begin_next(self, process: _Process, waiting: Any) -> None:  # noqa: ANN401  as above
        task = next(waiting, None)
        if task is not None:
            process.begin(*task)
            return
        del self._running[process.connection]
        process.end()


def _number(process: _Process) -> int:
    if process.task is None:
        raise AssertionError("a process has no task")
    return process.task
