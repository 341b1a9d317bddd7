"""Runs of tasks and strategies that are given in Python or in a file: their record, models, and how they go on."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import fedsim
from fedsim.data import loading
from fedsim.data.recent import Recent
from fedsim.scenario import catalog
from fedsim.scenario.code import held
from fedsim.scenario.files import read
from tests.given import SETTINGS, Halved, falls, made, written

pytestmark = pytest.mark.usefixtures("charts_undrawn")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def ran(out: str, *more: str, **given) -> pd.DataFrame:
    return fedsim.run(None, *SETTINGS, *more, seeds=given.pop("seeds", 1), out=out, progress=False, **given)


def bits(folder: str) -> dict[str, bytes]:
    """Return the files of a run that hold figures and models."""
    names = ("sites.parquet", "rounds.parquet", "ledger.json", "model.safetensors")
    return {name: (Path(folder) / name).read_bytes() for name in names}


@pytest.mark.whole
def test_objects_and_files_give_the_same_bits_and_say_what_they_were(capsys: pytest.CaptureFixture[str]):
    table = ran("object", task=falls, strategy=Halved(factor=0.25))
    ran("file", task=written(Path.cwd()), strategy=Halved(factor=0.25))
    assert bits("object")["sites.parquet"] == bits("file")["sites.parquet"]
    assert bits("object")["ledger.json"] == bits("file")["ledger.json"]
    assert capsys.readouterr() == ("", "")
    assert table.attrs["run_dir"] == "object"

    told = json.loads(Path("object/manifest.json").read_text())
    assert told["task"]["name"] == "falls"
    assert told["own_code"]["task"]["name"] == "tests.given.falls"
    assert told["own_code"]["task"]["file"] == "given.py"
    assert told["own_code"]["strategy"]["name"] == "tests.given.Halved"
    assert {len(told["own_code"]["task"][key]) for key in ("sha256", "file_sha256", "source_sha256")} == {64}
    assert json.loads(Path("object/begun.json").read_text())["own_code"] == told["own_code"]
    assert json.loads(Path("file/manifest.json").read_text())["own_code"]["task"]["name"] == "my_tasks.py:falls"

    page = Path("object/report.html").read_text()
    assert "strategy Halved" in page
    assert read("object/scenario.toml", all_used=False).strategy.name.startswith("python:Halved@")


@pytest.mark.whole
def test_jobs_get_what_can_be_sent_and_refuse_what_can_not():
    ran("one", task=falls, strategy=Halved)
    ran("two", task=falls, strategy=Halved, jobs=2)
    assert bits("one") == bits("two")
    alone = made(model=lambda features: nn.Linear(features, 1))
    with pytest.raises(fedsim.Mistake, match="jobs: expected 1 with task falls-in-spring, which another process can't"):
        ran("lambda", task=alone, jobs=2)
    with pytest.raises(fedsim.Mistake, match="jobs: expected 1 with task falls-in-spring"):
        Path("s.toml").write_text('title = "t"\n')
        fedsim.compare("s.toml", *SETTINGS, task=alone, seeds=1, jobs=2, progress=False)
    with pytest.raises(fedsim.Mistake, match="engine: expected 'cohort' or 'serial' with the task falls"):
        ran("nodes", "engine=superlink", task=falls)
    assert not Path("lambda").exists()
    assert not Path("nodes").exists()


@pytest.mark.whole
def test_a_run_gives_its_models_and_goes_on_when_the_object_is_given_again(monkeypatch: pytest.MonkeyPatch):
    task = made()
    ran("mine", task=task, seeds=2)
    run = fedsim.load("mine")
    rows = falls.rows().inputs
    model = run.model(seed=1)
    assert not model.training
    with torch.no_grad():
        expected = torch.sigmoid(model(torch.from_numpy(rows)))[:, 0].numpy()
    np.testing.assert_allclose(run.predict(rows, seed=1)["probability"], expected, atol=1e-6)
    assert not torch.equal(run.model(seed=0).weight, model.weight)
    assert run.model(arm="local", site="north").weight.shape == (1, 4)
    with pytest.raises(fedsim.Mistake, match="expected an array"):
        run.predict(pd.DataFrame({"a": [1]}))
    with pytest.raises(fedsim.Mistake, match=r"rows: expected an array \(rows, 4\)"):
        run.predict(np.zeros((3, 5)))

    # In a Python that was not given the object, figures are there, and models are not.
    monkeypatch.setattr(held, "_held", {})
    assert len(fedsim.load("mine").comparison)
    with pytest.raises(fedsim.Mistake, match=r"task: expected falls-in-spring with the digest .* give it once more"):
        fedsim.load("mine").model()
    with pytest.raises(fedsim.Mistake, match="another falls-in-spring was given"):
        fedsim.load("mine", task=made(model=lambda features: nn.Linear(features, 1))).model()
    assert fedsim.load("mine", task=made()).model() is not None

    Path("mine/manifest.json").unlink()
    kept = next(Path("mine/checkpoints").glob("local-*.json"))
    kept.unlink()
    monkeypatch.setattr(held, "_held", {})
    with pytest.raises(fedsim.Mistake, match="which was given in Python as an object"):
        fedsim.resume("mine", progress=False)
    assert len(fedsim.resume("mine", task=made(), progress=False).comparison)


@pytest.mark.whole
def test_a_run_of_a_file_goes_on_with_that_file_only(monkeypatch: pytest.MonkeyPatch):
    typed = written(Path.cwd())
    ran("mine", task=typed)
    before = bits("mine")
    next(Path("mine/checkpoints").glob("local-*.json")).unlink()
    Path("mine/manifest.json").unlink()

    forget_code(monkeypatch)
    with pytest.raises(fedsim.Mistake, match=r"my_tasks\.py:falls is code; .* --task my_tasks\.py:falls"):
        fedsim.resume("mine", progress=False)
    source = Path("my_tasks.py").read_text()
    Path("my_tasks.py").write_text(f"{source}# changed\n")
    with pytest.raises(fedsim.Mistake, match="its file has changed"):
        fedsim.resume("mine", task=typed, progress=False)
    Path("my_tasks.py").write_text(source)
    fedsim.resume("mine", task=typed, progress=False)
    assert bits("mine") == before


def forget_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Know no more of code in files than another Python would."""
    monkeypatch.setattr(catalog, "_allowed", set())
    monkeypatch.setattr(catalog, "_own_tasks", {})
    monkeypatch.setattr(loading, "_own_rows", Recent(size=4))


