"""A folder of images is run from end to end; under privacy nothing public is read off the images."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import fedsim
from fedsim.data.own_table.prepared import prepare
from fedsim.experiments.experiment import resume
from fedsim.mistakes import Mistake
from fedsim.scenario.files import read, read_own
from fedsim.scenario.schema import Scenario
from tests.data.own_table.pictures import write_folder

PRIVATE = ("privacy.unit=record", "privacy.epsilon=8", "privacy.delta=1e-4")
PUBLIC = ("data.image_size=[12, 16]", "data.channels=1", 'data.classes=["healthy", "ill"]')
FAST = ('arms=["federated"]', "training.rounds=1")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "images", count=40)


def run(data: Path, out: Path, *changes: str, **given: Any) -> pd.DataFrame:
    return fedsim.run(None, *changes, data=data, out=out, seeds=1, progress=False, **given)


def test_a_run_learns_from_a_folder(images: Path, tmp_path: Path):
    """By chance the AUC of 16 + 16 test rows is .5, with a standard deviation of .1."""
    table = run(images, tmp_path / "run", 'arms=["federated"]', "training.rounds=20")
    figures = table.set_index("metric")["mean"]
    assert figures["auc"] > 0.9
    assert {"north", "south"} <= set(table.columns)

    loaded = fedsim.load(tmp_path / "run")
    assert loaded.scenario.data.layout == "site/class"
    assert loaded.scenario.data.model == "cnn"
    assert loaded.manifest["data"]["rows_used"] == 160
    assert (tmp_path / "run" / "report.html").exists()
    stored = read(tmp_path / "run" / "scenario.toml")
    assert stored == loaded.scenario


def test_a_private_run_has_its_ledger_and_is_the_same_again_elsewhere(images: Path, tmp_path: Path):
    run(images, tmp_path / "here", *PRIVATE, *PUBLIC, *FAST)
    ledger = json.loads((tmp_path / "here" / "ledger.json").read_text())
    [training] = ledger["trainings"]
    assert ledger["unit"] == "record"
    assert ledger["ranges_fitted"] is False
    assert all(0 < epsilon <= 8 for epsilon in training["epsilon"].values())
    assert set(training["epsilon"]) == {"north", "south"}

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "copy").symlink_to(images)  # the folder itself may be a link
    run(elsewhere / "copy", tmp_path / "there", *PRIVATE, *PUBLIC, *FAST)
    models = [fedsim.load(tmp_path / name).sites["auc"].tolist() for name in ("here", "there")]
    assert models[0] == models[1]
    releases = [fedsim.load(tmp_path / name).scenario.release for name in ("here", "there")]
    assert releases[0] == releases[1]


def test_an_interrupted_run_goes_on(images: Path, tmp_path: Path):
    run(images, tmp_path / "run", *FAST)
    whole = (tmp_path / "run" / "model.safetensors").read_bytes()
    for name in ("manifest.json", "model.safetensors"):
        (tmp_path / "run" / name).unlink()
    resume(tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == whole


@pytest.mark.parametrize(
    "partition",
    [["partition.by=iid", "partition.sites=3"], ["partition.by=quantity", "partition.sites=2", "partition.alpha=9"]],
)
def test_images_are_parted_as_rows_of_tables_are(images: Path, tmp_path: Path, partition: list[str]):
    run(images, tmp_path / "run", *FAST, *partition)
    assert fedsim.load(tmp_path / "run").sites["site"].nunique() >= 2


def scenario_of(images: Path, changes: Sequence[str]) -> Scenario:
    return read_own([f"data.path={images}", *changes])


@pytest.mark.parametrize("lacking", range(3))
def test_what_is_public_must_be_declared_under_privacy(images: Path, lacking: int):
    declared = [change for number, change in enumerate(PUBLIC) if number != lacking]
    name = PUBLIC[lacking].partition("=")[0].removeprefix("data.")
    with pytest.raises(Mistake) as caught:
        scenario_of(images, [*PRIVATE, *declared])
    assert f"data: expected {name} beside privacy.unit = 'record'" in str(caught.value)
    assert f"write for example data.{name} = " in str(caught.value)
    assert "ill" not in str(caught.value).partition("write for example")[0]
    scenario_of(images, declared)  # without privacy nothing need be declared
    scenario_of(images, [*PRIVATE, *PUBLIC])


def test_all_that_lacks_is_told_at_once_and_nothing_of_the_images(images: Path, tmp_path: Path):
    with pytest.raises(Mistake) as caught:
        run(images, tmp_path / "run", *PRIVATE)
    assert "data: expected image_size, channels, classes beside" in str(caught.value)
    assert "12" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_table_of_images_declares_its_outcome_under_privacy(images: Path, tmp_path: Path):
    table = ["data.image=file", "data.target=y", "data.site=s", *PUBLIC[:2]]
    (tmp_path / "t.csv").write_text("file,y,s\na.png,1,n\n")
    for open_ranges in ([], ["data.ranges=from-data"], ["data.ranges={y=[0, 1]}", "data.undeclared=from-data"]):
        with pytest.raises(Mistake, match="data: expected classes beside"):
            scenario_of(tmp_path / "t.csv", [*PRIVATE, *table, *open_ranges])
    scenario_of(tmp_path / "t.csv", [*PRIVATE, *table, PUBLIC[2]])
    scenario_of(tmp_path / "t.csv", [*PRIVATE, *table, "data.ranges={y=[0, 5]}"])


def test_declared_sizes_and_classes_are_those_of_the_model(images: Path):
    """Whatever sizes and classes the images have."""
    more = ["data.image_size=[20, 30]", "data.channels=3", 'data.classes=["healthy", "ill", "never seen"]']
    prepared = prepare(scenario_of(images, [*PRIVATE, *more]).data)
    assert prepared.task.rows().inputs.shape[1:] == (3, 20, 30)
    outputs = prepared.task.model(3, 20, 30)[-1]
    assert outputs.out_features == 3


REFUSED = {
    "columns": (["data.target=x"], "data.target: expected none beside a folder of images"),
    "ranges": (["data.ranges=from-data"], "data.ranges: expected none beside a folder of images"),
    "a scale": (["data.scale=learned"], "data.scale: expected none beside images"),
    "a number": (["data.kind=number"], "data.kind: expected 'binary' or 'classes' for a folder of images"),
    "no size": (["data.image_size=[0, 4]"], "expected a number >= 1"),
    "one side": (["data.image_size=[4]"], "data.image_size: expected at least 2 in the list"),
    "four channels": (["data.channels=4"], "data.channels: expected 1 or 3, got 4"),
    "one class": (["data.classes=[a]"], "data.classes: expected at least 2 in the list"),
    "a class twice": (["data.classes=[a, b, a]"], "expected each class once, got a, b, a"),
    "another layout": (["data.layout=class"], "data.layout: expected 'site/class'"),
    "a task": (["task=hospital/heart"], "data.layout: expected none beside a task"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_settings_that_do_not_fit_a_folder_are_refused(images: Path, name: str):
    changes, message = REFUSED[name]
    layout = ["data.layout=site/class"] if name == "a task" else []
    with pytest.raises(Mistake) as caught:
        scenario_of(images, [*layout, *changes])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.image_size=[4, 4]", "data.image_size: expected beside it a folder of images"),
        ("data.classes=[a, b]", "data.classes: expected beside it a folder of images"),
        ("data.model=cnn", "data.model: expected 'linear' or 'mlp' for a table"),
    ],
)
def test_settings_of_images_are_refused_beside_a_table(tmp_path: Path, change: str, message: str):
    with pytest.raises(Mistake) as caught:
        scenario_of(tmp_path / "t.csv", ["data.target=y", "data.site=s", change])
    assert message in str(caught.value)


def test_a_frame_has_no_folder_of_images(tmp_path: Path):
    frame = pd.DataFrame({"file": ["a.png"], "y": [1], "s": ["n"]})
    with pytest.raises(Mistake, match=r"data\.image: expected a CSV or Parquet file beside it"):
        fedsim.run(None, "data.image=file", data=frame, target="y", site="s", out=tmp_path / "run", progress=False)


def test_a_path_in_a_scenario_starts_at_its_file(images: Path):
    scenario = images.parent / "my.toml"
    scenario.write_text('title = "Scans"\n[data]\npath = "images/"\n')
    read_scenario = read(scenario)
    assert read_scenario.data.layout == "site/class"
    assert prepare(read_scenario.data).intake.rows_used == 160
