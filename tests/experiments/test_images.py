"""A folder of images is run from end to end; under privacy nothing public is read off the images."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import fedsim
from fedsim.experiments.experiment import resume
from fedsim.mistakes import Mistake
from fedsim.scenario.files import read
from tests.data.own_table.pictures import write_folder

pytestmark = pytest.mark.usefixtures("charts_undrawn")

PRIVATE = ("privacy.unit=record", "privacy.noise_multiplier=2", "privacy.epsilon=8", "privacy.delta=1e-4")
PUBLIC = ("data.image_size=[12, 16]", "data.channels=1", 'data.classes=["healthy", "ill"]')
FAST = ('arms=["federated"]', "training.rounds=1")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "images", count=40)


def run(data: Path, out: Path, *changes: str, **given: Any) -> pd.DataFrame:
    return fedsim.run(None, *changes, data=data, out=out, seeds=1, progress=False, **given)


@pytest.mark.whole
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


@pytest.mark.whole
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


@pytest.mark.whole
def test_an_interrupted_run_goes_on(images: Path, tmp_path: Path):
    run(images, tmp_path / "run", *FAST)
    whole = (tmp_path / "run" / "model.safetensors").read_bytes()
    for name in ("manifest.json", "model.safetensors"):
        (tmp_path / "run" / name).unlink()
    resume(tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == whole


@pytest.mark.whole
@pytest.mark.parametrize(
    "partition",
    [["partition.by=iid", "partition.sites=3"], ["partition.by=quantity", "partition.sites=2", "partition.alpha=9"]],
)
def test_images_are_parted_as_rows_of_tables_are(images: Path, tmp_path: Path, partition: list[str]):
    run(images, tmp_path / "run", *FAST, *partition)
    assert fedsim.load(tmp_path / "run").sites["site"].nunique() >= 2


def test_all_that_lacks_is_told_at_once_and_nothing_of_the_images(images: Path, tmp_path: Path):
    with pytest.raises(Mistake) as caught:
        run(images, tmp_path / "run", *PRIVATE)
    assert "data: expected image_size, channels, classes beside" in str(caught.value)
    assert "12" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_frame_has_no_folder_of_images(tmp_path: Path):
    frame = pd.DataFrame({"file": ["a.png"], "y": [1], "s": ["n"]})
    with pytest.raises(Mistake, match=r"data\.image: expected a CSV or Parquet file beside it"):
        fedsim.run(None, "data.image=file", data=frame, target="y", site="s", out=tmp_path / "run", progress=False)
