"""The command line, called as a user would."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedsim.cli import commands


@dataclass(frozen=True)
class Ran:
    """What came of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def fedsim(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Ran]:
    """Call fedsim with some words, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["fedsim", *words])
        with pytest.raises(SystemExit) as stop:
            commands.main()
        out, err = capsys.readouterr()
        return Ran(int(stop.value.code or 0), out, err)

    return call