@pytest.mark.whole
def test_rows_that_have_changed_are_another_run(monkeypatch: pytest.MonkeyPatch):
    Path("shift.txt").write_text("0")
    source = Path(written(Path.cwd()).partition(":")[0]).read_text()
    shifted = source.replace("size=(120, 4))", 'size=(120, 4)) + float(Path("shift.txt").read_text())')
    Path("my_tasks.py").write_text(f"from pathlib import Path\n{shifted}")
    ran("mine", task="my_tasks.py:falls")
    Path("shift.txt").write_text("1")
    forget_code(monkeypatch)
    with pytest.raises(fedsim.Mistake, match="expected the rows that the run was begun with, it loads others now"):
        fedsim.load("mine", task="my_tasks.py:falls").predict(np.zeros((1, 4), np.float32))


@pytest.mark.whole
def test_two_tasks_and_strategies_never_share_what_is_kept():
    def compared(task, strategy):
        scenario = Path("s.toml")
        scenario.write_text('title = "t"\n')
        return fedsim.compare(scenario, *SETTINGS, task=task, strategy=strategy, seeds=1, progress=False)

    first = compared(falls, ["fedavg", Halved(factor=0.1)])
    kept = len(list(Path("runs/cache").glob("*.json")))
    assert list(first.ranks["strategy"].sort_values()) == ["Halved:factor=0.1", "fedavg"]
    assert set(first.ranks["metric"]) == {first.metric} == {"auc"}
    assert kept == 2
    compared(falls, ["fedavg", Halved(factor=0.1)])
    assert len(list(Path("runs/cache").glob("*.json"))) == kept
    compared(made(model=lambda features: nn.Linear(features, 1, bias=False)), ["fedavg"])
    assert len(list(Path("runs/cache").glob("*.json"))) == kept + 1

    # Both are there: trainings without privacy, and what can't be run, of which the caller is warned.
    with pytest.warns(UserWarning, match=r"left out: .*factor"):
        both = fedsim.compare(
            "s.toml",
            *SETTINGS,
            task=falls,
            strategy=["fedavg", "fedavg:factor=1"],
            epsilon=[None],
            seeds=1,
            progress=False,
        )
    assert list(both.ranks["strategy"]) == ["fedavg"]
    with pytest.raises(fedsim.Mistake, match="scenarios: expected the name of a scenario"):
        fedsim.compare(None, task=falls)  # type: ignore[arg-type]


def _fails(features: int) -> nn.Module:
    raise RuntimeError("no such layer")


def _loads_nothing():
    return 3


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (made(model=_fails), r"its model\(4\) can't be made: RuntimeError: no such layer \(test_runs\.py"),
        (made(model=lambda features: "no model"), r"expected a torch\.nn\.Module from its model\(4\), got str"),
        (
            made(model=lambda features: nn.Linear(features, 2)),
            r"that gives logits \(rows, 1\).*, got \(4, 2\) for 4 rows",
        ),
        (made(load=_loads_nothing), r"expected fedsim\.data\.task\.Rows from what it loads, got int"),
        (made(load=lambda: 1 / 0), r"its rows can't be loaded: ZeroDivisionError: division by zero \(test_runs\.py"),
    ],
)
def test_a_task_that_fails_is_told_in_a_line(task, message: str):
    with pytest.raises(fedsim.Mistake, match=message):
        ran("mine", task=task)
    assert not Path("mine").exists()
