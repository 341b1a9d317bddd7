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


def test_an_old_python_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "_LEAST_PYTHON", (99, 1))
    assert states(tmp_path)["Python"] == (WRONG, "use Python 99.1 or newer")


def test_a_fedsim_that_is_not_installed_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "_DISTRIBUTION", "no-such-package")
    found = states(tmp_path)
    assert found["fedsim"][0] == WRONG
    assert "packages" not in found


@pytest.mark.parametrize(("available", "version", "state"), [(True, "12.8", GOOD), (False, "12.8", TAKE_CARE)])
def test_a_gpu_is_named_and_a_build_for_one_that_finds_none_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, available: bool, version: str, state: str
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"card {number}")
    monkeypatch.setattr(torch.version, "cuda", version)
    (device,) = [one for one in doctor.examine(tmp_path) if one.what == "device"]
    assert device.state == state
    assert ("card 0, card 1; CUDA 12.8" in device.found) == available


def test_one_core_and_fixed_threads_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fedsim.engines.cohort.cores", lambda: 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    (cores,) = [one for one in doctor.examine(tmp_path) if one.what == "cores"]
    assert cores.state == TAKE_CARE
    assert "OMP_NUM_THREADS = 3" in cores.found


@pytest.mark.parametrize(("pages", "found"), [(1000, "0.0 GiB free"), (0, "this system does not say")])
def test_little_or_unknown_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: int, found: str):
    sysconf = doctor.os.sysconf
    monkeypatch.setattr(doctor.os, "sysconf", lambda name: pages if name == "SC_AVPHYS_PAGES" else sysconf(name))
    (memory,) = [one for one in doctor.examine(tmp_path) if one.what == "memory"]
    assert memory.state == TAKE_CARE
    assert found in memory.found


def test_the_last_line_sums_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fedsim.engines.cohort.cores", lambda: 1)
    ended = CliRunner().invoke(app, ["doctor", "--runs", str(tmp_path)])
    assert ended.exit_code == 0
    assert "Nothing is wrong; take care with" in ended.stdout
