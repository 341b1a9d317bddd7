"""The journal of a run under way: what another process can read while it is written, and what it can't be led to."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedsim.experiments import journal
from fedsim.experiments.experiment import execute, resume
from fedsim.experiments.journal import NAME, is_at_work, kept_in, names, read
from fedsim.mistakes import Interrupted, Mistake
from fedsim.scenario.files import read as read_scenario

ASK = """
import sys
from pathlib import Path
from fedsim.experiments.journal import is_at_work
print(is_at_work(Path(sys.argv[1])))
"""


def asked_elsewhere(folder: Path) -> str:
    """Ask another process whether one is at work."""
    return subprocess.run(
        [sys.executable, "-c", ASK, folder], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_rounds_and_ends_are_read_while_they_are_written_and_gone_afterwards(tmp_path: Path):
    with kept_in(tmp_path) as noted:
        noted.begin(4, "auc", {"federated-plain-0": 4, "local-plain-0": 0})
        noted.round("local-plain-0", 1, 0.5)
        noted.round("local-plain-0", 2, float("nan"))
        noted.over("federated-plain-1", None)  # of none that was begun
        found = read(tmp_path)
        assert found is not None
        assert (found.rounds, found.metric, found.share) == (4, "auc", 0.75)
        local = found.trainings["local-plain-0"]
        assert (local.done, local.curve, local.over) == (2, {1: 0.5}, False)
        noted.over("local-plain-0", "it hangs")
        found = read(tmp_path)
        assert found is not None
        assert (found.share, found.trainings["local-plain-0"].failed) == (1.0, "it hangs")
    assert list(tmp_path.iterdir()) == []
    assert read(tmp_path) is None


@pytest.mark.whole
def test_another_process_sees_that_one_is_at_work(tmp_path: Path):
    assert asked_elsewhere(tmp_path) == "False"
    with pytest.raises(KeyboardInterrupt), kept_in(tmp_path) as noted:
        noted.begin(1, "auc", {})
        assert asked_elsewhere(tmp_path) == "True"
        raise KeyboardInterrupt
    assert (tmp_path / NAME).exists()
    assert asked_elsewhere(tmp_path) == "False"


def test_asking_keeps_nobody_from_his_work(tmp_path: Path):
    """The lock that is asked for is given back at once."""
    with pytest.raises(KeyboardInterrupt), kept_in(tmp_path):
        raise KeyboardInterrupt
    for _ in range(3):
        assert not is_at_work(tmp_path)
        with pytest.raises(KeyboardInterrupt), kept_in(tmp_path):
            assert is_at_work(tmp_path)
            raise KeyboardInterrupt


def test_a_training_that_is_begun_anew_keeps_its_curve(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), kept_in(tmp_path) as noted:
        noted.begin(9, "auc", {"local-plain-0": 0})
        noted.round("local-plain-0", 1, 0.5)
        noted.round("local-plain-0", 2, 0.6)
        raise KeyboardInterrupt
    with kept_in(tmp_path) as noted:
        noted.begin(9, "auc", {"local-plain-0": 0})
        noted.round("local-plain-0", 2, 0.7)
        noted.over("local-plain-0", None)
        found = read(tmp_path)
        assert found is not None
        assert found.trainings["local-plain-0"].curve == {1: 0.5, 2: 0.7}


STRANGE = [
    b"", b"no json\n", b"[1]\n", b'{"done": 3}\n', b'{"done": {}, "rounds": -1, "metric": "auc"}\n',
    b'{"done": {}, "rounds": true, "metric": "auc"}\n', b'{"done": {}, "rounds": 3, "metric": 3}\n', b"\xff\xfe\n",
    b'{"training": "x", "round": 3}\n', b"[" * 100_000 + b"\n",
]  # fmt: skip


@pytest.mark.parametrize("content", STRANGE, ids=range(len(STRANGE)))
def test_what_fedsim_does_not_write_is_left_aside(tmp_path: Path, content: bytes):
    (tmp_path / NAME).write_bytes(content)
    assert read(tmp_path) is None
    good = {"rounds": 5, "metric": "auc", "done": {"local-plain-0": "x", "y": 2}}
    wrong = [{"training": "local-plain-0", "round": 1e300}, {"training": ["y"], "round": 1}]
    half = [{"training": "y", "round": 3, "figure": "high"}, {"training": "y", "round": 4, "figure": True}]
    lines = [good, *wrong, *half]
    (tmp_path / NAME).write_bytes(content + b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    found = read(tmp_path)
    assert found is not None
    assert {name: (one.done, one.curve) for name, one in found.trainings.items()} == {
        "local-plain-0": (0, {}),
        "y": (4, {}),
    }


def test_no_link_is_written_through_and_no_pipe_waited_for(tmp_path: Path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / NAME).symlink_to(tmp_path / "mine")
    with pytest.raises(Mistake, match="expected a file that can be written"), kept_in(tmp_path):
        raise AssertionError
    assert (tmp_path / "mine").read_text() == "mine"
    (tmp_path / NAME).unlink()
    os.mkfifo(tmp_path / NAME)
    assert read(tmp_path) is None
    assert not is_at_work(tmp_path)


def test_it_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journal, "LARGEST", 400)
    with kept_in(tmp_path) as noted:
        noted.begin(100, "auc", {"local-plain-0": 0})
        for number in range(1, 101):
            noted.round("local-plain-0", number, 0.5)
        noted.over("local-plain-0", None)
        assert (tmp_path / NAME).stat().st_size <= 400
        assert read(tmp_path) is not None


def test_names_of_trainings():
    assert names(["local-private-3", "x", "a-b-c", "local-plain--1", "local-plain-" + 30 * "9"]) == [("local", True, 3)]


@pytest.mark.whole
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_tells_of_each_round_and_keeps_nothing_when_it_ends(tmp_path: Path, jobs: int):
    """Interrupted half-way, the journal stays; gone on with, it goes; what it told are the figures of the run."""
    scenario = read_scenario("hospital-heart", ["training.rounds=3", "seeds=1", "privacy.unit=none"])
    folder = tmp_path / "run"
    seen = []

    def watch(label: str, done: int, total: int) -> None:
        seen.append(is_at_work(folder))
        if done == 7 and len(seen) < 20:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        execute(scenario, folder, watch, jobs)
    assert all(seen)
    assert not is_at_work(folder)
    found = read(folder)
    assert found is not None
    assert sum(one.done for one in found.trainings.values()) >= 6
    told = {name: dict(one.curve) for name, one in found.trainings.items() if one.over and not one.failed}
    assert told

    run = resume(folder)
    assert not (folder / NAME).exists()
    for name, curve in told.items():
        arm = run.rounds[run.rounds["arm"] == name.partition("-")[0]]
        assert dict(zip(arm["round"], arm["auc"], strict=True)) == curve
