"""How the command ends when something goes wrong: a line, the way on, and its exit code."""

from pathlib import Path

import pytest

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


def test_a_bug_shows_its_traceback(monkeypatch: pytest.MonkeyPatch):
    def app(prog_name: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(commands, "app", app)
    monkeypatch.setattr(commands.signal, "signal", lambda *_: None)
    with pytest.raises(ZeroDivisionError):
        commands.main()
