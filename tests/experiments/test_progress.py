"""Progress: at once on a terminal, a line now and then in a pipe, and from Python."""

import io
import sys

import pytest

import fedsim
from fedsim.experiments import progress

SMALL = ("training.rounds=2", "privacy.unit=none", "arms=['federated']")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_something_before_anything_is_done(monkeypatch: pytest.MonkeyPatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with progress.shown() as tell:
        assert "getting ready" in stream.getvalue()
        tell("federated, seed 0", 3, 40)
    assert "federated, seed 0" in stream.getvalue()
    assert "3/40" in stream.getvalue()


def test_a_pipe_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    seconds = iter([0.0, 1.0, 21.0, 22.0, 45.0])
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 20.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    with progress.shown() as tell:
        for done in range(1, 5):
            tell("federated, seed 0", done, 40)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["fedsim: federated, seed 0: 2 of 40 after 21 s", "fedsim: federated, seed 0: 4 of 40 after 45 s"]


@pytest.mark.parametrize("asked", [{"wanted": False}, {"lines": False}])
def test_it_can_be_switched_off(asked: dict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1.0)
    with progress.shown(**asked) as tell:
        tell("federated, seed 0", 1, 40)
    assert capsys.readouterr() == ("", "")


@pytest.mark.whole
def test_python_shows_progress_too_and_can_switch_it_off(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1.0)
    fedsim.run("hospital-heart", *SMALL, seeds=1)
    assert capsys.readouterr().err.splitlines()[-1].startswith("fedsim: federated, seed 0: 2 of 2 after ")
    fedsim.run("hospital-heart", *SMALL, seeds=1, progress=False)
    assert capsys.readouterr() == ("", "")
    told: list[tuple[str, int, int]] = []
    fedsim.run("hospital-heart", *SMALL, seeds=1, progress=lambda *step: told.append(step))
    assert told == [("federated, seed 0", 1, 2), ("federated, seed 0", 2, 2)]


@pytest.mark.whole
def test_python_takes_a_budget_as_the_command_line_does(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    table = fedsim.run("hospital-heart", SMALL[0], SMALL[2], seeds=1, epsilon=2, strategy="krum:f=0")
    scenario = fedsim.load(table.attrs["run_dir"]).scenario
    assert (scenario.privacy.epsilon, scenario.strategy.name, scenario.strategy.model_extra) == (2, "krum", {"f": 0})
