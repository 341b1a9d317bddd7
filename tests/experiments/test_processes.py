"""Trainings in several processes: the same bytes as in one, and nothing is lost with a process."""

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import fedsim
from fedsim.engines import cohort
from fedsim.experiments import trainings
from fedsim.experiments.arms import Job
from fedsim.experiments.experiment import execute, resume
from fedsim.experiments.processes import Place, places, run_all
from fedsim.experiments.tournament import Axes, cells, play
from fedsim.mistakes import Mistake, RunFailed
from fedsim.results import run_directory as results
from fedsim.scenario.files import read
from tests.torture.interruptions import products

pytestmark = pytest.mark.usefixtures("charts_undrawn")
SMALL = ("training.rounds=3", "privacy.noise_multiplier=2", "privacy.epsilon=900")


@dataclass(frozen=True)
class Odd:
    """A task that does what its name says."""

    way: str

    def __call__(self, tell: Callable[[int], None]) -> Any:
        tell(1)
        logging.getLogger("odd").warning("%s is at work", self.way)
        if self.way == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.way == "ended":
            os._exit(3)
        if self.way == "mistaken":
            raise Mistake("odd: expected something else")
        if self.way == "full":
            raise OSError(errno.ENOSPC, "No space left on device", "some/file")
        if self.way == "unsendable":
            raise Unsendable(lambda: None)
        return self.way, os.getpid(), cohort.cores_to_cut_for(), len(cohort_cores())


class Unsendable(Exception):
    """An error that can't be pickled."""


def cohort_cores() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}


def ways_of(tasks: list[str], jobs: int = 2) -> tuple[list[Any], list[tuple[int, int]]]:
    told: list[tuple[int, int]] = []
    done = run_all([Odd(way) for way in tasks], jobs, lambda *step: told.append(step), lambda number, how: how)
    return done, told


def test_cores_and_gpus_are_shared_evenly():
    assert places(2, [0, 1, 2, 3], ["0", "1"]) == [Place((0, 1), "0"), Place((2, 3), "1")]
    assert places(3, [4, 6], []) == [Place((4,), None), Place((4,), None), Place((6,), None)]
    assert places(3, [0, 1, 2, 3], ["GPU-a"]) == [Place((0,), "GPU-a"), Place((1,), "GPU-a"), Place((2, 3), "GPU-a")]
    for jobs in range(1, 9):
        used = [core for place in places(jobs, list(range(8)), []) for core in place.cores]
        assert sorted(used) == list(range(8))


@pytest.mark.whole
def test_results_come_in_the_order_of_the_tasks_and_a_process_that_ends_costs_its_task_only(
    caplog: pytest.LogCaptureFixture,
):
    with cohort.cut_for(7):
        done, told = ways_of(["a", "killed", "b", "ended", "c"])
    assert [one[0] for one in (done[0], done[2], done[4])] == ["a", "b", "c"]
    assert done[1] == "its process was ended by signal 9; the memory of this machine may have run out"
    assert done[3] == "its process ended with exit code 3"
    assert sorted(told) == [(number, 1) for number in range(5)]
    assert {record.getMessage() for record in caplog.records} >= {"a is at work", "c is at work"}
    assert all(one[1] != os.getpid() and one[2] == 7 for one in (done[0], done[2], done[4]))
    assert all(one[3] == max(1, len(cohort_cores()) // 2) for one in (done[0], done[2], done[4]))


def test_with_one_job_or_one_task_all_is_done_here():
    assert ways_of(["a", "b"], jobs=1)[0][1][1] == os.getpid()
    assert ways_of(["a"], jobs=4)[0][0][1] == os.getpid()


@pytest.mark.whole
@pytest.mark.parametrize(
    ("way", "error", "message"),
    [
        ("mistaken", Mistake, "odd: expected something else"),
        ("full", OSError, "No space left on device"),
        ("unsendable", RuntimeError, "Unsendable: <function"),
    ],
)
def test_what_a_task_raises_is_raised_here(way: str, error: type[Exception], message: str):
    with pytest.raises(error, match=message) as caught:
        ways_of(["a", way, "b"])
    if way == "full":
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "some/file")
    assert "in __call__" in "".join(caught.value.__notes__)


@pytest.mark.whole
@pytest.mark.parametrize("scenario", ["hospital-heart", "synthetic-label-skew"])
def test_a_run_has_the_same_bytes_in_any_number_of_processes(scenario: str, tmp_path: Path):
    changes = [*SMALL, "seeds=2"] if scenario == "hospital-heart" else ["training.rounds=3", "seeds=2"]
    expected = products(execute(read(scenario, changes), tmp_path / "one").path)
    for jobs in (2, 5) if scenario == "hospital-heart" else (2,):
        seen: list[tuple[str, int, int]] = []

        def see(*step: Any, seen: list[Any] = seen) -> None:
            seen.append(step)

        run = execute(read(scenario, changes), tmp_path / f"{jobs}", see, jobs)
        assert products(run.path) == expected
        assert seen[-1][1] == seen[-1][2]
        assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


@pytest.mark.whole
def test_a_tournament_and_an_own_strategy_have_the_same_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    own = "from strategies.fedavg import FedAvg\n\n\nclass Mine(FedAvg):\n    pass\n"
    (tmp_path / "mine.py").write_text(own)
    fails = f"{own}\n    def configure(self, *args, **kwargs):\n        raise ValueError('odd')\n".replace(
        "Mine", "Fails"
    )
    (tmp_path / "fails.py").write_text(fails)
    axes = Axes(["hospital-heart"], ["median", "mine.py", "fails.py"], changes=["training.rounds=2"], seeds=2)
    alone = play(cells(axes), tmp_path / "one")
    beside = play(cells(axes), tmp_path / "two", jobs=2)
    pd.testing.assert_frame_equal(alone.scores, beside.scores)
    pd.testing.assert_frame_equal(alone.refused, beside.refused)
    assert (alone.failures, beside.failures) == (alone.failures, alone.failures)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "one").glob("*.json")}
    assert kept == {path.name: path.read_bytes() for path in (tmp_path / "two").glob("*.json")}


