import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

import fedsim
from fedsim.experiments import arms, trainings
from fedsim.experiments.experiment import execute, resume
from fedsim.mistakes import Interrupted, Mistake
from fedsim.results.measured import Measured
from fedsim.results.run_directory import read_checkpoint, write_checkpoint
from fedsim.scenario.schema import Evaluation, Scenario

pytestmark = pytest.mark.usefixtures("charts_undrawn")

PRODUCTS = (
    *("scenario.toml", "sites.parquet", "groups.parquet", "rounds.parquet"),
    *("ledger.json", "metrics.json", "model.safetensors"),
)


def products(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in PRODUCTS}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scenario, Path]:
    from fedsim.scenario.files import read

    scenario = read("hospital-heart", ["training.rounds=2", "seeds=2", "privacy.noise_multiplier=3.0"])
    return scenario, execute(scenario, tmp_path_factory.mktemp("runs") / "first").path


@pytest.mark.whole
def test_the_same_seed_gives_the_same_bytes(small, tmp_path: Path):
    """Whatever the global generators and the number of threads were before."""
    scenario, first = small
    torch.manual_seed(123)
    torch.set_num_threads(2)
    second = execute(scenario, tmp_path / "second").path
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert products(second) == products(first)
    assert (second / "report.html").exists()


@pytest.mark.whole
def test_another_seed_gives_others(small, tmp_path: Path):
    scenario, first = small
    other = execute(scenario.model_copy(update={"seed": 7}), tmp_path / "other").path
    assert products(other)["sites.parquet"] != products(first)["sites.parquet"]


@pytest.mark.whole
def test_an_interrupted_run_goes_on_to_the_same_bytes(small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    scenario, first = small
    trained = []

    def three_then_stop(*args):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(args)
        return arms.run_job(*args)

    monkeypatch.setattr(trainings, "run_job", three_then_stop)
    with pytest.raises(Interrupted) as caught:
        execute(scenario, tmp_path / "second")
    monkeypatch.setattr(trainings, "run_job", lambda *args: trained.append(args) or arms.run_job(*args))
    resume(caught.value.folder)
    assert len(trained) == 12  # none was run twice
    assert products(tmp_path / "second") == products(first)


@pytest.mark.whole
def test_a_killed_run_goes_on_to_the_same_bytes(small, tmp_path: Path):
    """SIGKILL after the first trainings; what they left is not lost."""
    _, first = small
    folder = tmp_path / "killed"
    changes = [
        "--set",
        "training.rounds=2",
        "--set",
        "privacy.noise_multiplier=3.0",
        "--seeds",
        "2",
        "--out",
        str(folder),
    ]
    process = subprocess.Popen([sys.executable, "-m", "fedsim", "run", "hospital-heart", *changes])
    for _ in range(600):
        if len(list(folder.glob("checkpoints/*.json"))) >= 2:
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "manifest.json").exists()
    resume(folder)
    assert products(folder) == products(first)


@pytest.mark.whole
def test_a_finished_run_is_not_run_again(small, monkeypatch: pytest.MonkeyPatch):
    _, first = small
    monkeypatch.setattr(trainings, "run_job", None)
    assert resume(first).path == first


@pytest.mark.whole
def test_two_processes_do_not_share_a_run_directory(small, tmp_path: Path):
    """F7."""
    scenario, _ = small
    folder = tmp_path / "busy"
    folder.mkdir()
    (folder / "scenario.toml").write_text("")
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Mistake, match="another process is at work"):
            resume(folder)
    with pytest.raises(Mistake, match="expected a new or empty directory"):
        execute(scenario, folder)


