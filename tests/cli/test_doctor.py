"""``fedsim doctor`` says what is wrong, and how to mend it."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from fedsim.cli import doctor
from fedsim.cli.commands import app
from fedsim.cli.doctor import GOOD, TAKE_CARE, WRONG


def states(folder: Path) -> dict[str, tuple[str, str]]:
    return {one.what: (one.state, one.mend) for one in doctor.examine(folder)}


def test_all_is_good_here(tmp_path: Path):
    ended = CliRunner().invoke(app, ["doctor", "--runs", str(tmp_path), "--json"])
    assert ended.exit_code == 0
    found = json.loads(ended.stdout)
    assert {"Python", "fedsim", "packages", "device", "cores", "memory", "run directories"} <= {
        one["what"] for one in found
    }
    assert all(one["state"] != WRONG for one in found)
    assert all(bool(one["mend"]) == (one["state"] != GOOD) for one in found)


def test_a_package_of_another_version_and_one_that_is_missing_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        doctor, "requires", lambda name: ["torch>=99", "no-such-package>=1", "numpy>=1", "x; extra == 'dev'"]
    )
    found = states(tmp_path)
    assert found["torch"] == (WRONG, 'pip install "torch>=99"')
    assert found["no-such-package"] == (WRONG, 'pip install "no-such-package>=1"')
    assert "x" not in found
    ended = CliRunner().invoke(app, ["doctor", "--runs", str(tmp_path)])
    assert ended.exit_code == 1
    assert "2 of " in ended.stdout


def test_a_folder_that_cannot_be_written_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    state, mend = states(tmp_path / "not" / "yet")["run directories"]
    assert (state, "--out" in mend) == (WRONG, True)


def test_a_torch_that_does_not_load_is_wrong_and_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail() -> None:
        raise OSError("libtorch.so: cannot open shared object file")

    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", fail)
    assert states(tmp_path)["torch"][0] == WRONG


@pytest.mark.parametrize(("free", "state"), [(2**20, TAKE_CARE), (2**34, GOOD)])
def test_a_disk_that_is_nearly_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str):
    usage = type("usage", (), {"free": free})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: usage)
    assert states(tmp_path)["run directories"][0] == state