@pytest.mark.whole
def test_a_frame_reaches_every_process_and_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    numbers = list(range(200))
    frame = pd.DataFrame(
        {
            "age": [20 + number % 60 for number in numbers],
            "hospital": ["north" if number % 2 else "south" for number in numbers],
            "ill": [int(number % 60 > 30) for number in numbers],
        }
    )
    given: dict[str, Any] = {
        "data": frame, "target": "ill", "site": "hospital", "ranges": {"age": [0, 100, "years"]}, "progress": False,
    }  # fmt: skip
    alone = fedsim.run(None, "training.rounds=2", seeds=2, out="one", **given)
    beside = fedsim.run(None, "training.rounds=2", seeds=2, out="two", jobs=2, **given)
    pd.testing.assert_frame_equal(alone, beside)


@pytest.mark.whole
def test_a_training_whose_process_dies_failed_and_the_others_go_on(tmp_path: Path):
    """The memory of a machine runs out at one training; resume tries it again."""
    own = tmp_path / "dies.py"
    own.write_text(
        "import os\nfrom strategies.fedavg import FedAvg\n\n\nclass Dies(FedAvg):\n"
        "    def aggregate(self, *args, **kwargs):\n"
        f"        if os.getpid() != {os.getpid()}:\n            os.kill(os.getpid(), 9)\n"
        "        return super().aggregate(*args, **kwargs)\n"
    )
    from fedsim.scenario.changes import with_strategy

    changes = [with_strategy(str(own)), "training.rounds=2", "seeds=1", "privacy.unit=none"]
    run = execute(read("hospital-heart", changes), tmp_path / "run", jobs=2)
    assert [one["arm"] for one in run.failed] == ["federated"]
    assert "its process was ended by signal 9" in run.failed[0]["reason"]
    assert set(run.sites["arm"]) == {"centralized", "local"}


COMMAND = (
    "from fedsim.cli.commands import main; import sys; "
    "sys.argv = ['fedsim', 'run', 'hospital-heart', '--seeds', '2', '--jobs', '2', '--quiet', '--out', 'run', "
    "'--set', 'training.rounds=200', '--set', 'checkpoints.every_rounds=5', '--set', 'privacy.unit=none']; main()"
)


@pytest.mark.whole
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_ended_takes_its_processes_with_it_and_goes_on_to_the_same_bytes(how: int, tmp_path: Path):
    started = subprocess.Popen(
        [sys.executable, "-c", COMMAND], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        until = time.monotonic() + 60
        while not list((tmp_path / "run" / "checkpoints").glob("*")) and time.monotonic() < until:
            time.sleep(0.05)
        processes = children_of(started.pid)
        assert len(processes) == 2
        started.send_signal(how)
        _, said = started.communicate(timeout=30)
    finally:
        started.kill()
    until = time.monotonic() + 10
    while any(map(is_running, processes)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(is_running, processes))
    if how != signal.SIGKILL:
        assert "go on with: fedsim resume run" in said
    resumed = products(resume(tmp_path / "run", jobs=2).path)
    changes = ["seeds=2", "training.rounds=200", "checkpoints.every_rounds=5", "privacy.unit=none"]
    assert resumed == products(execute(read("hospital-heart", changes), tmp_path / "whole").path)


def is_running(process: int) -> bool:
    """Whether a process is there and not just its exit code, which nobody has asked for yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.parametrize("jobs", [0, -1, 1.5, True, "2"])
def test_a_number_of_jobs_that_is_none_is_a_mistake(jobs: Any, tmp_path: Path):
    with pytest.raises(Mistake, match="jobs: expected a whole number >= 1, got"):
        execute(read("hospital-heart", SMALL), tmp_path / "run", jobs=jobs)
    assert not (tmp_path / "run").exists()


def test_a_lost_training_is_a_failed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without a process: what run_all says of it."""

    def none_comes_back(tasks: Any, jobs: int, tell: Any, lost: Callable[[int, str], Any]) -> list[Any]:
        return [lost(number, "its process ended") for number in range(len(tasks))]

    monkeypatch.setattr("fedsim.experiments.trainings.run_all", none_comes_back)
    with pytest.raises(RunFailed, match="its process ended"):
        execute(read("hospital-heart", [*SMALL, "seeds=1"]), tmp_path / "run")
    assert not results.is_finished(tmp_path / "run")


@pytest.mark.parametrize("fails", [False, True])
def test_a_training_that_ends_early_leaves_nothing_to_do(fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its budget is spent, it fails, or all its rounds were there when it was interrupted."""

    def three_rounds(*words: Any) -> None:
        for number in (1, 2, 3):
            words[4](number)
        if fails:
            raise RunFailed("it can't go on")

    monkeypatch.setattr(trainings, "_train", three_rounds)
    told: list[Any] = []
    attempt = trainings._Attempt(
        tmp_path, read("hospital-heart", ["training.rounds=7"]), Job("local", False, 0), "", watched=False
    )
    assert (attempt(told.append) is not None) is fails
    *rounds, over = told
    assert rounds == [1, 2, 3, 7]
    assert (over.failed is not None) is fails
