"""A rehearsal on a SuperLink: four processes and more, the bytes of the serial engine, and nothing stays behind."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fedsim.experiments.experiment import execute
from fedsim.experiments.on_flower import programs, supernodes
from fedsim.experiments.on_flower.supernodes import supernodes_for
from fedsim.flower.certificates import make_certificates, make_node_key
from fedsim.mistakes import RunFailed
from fedsim.scenario.files import read
from tests.flower.test_nodes import CASES, trained
from tests.torture.interruptions import products

pytestmark = pytest.mark.usefixtures("charts_undrawn")
SMALL = ("training.rounds=1", "seeds=1", "privacy.unit=none")
Started = dict[str, tuple["subprocess.Popen[bytes]", Sequence[str]]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """Note the processes that are started."""
    found: Started = {}
    start = programs.started

    @contextmanager
    def noted(work: Path, home: Path, name: str, words: Sequence[str]) -> Iterator[Any]:
        with start(work, home, name, words) as process:
            found[name] = process, words
            yield process

    monkeypatch.setattr(supernodes, "started", noted)
    return found


def running_in(group: int) -> list[str]:
    """Return the processes of a group that run, and are not only waiting for somebody to ask for their exit code."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, own, *_ = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(own) == group and state not in ("Z", "X"):
            found.append(path.parent.name)
    return found


@pytest.mark.whole
def test_a_run_on_supernodes_has_the_bytes_of_the_serial_engine_and_leaves_no_process(tmp_path: Path, started: Started):
    alone = execute(read("hospital-heart", [*SMALL, "engine=serial"]), tmp_path / "alone")
    beside = execute(read("hospital-heart", [*SMALL, "engine=superlink"]), tmp_path / "beside")
    assert products(beside.path) == products(alone.path)
    assert set(started) == {"superlink", "supernode-0", "supernode-1"}
    for process, _ in started.values():
        assert process.poll() is not None
        assert running_in(process.pid) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scaffold", "ditto", "masked", "private"])
def test_four_supernodes_give_the_bytes_of_the_serial_engine(name: str):
    alone = trained(read("hospital-heart", [*CASES[name], "engine=serial"]))
    beside = read("hospital-heart", [*CASES[name], "engine=superlink", "superlink.nodes=4"])
    with supernodes_for(beside):
        assert trained(beside) == alone


@pytest.mark.slow
def test_a_supernode_that_is_killed_between_rounds_changes_no_bit(tmp_path: Path, started: Started, caplog):
    changes = ["training.rounds=3", "seeds=1", "privacy.unit=none", 'arms=["federated"]']

    def kill(label: str, done: int, total: int) -> None:
        if done == 1:
            os.killpg(started["supernode-0"][0].pid, signal.SIGKILL)

    alone = execute(read("hospital-heart", [*changes, "engine=serial"]), tmp_path / "alone")
    beside = execute(read("hospital-heart", [*changes, "engine=superlink"]), tmp_path / "beside", kill)
    assert products(beside.path) == products(alone.path)
    assert "is lost, the others take its sites over" in caplog.text


@pytest.mark.slow
def test_a_superlink_that_is_killed_fails_the_training_and_resume_ends_as_it_would_have_ended(
    tmp_path: Path, started: Started
):
    from fedsim.experiments.experiment import resume

    changes = [*("training.rounds=3", "seeds=1", "privacy.unit=none"), "checkpoints.every_rounds=1"]

    def kill(label: str, done: int, total: int) -> None:
        if done == 1:
            os.killpg(started["superlink"][0].pid, signal.SIGKILL)

    alone = execute(read("hospital-heart", [*changes, "engine=serial"]), tmp_path / "alone")
    beside = execute(read("hospital-heart", [*changes, "engine=superlink"]), tmp_path / "beside", kill)
    assert [one["arm"] for one in beside.failed] == ["federated"]
    assert "the ServerApp is gone" in beside.failed[0]["reason"] or "is lost" in beside.failed[0]["reason"]
    rounds: list[int] = []
    again = resume(tmp_path / "beside", lambda label, done, total: rounds.append(done))
    assert products(again.path) == products(alone.path)
    assert len(rounds) == 2  # the first round is not run again


@pytest.mark.slow
@pytest.mark.parametrize("what", ["a registered key", "no key", "an unknown key", "another authority"])
def test_who_is_not_registered_or_deceived_does_not_get_in(what: str, tmp_path: Path, started: Started):
    """The SuperLink refuses the SuperNode, or the SuperNode the SuperLink: it ends. One that is registered stays."""
    other = tmp_path / "other"
    other.mkdir()
    private, public = make_node_key(other, "stranger")
    authority = make_certificates(other, ["127.0.0.1"]).authority
    with supernodes_for(read("hospital-heart", ["engine=superlink", "superlink.nodes=1"])):
        words = [*started["supernode-0"][1], "--max-retries", "1"]
        home = Path(words[words.index("--root-certificates") + 1]).parent / "home"
        words[words.index("--port") + 1] = str(programs.free_ports(1)[0])
        key = words.index("--auth-supernode-private-key")
        words[key + 1] = str(private)
        if what == "a registered key":
            programs.flwr(home, ["supernode", "register", str(public), supernodes.CONNECTION])
        elif what == "no key":
            del words[key : key + 2]
        elif what == "another authority":
            programs.flwr(home, ["supernode", "register", str(public), supernodes.CONNECTION])
            words[words.index("--root-certificates") + 1] = str(authority)
        with (tmp_path / "log").open("w") as log:
            stranger = subprocess.Popen(words, stdout=log, stderr=log, env=programs.environment(home))
        try:
            until = time.monotonic() + (20 if what == "a registered key" else 60)
            while stranger.poll() is None and time.monotonic() < until:
                time.sleep(0.2)
            ended = stranger.returncode
        finally:
            stranger.kill()
            stranger.wait()
    if what == "a registered key":
        assert ended is None
    else:
        assert ended not in (None, 0)


def test_what_flowers_command_line_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program = tmp_path / "flwr"
    program.write_text("#!/bin/sh\necho 'no such   SuperLink' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(programs, "program", lambda name: str(program))
    with pytest.raises(RunFailed, match="flwr run failed: no such SuperLink"):
        programs.flwr(None, ["run"])
