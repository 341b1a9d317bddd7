"""Settings of images: what is public is declared under privacy, and never read off the images."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from fedsim.data.own_table.prepared import prepare
from fedsim.mistakes import Mistake
from fedsim.scenario.files import read, read_own
from fedsim.scenario.schema import Scenario
from tests.data.own_table.pictures import write_folder

PRIVATE = ("privacy.unit=record", "privacy.epsilon=8", "privacy.delta=1e-4")
PUBLIC = ("data.image_size=[12, 16]", "data.channels=1", 'data.classes=["healthy", "ill"]')


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "images", count=2)


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


def test_a_path_in_a_scenario_starts_at_its_file(images: Path):
    scenario = images.parent / "my.toml"
    scenario.write_text('title = "Scans"\n[data]\npath = "images/"\n')
    read_scenario = read(scenario)
    assert read_scenario.data.layout == "site/class"
    assert prepare(read_scenario.data).intake.rows_used == 8
