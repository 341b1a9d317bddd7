"""How the command ends when something goes wrong: a line, the way on, and its exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedsim.cli import commands
from fedsim.mistakes import CannotGoOn, Mistake, RunFailed, Terminated

FULL = OSError(28, "No space left on device", "runs/x/ledger.json")

ENDINGS: dict[str, tuple[BaseException, int, str]] = {
    "a mistake": (Mistake("a: expected b\nc: expected d"), 2, "fedsim: a: expected b\nfedsim: c: expected d\n"),
    "a failure": (RunFailed("no site answered"), 1, "fedsim: no site answered\n"),
    "terminated": (Terminated(), 143, "fedsim: terminated\n"),
    "a full disk in a run": (
        CannotGoOn(Path("runs/x"), FULL),
        1,
        "fedsim: runs/x/ledger.json: No space left on device; when that is mended, go on with: fedsim resume runs/x\n",
    ),
    "a fault that names no file": (
        CannotGoOn(Path("runs/x"), OSError("odd")),
        1,
        "fedsim: runs/x: odd; when that is mended, go on with: fedsim resume runs/x\n",
    ),
    "a full disk elsewhere": (FULL, 1, "fedsim: runs/x/ledger.json: No space left on device\n"),
    "a fault of the system": (OSError("odd"), 1, "fedsim: system: odd\n"),
}


def ending(raised: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    def app(prog_name: str) -> None:
        raise raised

    monkeypatch.setattr(commands, "app", app)
    monkeypatch.setattr(commands.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as stop:
        commands.main()
    return int(stop.value.code or 0)


@pytest.mark.parametrize("name", ENDINGS)
def test_it_ends_with_a_line_and_its_exit_code(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    raised, code, told = ENDINGS[name]
    assert ending(raised, monkeypatch) == code
    assert capsys.readouterr().err == told


@pytest.mark.whole
@pytest.mark.parametrize(("closed", "words", "code"), [(1, ["list"], 0), (2, ["run", "nobody"], 2)])
def test_closed_streams_are_no_fault(closed: int, words: list[str], code: int):
    command = f"{sys.executable} -m fedsim {' '.join(words)} {closed}>&-"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (code, "")


def test_a_strategy_that_exits_does_not_pass_the_check(tmp_path: Path):
    path = tmp_path / "leaves.py"
    path.write_text("class Leaves:\n    def aggregate(self, *all):\n        raise SystemExit(0)\n")
    ended = CliRunner().invoke(commands.app, ["check", str(path)])
    assert ended.exit_code == 1
    assert "SystemExit: 0 (leaves.py:3)" in " ".join(ended.stdout.split())


PRINTS = """
print("on import")

class Prints:
    def aggregate(self, center, updates, weights, state):
        print("in a round")
        return updates.mean(0), {}
"""


@pytest.mark.whole
def test_what_a_strategy_prints_is_no_part_of_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prints.py").write_text(PRINTS)
    ended = CliRunner().invoke(commands.app, ["check", "prints.py", "--json"])
    assert json.loads(ended.stdout)["strategy"] == "prints.py"
    quick = ["--set", "privacy.unit=none", "--set", "training.rounds=1", "--seeds", "1"]
    ended = CliRunner().invoke(commands.app, ["run", "hospital-heart", "--strategy", "prints.py", *quick, "--json"])
    assert json.loads(ended.stdout)["seeds"] == [0]
    assert "in a round" in ended.stderr


def test_a_key_that_is_set_twice_is_refused():
    words = ["run", "hospital-heart", "--set", "training.rounds=3", "--set", "training.rounds =2"]
    ended = CliRunner().invoke(commands.app, words)
    assert str(ended.exception) == "--set training.rounds: expected once, got it 2 times"


def test_a_bug_shows_its_traceback(monkeypatch: pytest.MonkeyPatch):
    def app(prog_name: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(commands, "app", app)
    monkeypatch.setattr(commands.signal, "signal", lambda *_: None)
    with pytest.raises(ZeroDivisionError):
        commands.main()
