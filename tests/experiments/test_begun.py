"""A run goes on under the circumstances that it was begun under, or says which are others."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedsim.cli.commands import app
from fedsim.engines import cohort
from fedsim.experiments import begun, trainings
from fedsim.experiments.arms import run_job
from fedsim.experiments.experiment import execute, resume
from fedsim.mistakes import CannotGoOn, Interrupted, Mistake, Terminated
from fedsim.results import run_directory as results
from fedsim.results import whole_files
from fedsim.results.seal import NAME as SEAL
from fedsim.scenario import catalog
from fedsim.scenario.files import read
from fedsim.scenario.schema import Scenario
from tests.experiments.test_under_way import flip

pytestmark = pytest.mark.usefixtures("charts_undrawn")

SMALL = ("training.rounds=1", "privacy.unit=none", "seeds=2")


@pytest.fixture
def scenario() -> Scenario:
    return read("hospital-heart", SMALL)


@pytest.fixture(scope="module")
def finished_once(charts_undrawn: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return execute(read("hospital-heart", SMALL), tmp_path_factory.mktemp("finished") / "run").path


@pytest.fixture
def finished(finished_once: Path, tmp_path: Path) -> Path:
    """Return the directory of a run that is finished, for this test to spoil."""
    return shutil.copytree(finished_once, tmp_path / "run")


@pytest.fixture
def interrupted(interrupted_once: Path, tmp_path: Path) -> Path:
    """Return the directory of a run that was stopped after its first training, for this test to spoil."""
    return shutil.copytree(interrupted_once, tmp_path / "run")


@pytest.fixture(scope="module")
def interrupted_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted") / "run"
    ran = []

    def stop(*args):
        ran.append(args)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return run_job(*args)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(trainings, "run_job", stop)
        with pytest.raises(Interrupted):
            execute(read("hospital-heart", SMALL), folder)
    return folder


CHANGES = {
    "version of torch": lambda patch: patch.setattr(begun, "version", lambda name: "0.1" if name == "torch" else "1"),
    "code of fedsim": lambda patch: patch.setattr(begun.catalog, "source_digest", lambda: "b" * 64),
    "code of the strategy": lambda patch: patch.setattr(begun.catalog, "source_hash", lambda name: "c" * 64),
    "processor": lambda patch: patch.setattr(begun.platform, "machine", lambda: "abacus"),
}


@pytest.mark.whole
@pytest.mark.parametrize("change", CHANGES)
def test_other_circumstances_are_named_and_refused_or_forced_and_recorded(
    interrupted: Path, change: str, monkeypatch: pytest.MonkeyPatch
):
    CHANGES[change](monkeypatch)
    with pytest.raises(Mistake, match=rf"{change}.*: begun with .*, now ") as caught:
        resume(interrupted)
    assert "--force" in str(caught.value)
    assert not (interrupted / "manifest.json").exists()
    run = resume(interrupted, force=True)
    (differences,) = run.manifest["forced"]
    assert any(line.startswith(change) for line in differences)
    assert "forced" in (run.path / "report.html").read_text("utf-8")


@pytest.mark.whole
def test_what_is_the_same_goes_on_and_records_nothing(interrupted: Path):
    assert resume(interrupted).manifest["forced"] == []


def test_a_run_that_says_nothing_of_its_circumstances_is_not_believed(interrupted: Path):
    (interrupted / begun.NAME).unlink()
    with pytest.raises(Mistake, match="code of fedsim: begun with nothing"):
        resume(interrupted)
    odd_ones = [
        '{"circumstances": 3}',
        '{"circumstances": {"device": 5}, "forced": []}',
        '{"circumstances": {}, "forced": [5]}',
        '{"circumstances": {}, "forced": [[5]]}',
        '{"circumstances": {}, "forced": [], "cores": 1e9}',
    ]
    for odd in odd_ones:
        (interrupted / begun.NAME).write_text(odd)
        with pytest.raises(Mistake, match=r"begun\.json: expected the circumstances of the run"):
            resume(interrupted, force=True)


def test_the_code_has_the_digest_of_every_file(monkeypatch: pytest.MonkeyPatch):
    digest = catalog.source_digest.__wrapped__
    before = digest()
    place = Path(cohort.__file__)
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read_bytes(path) + b" " * (path == place))
    assert digest() != before


MANY = (
    "task='hospital/heart-network'",
    "partition={by='iid',sites=40}",
    "training.expected_batch=8",
    "arms=['federated']",
)


@pytest.mark.whole
def test_stacks_are_cut_as_the_run_was_begun_with_whatever_cores_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The manifest says for how many, and the bits are those of a run that was not interrupted."""
    monkeypatch.setattr(cohort, "_PRODUCTS", 1)  # each site is worth a stack of its own
    scenario = read("hospital-heart", [*SMALL, *MANY])
    stacks: list[int] = []
    train_in_stacks = cohort._train_in_stacks

    def counted(works, most_sites):
        stacks.append(-(-len(works) // most_sites))
        return train_in_stacks(works, most_sites)

    def run_with(cores: int, run: Callable[[], results.Run]) -> results.Run:
        stacks.clear()
        for place in (begun, cohort):
            monkeypatch.setattr(place, "cores", lambda: cores)
        return run()

    monkeypatch.setattr(cohort, "_train_in_stacks", counted)
    whole = run_with(3, lambda: execute(scenario, tmp_path / "whole"))
    assert set(stacks) == {3}
    assert whole.manifest["cut_for_cores"] == 3

    with monkeypatch.context() as patched:
        patched.setattr(trainings, "run_job", end)
        with pytest.raises(Interrupted):
            run_with(3, lambda: execute(scenario, tmp_path / "run"))
    again = run_with(7, lambda: resume(tmp_path / "run"))
    assert set(stacks) == {3}
    assert again.manifest["cut_for_cores"] == 3
    assert (again.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()


def end(*_: object) -> None:
    raise Terminated


@pytest.mark.whole
def test_the_command_says_how_to_go_on_all_the_same(interrupted: Path, monkeypatch: pytest.MonkeyPatch):
    CHANGES["processor"](monkeypatch)
    refused = CliRunner().invoke(app, ["resume", str(interrupted)])
    assert isinstance(refused.exception, Mistake)
    ended = CliRunner().invoke(app, ["resume", str(interrupted), "--force"])
    assert ended.exit_code == 0


# The seal.


@pytest.mark.whole
def test_every_changed_file_of_a_finished_run_is_noticed_when_it_is_read(finished: Path):
    files = [path for path in sorted(finished.rglob("*")) if path.is_file() and path.name != ".lock"]
    assert len(files) > 20
    for path in files:
        size = path.stat().st_size
        for place in {0, size // 2, size - 1}:
            flip(path, place)
            with pytest.raises(Mistake, match=f"{path.name}|{SEAL}"):
                results.load(finished)
            flip(path, place)
    assert results.load(finished).path == finished


@pytest.mark.whole
def test_the_users_own_files_are_not_sealed(finished: Path):
    """Whatever their names and sizes, and they may be changed."""
    names = ["notes.txt", "a\nb", os.fsdecode(b"\xff"), "line\u2028end", "checkpoints/mine.json"]
    for name in names:
        (finished / name).write_text("mine")
    with (finished / "large.bin").open("wb") as file:
        file.truncate(60 * 2**30)
    ended = CliRunner().invoke(app, ["report", str(finished)])
    assert ended.exit_code == 0
    assert "mine" not in (finished / SEAL).read_text()
    (finished / "notes.txt").write_text("changed")
    assert results.load(finished).path == finished


def test_every_file_of_a_run_is_sealed(small_run: Path):
    sealed = {line.partition("  ")[2] for line in (small_run / SEAL).read_text().splitlines()}
    there = {path.relative_to(small_run).as_posix() for path in small_run.rglob("*") if path.is_file()}
    assert sealed == there - {SEAL, ".lock"}


@pytest.mark.whole
def test_a_missing_file_and_a_missing_seal_are_noticed(finished: Path):
    page = (finished / "report.html").read_bytes()
    (finished / "report.html").unlink()
    with pytest.raises(Mistake, match=r"report\.html: expected the file that SHA256SUMS names"):
        results.load(finished)
    (finished / "report.html").write_bytes(page)
    (finished / SEAL).unlink()
    with pytest.raises(Mistake, match="this run is not finished; go on with: fedsim resume"):
        results.load(finished)
    assert resume(finished).path == finished  # nothing is trained again, and it is sealed
    assert results.load(finished).path == finished


@pytest.mark.whole
def test_a_report_that_was_changed_can_be_made_anew(finished: Path):
    page = (finished / "report.html").read_bytes()
    (finished / "report.html").write_text("something else")
    ended = CliRunner().invoke(app, ["report", str(finished)])
    assert ended.exit_code == 0
    assert (finished / "report.html").read_bytes() == page
    assert results.load(finished).path == finished


@pytest.mark.parametrize("line", ["", "abc", f"{'a' * 64}  ../outside", f"{'a' * 64}  /etc/passwd", "\udcff"])
def test_a_seal_from_a_stranger_leads_nowhere(small_run: Path, tmp_path: Path, line: str):
    finished = shutil.copytree(small_run, tmp_path / "run")
    (finished / SEAL).write_bytes(f"{line}\n".encode("utf-8", "surrogateescape"))
    with pytest.raises(Mistake, match=f"{SEAL}: expected "):
        results.load(finished)


# What a disk, a stranger or a killed process leaves.


FULL_AT = ("manifest.json", "report.html", "SHA256SUMS", "ledger.json", "local-plain-1.json")


@pytest.mark.whole
@pytest.mark.parametrize("name", FULL_AT)
def test_a_full_disk_is_named_with_the_way_on_and_nothing_finished_is_lost(
    name: str, scenario: Scenario, finished_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fsync = os.fsync
    full: list[int] = []

    def no_space(number: int) -> None:
        if f".{name}." in str(Path(f"/proc/self/fd/{number}").readlink()):
            full.append(number)
            raise OSError(28, "No space left on device")
        fsync(number)

    with monkeypatch.context() as patched:
        patched.setattr(whole_files.os, "fsync", no_space)
        with pytest.raises(CannotGoOn, match="No space left on device") as caught:
            execute(scenario, tmp_path / "run")
    assert full
    assert Path(str(caught.value.filename)).name == name
    assert caught.value.folder == tmp_path / "run"
    run = resume(tmp_path / "run")
    assert (run.path / "report.html").exists()
    for kept in ("model.safetensors", "sites.parquet", "ledger.json"):
        assert (run.path / kept).read_bytes() == (finished_once / kept).read_bytes()
    assert not list(run.path.rglob("*.tmp"))


def test_a_fault_after_the_scenario_has_its_name_is_told_with_the_way_on(
    scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fsync = os.fsync

    def read_only(number: int) -> None:
        if (tmp_path / "run" / "scenario.toml").exists():
            raise OSError(30, "Read-only file system")
        fsync(number)

    monkeypatch.setattr(whole_files.os, "fsync", read_only)
    with pytest.raises(CannotGoOn) as caught:
        execute(scenario, tmp_path / "run")
    assert caught.value.folder == tmp_path / "run"


def test_checkpoints_that_lead_elsewhere_are_refused(interrupted: Path, tmp_path: Path):
    (tmp_path / "outside").mkdir()
    checkpoints = interrupted / "checkpoints"
    for path in checkpoints.iterdir():
        path.unlink()
    checkpoints.rmdir()
    checkpoints.symlink_to(tmp_path / "outside")
    with pytest.raises(Mistake, match="checkpoints: expected a folder, got a link"):
        resume(interrupted)
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_temporary_name_that_is_a_link_is_not_followed(tmp_path: Path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / f".x.json.{os.getpid()}.tmp").symlink_to(tmp_path / "mine")
    whole_files.write_bytes(tmp_path / "x.json", b"{}")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "x.json").read_bytes() == b"{}"


@pytest.mark.whole
def test_what_killed_processes_left_is_removed(interrupted: Path):
    (interrupted / ".manifest.json.123.tmp").write_text("half")
    (interrupted / "checkpoints" / ".local-plain-0.json.123.tmp").write_text("half")
    resume(interrupted)
    assert not list(interrupted.rglob("*.tmp"))


def test_what_another_process_writes_now_stays(tmp_path: Path):
    for number in (os.getpid(), 2**30, 2**70, "x"):  # the others are above the highest number of a process, or none
        (tmp_path / f".x.json.{number}.tmp").touch()
    whole_files.remove_leftovers(tmp_path, shared=True)
    assert [path.name for path in tmp_path.iterdir()] == [f".x.json.{os.getpid()}.tmp"]
    whole_files.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.whole
def test_a_directory_in_which_a_run_was_killed_before_it_began_is_free(scenario: Scenario, tmp_path: Path):
    (tmp_path / ".lock").touch()
    (tmp_path / begun.NAME).write_text("{}")
    assert execute(scenario, tmp_path).path == tmp_path


def test_a_run_that_the_system_ends_says_so_and_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trainings, "run_job", end)
    plain = ["--quiet", "--set", "privacy.unit=none"]
    ended = CliRunner().invoke(app, ["run", "hospital-heart", *plain, "--out", str(tmp_path / "run")])
    assert ended.exit_code == 143
    assert ended.stderr == f"fedsim: terminated; go on with: fedsim resume {tmp_path / 'run'}\n"
    assert json.loads((tmp_path / "run" / begun.NAME).read_text())["circumstances"]