@pytest.mark.parametrize(
    "override", ["device=cuda", "training.expected_batch={a=1}", "strategy.beta=1", "privacy.noise_multiplier=0.1"]
)
def test_what_can_not_be_done_is_found_before_anything_is_written(tmp_path: Path, override: str, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Mistake):
        fedsim.run("hospital-heart", override, out=tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.whole
def test_from_python_it_returns_pandas(tmp_path: Path):
    table = fedsim.run("hospital-heart", "training.rounds=1", "privacy.unit=none", seeds=3, out=tmp_path / "x")
    assert isinstance(table, pd.DataFrame)
    row = table[(table["arm"] == "federated") & (table["metric"] == "auc")].iloc[0]
    assert row["low"] < row["mean"] < row["high"]
    assert {"cleveland", "hungarian", "switzerland", "va_long_beach"} <= set(table)
    names = list(table)
    assert names.index("mean") < names.index("pooled_mean") < names.index("cleveland")
    run = fedsim.load(table.attrs["run_dir"])
    assert run.scenario.seeds == 3
    means = run.sites[run.sites["arm"] == "federated"].groupby("site")["auc"].mean()
    assert row["over"] == "(inside sites)"
    assert (row["mean"], row["pooled_mean"]) == pytest.approx((means["(inside sites)"], means["(pooled)"]))


@pytest.mark.whole
def test_epsilon_is_computed_from_what_ran(small):
    """Half the noise in the scenario gives a larger epsilon in the ledger, at every site and in every private arm."""
    import json

    _, first = small
    ledger = json.loads((first / "ledger.json").read_text())
    assert len(ledger["trainings"]) == 3 * 2
    for training in ledger["trainings"]:
        steps = {}
        for entry in training["entries"]:
            assert entry["mechanism"]["noise_multiplier"] == 3.0
            steps[entry["site"]] = steps.get(entry["site"], 0) + entry["mechanism"]["steps"]
        assert set(steps.values()) == {4}
        assert len(set(training["epsilon"].values())) == 1


@pytest.mark.whole
def test_a_run_does_not_go_on_with_another_scenario(small, tmp_path: Path):
    """Nor does its report then state a budget that was not kept."""
    import shutil

    _, first = small
    folder = Path(shutil.copytree(first, tmp_path / "copy"))
    (folder / "manifest.json").unlink()
    text = (folder / "scenario.toml").read_text()
    (folder / "scenario.toml").write_text(text.replace("noise_multiplier = 3.0", "noise_multiplier = 9.0"))
    with pytest.raises(Mistake, match=r"scenario.toml is not the one that this run was begun with"):
        resume(folder)


@pytest.mark.whole
def test_checkpoints_of_a_version_without_calibration_are_gone_on_with(small, tmp_path: Path):
    """What they lack is left out; the rest, base rates and coefficients included, is as in a new run."""
    _, first = small
    folder = Path(shutil.copytree(first, tmp_path / "copy"))
    (folder / "manifest.json").unlink()
    for path in (folder / "checkpoints").glob("*.json"):
        tensors, values = read_checkpoint(folder / "checkpoints", path.stem) or ({}, {})
        older = {key: value for key, value in values.items() if key not in ("calibration", "confusion")}
        write_checkpoint(folder / "checkpoints", path.stem, tensors, older)

    run = resume(folder)
    new = fedsim.load(first).measured
    assert run.measured.calibration.empty
    assert run.measured.confusion.empty
    pd.testing.assert_frame_equal(run.measured.base_rates, new.base_rates)
    pd.testing.assert_frame_equal(run.measured.coefficients, new.coefficients)
    assert "Without a model" in (folder / "report.html").read_text()


@pytest.mark.whole
def test_a_threshold_changes_the_confusion_matrix_and_nothing_that_is_trained(small, tmp_path: Path):
    scenario, first = small
    lower = scenario.model_copy(update={"evaluation": Evaluation(threshold=0.1)})
    other = execute(lower, tmp_path / "lower")
    same = [name for name in PRODUCTS if name not in ("scenario.toml", "metrics.json")]
    assert {name: products(other.path)[name] for name in same} == {name: products(first)[name] for name in same}
    assert "threshold = 0.1" in (other.path / "scenario.toml").read_text()

    def called_positive(measured: Measured) -> int:
        return int(measured.confusion.loc[measured.confusion["named"] == 1, "rows"].sum())

    assert called_positive(other.measured) > called_positive(fedsim.load(first).measured)
    assert "from a probability of 0.1 on" in (other.path / "report.html").read_text()
