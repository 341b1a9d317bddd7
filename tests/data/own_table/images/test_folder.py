"""A folder ``site/class/*.png``, or a table with a column of paths, becomes a task of images."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from fedsim.data.own_table.images.classes import found_classes
from fedsim.data.own_table.prepared import check_digest, data_digest, prepare, settled
from fedsim.data.own_table.ranges import MissingRanges
from fedsim.data.own_table.survey import survey
from fedsim.mistakes import Mistake
from fedsim.scenario.schema import Data
from tests.data.own_table.pictures import SIZE, save, square, write_folder


def of_folder(path: Path, **more: Any) -> Data:
    return Data.model_validate({"path": str(path), "layout": "site/class", "model": "cnn", **more})


def fault_of(data: Data) -> list[str]:
    with pytest.raises(Mistake) as caught:
        prepare(data)
    return str(caught.value).splitlines()


def test_folders_name_sites_and_classes(tmp_path: Path):
    folder = write_folder(tmp_path / "images", count=3)
    prepared = prepare(of_folder(folder))
    rows = prepared.task.rows()
    assert rows.inputs.shape == (12, 1, *SIZE)
    assert rows.target.tolist() == [0, 0, 0, 1, 1, 1] * 2
    assert rows.site.tolist() == ["north"] * 6 + ["south"] * 6
    assert (prepared.task.kind, prepared.task.outcome) == ("binary", "class is ill")
    assert prepared.intake.rows_in == prepared.intake.rows_used == 12
    assert prepared.intake.notes == (
        "12 images, 12 x 16 pixels (height x width), grey",
        "classes were found in the names of the folders: healthy, ill; ill is positive",
    )
    model = prepared.task.model(*rows.inputs.shape[1:])
    assert model(torch.from_numpy(rows.inputs)).shape == (12, 1)


@pytest.mark.parametrize("model", ["cnn", "mlp", "linear"])
@pytest.mark.parametrize(("size", "channels"), [((12, 16), 1), ((1, 1), 3), ((100, 30), 1), ((64, 64), 3)])
def test_models_fit_any_size(tmp_path: Path, model: str, size: tuple[int, int], channels: int):
    folder = write_folder(tmp_path / "images", classes=("a", "b", "c"), count=1)
    task = prepare(of_folder(folder, model=model, image_size=list(size), channels=channels)).task
    inputs = torch.from_numpy(task.rows().inputs)
    assert inputs.shape == (6, channels, *size)
    assert task.model(*inputs.shape[1:])(inputs).shape == (6, 3)


def test_jpeg_files_and_capital_letters_are_images(tmp_path: Path):
    folder = write_folder(tmp_path / "images", count=1)
    for name in ("a.jpg", "b.JPEG", "c.PNG"):
        save(np.full(SIZE, 9, np.uint8), folder / "north" / "ill" / name)
    assert prepare(of_folder(folder)).intake.rows_used == 7


def test_declared_classes_decide_their_order(tmp_path: Path):
    folder = write_folder(tmp_path / "images", count=1)
    assert prepare(of_folder(folder, classes=["ill", "healthy"])).task.outcome == "class is healthy"
    assert prepare(of_folder(folder, positive="healthy")).task.outcome == "class is healthy"
    task = prepare(of_folder(folder, classes=["healthy", "ill", "unsure"])).task
    assert task.kind == "classes"
    assert task.model(1, *SIZE)(torch.zeros(2, 1, *SIZE)).shape == (2, 3)

    [line] = fault_of(of_folder(folder, classes=["healthy", "sick"]))
    assert "expected one of healthy, sick" in line
    assert "'ill' (2 rows)" in line


@pytest.mark.parametrize("classes", [("none", "NA"), ("0", "1"), ("-", "nan"), tuple(map(str, range(12)))])
def test_a_class_may_have_any_name(tmp_path: Path, classes: tuple[str, ...]):
    folder = write_folder(tmp_path / "images", sites=("NA", "total"), classes=classes, count=1)
    prepared = prepare(of_folder(folder))
    assert prepared.intake.rows_used == 2 * len(classes)
    assert prepared.task.kind == ("binary" if len(classes) == 2 else "classes")
    assert set(prepared.task.rows().site) == {"NA", "total"}


def test_a_yes_is_positive():
    assert found_classes(["b", "a", "b", "A "]) == ["A ", "b"]
    assert found_classes(["yes", "zero"]) == ["zero", "yes"]
    assert found_classes(["no", "yes"]) == ["no", "yes"]


def test_what_systems_leave_in_folders_is_passed_over_and_said(tmp_path: Path):
    folder = write_folder(tmp_path / "images", count=1)
    (folder / ".DS_Store").write_bytes(b"\0")
    (folder / "north" / "Thumbs.db").write_bytes(b"\0")
    (folder / "north" / "ill" / "._0.png").write_bytes(b"\0")
    (folder / "__MACOSX").mkdir()
    (folder / "north" / "unsure").mkdir()
    notes = prepare(of_folder(folder)).intake.notes
    passed = (
        "hidden files and those of the system were passed over: 4 (.DS_Store, __MACOSX, north/Thumbs.db and 1 more)"
    )
    assert passed in notes
    assert "folders of classes without an image: 1 (north/unsure)" in notes


def test_classes_that_a_site_lacks_are_said(tmp_path: Path):
    folder = write_folder(tmp_path / "images", count=1)
    (folder / "south" / "ill" / "0.png").unlink()
    notes = prepare(of_folder(folder)).intake.notes
    assert "classes of which a site has no image: 1 (ill at south)" in notes


def test_all_faults_of_a_folder_are_told_at_once(tmp_path: Path):
    folder = write_folder(tmp_path / "images", count=2)
    picture = square(np.random.default_rng(0), is_ill=True)
    save(picture, folder / "loose.png")
    save(picture, folder / "north" / "loose.png")
    (folder / "north" / "ill" / "deep").mkdir()
    save(picture, folder / "north" / "ill" / "deep" / "1.png")
    (folder / "west").mkdir()
    (folder / "north" / "labels.csv").write_text("a,b\n")
    (folder / "south" / "ill" / "link.png").symlink_to(folder / "loose.png")
    (folder / "south" / "again").symlink_to(folder / "north")
    os.mkfifo(folder / "south" / "ill" / "pipe.png")
    (folder / "south" / "ill" / "0.png").write_bytes(b"no image")
    save(picture[:8], folder / "south" / "ill" / "1.png")
    lines = fault_of(of_folder(folder))
    expected = [
        "got images in no folder of a site: 1 file: loose.png",
        "got others: 1 file: north/labels.csv",
        "got folders below those of classes: 1 file: north/ill/deep",
        "got links; copy what they lead to: 2 files: south/again, south/ill/link.png",
        "got devices or pipes: 1 file: south/ill/pipe.png",
        "got images in no folder of a class: 1 file: north/loose.png",
        "expected images of each site, got folders of sites without any: 1 file: west",
        "expected PNG or JPEG, got something else: 1 file: south/ill/0.png",
        "got 12 x 16 (6), 8 x 16 (1); set data.image_size = [12, 16], and others are resized to it",
    ]
    assert len(lines) == len(expected)
    for part in expected:
        assert any(part in line for line in lines), part


def test_folders_of_one_level_get_the_layout(tmp_path: Path):
    write_folder(tmp_path / "images", sites=(".",), count=2)
    [line] = fault_of(of_folder(tmp_path / "images"))
    assert "expected images as FOLDER/site/class/image.png, got folders of one level only" in line
    assert "or list them in a CSV" in line
    assert line.endswith("4 files: healthy/0.png, healthy/1.png, ill/0.png and 1 more")


def test_a_folder_without_images_is_refused(tmp_path: Path):
    [line] = fault_of(of_folder(tmp_path))
    assert "expected images as FOLDER/site/class/image.png, got none" in line
    write_folder(tmp_path / "one", classes=("ill",))
    [line] = fault_of(of_folder(tmp_path / "one"))
    assert "expected two values or more" in line


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path):
    fixed = settled(of_folder(write_folder(tmp_path / "images")))
    (tmp_path / "images").rename(tmp_path / "away")
    assert fault_of(fixed) == [f"data.path: expected a folder of images, got nothing at {tmp_path / 'images'}"]
    (tmp_path / "images").write_text("")
    assert fault_of(fixed) == [f"data.path: expected a folder of images, got a file at {tmp_path / 'images'}"]


def test_the_digest_is_of_names_and_contents_wherever_the_folder_is(tmp_path: Path):
    here = of_folder(write_folder(tmp_path / "here"))
    there = of_folder(write_folder(tmp_path / "other" / "there"))
    fixed = settled(here)
    assert fixed.sha256 == settled(there).sha256
    assert fixed.image_size is None  # what was found is no public fact
    assert fixed.classes is None

    check_digest(fixed)
    (tmp_path / "here" / ".hidden").write_text("")
    check_digest(fixed)
    (tmp_path / "here" / "north" / "ill" / "0.png").rename(tmp_path / "here" / "north" / "healthy" / "9.png")
    with pytest.raises(Mistake, match="it has changed since"):
        check_digest(fixed)
    with pytest.raises(Mistake, match="it has changed since"):
        prepare(fixed)


# A table that lists images


def of_table(folder: Path, frame: pd.DataFrame, name: str = "patients.csv", **more: Any) -> Data:
    if name.endswith("parquet"):
        frame.to_parquet(folder / name)
    else:
        frame.to_csv(folder / name, index=False)
    given = {"path": str(folder / name), "image": "file", "target": "ill", "site": "site", "model": "cnn", **more}
    return Data.model_validate(given)


@pytest.fixture
def patients(tmp_path: Path) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    (tmp_path / "scans").mkdir()
    frame = pd.DataFrame({
        "file": [f"scans/{number}.png" for number in range(20)],
        "site": ["north", "south"] * 10,
        "ill": [0, 0, 1, 1] * 5,
        "age": range(20, 40),
        "day": pd.date_range("2020-01-01", periods=20).astype(str),
    })  # fmt: skip
    for name, ill in zip(frame["file"], frame["ill"], strict=True):
        save(square(rng, bool(ill)), tmp_path / name)
    return frame


@pytest.mark.parametrize("name", ["patients.csv", "patients.parquet"])
def test_a_table_lists_images(tmp_path: Path, patients: pd.DataFrame, name: str):
    patients.loc[4, "file"] = None
    patients.loc[5, "ill"] = None
    prepared = prepare(of_table(tmp_path, patients, name, time="day", groups=["age"]))
    rows = prepared.task.rows()
    assert rows.inputs.shape == (18, 1, *SIZE)
    kept = patients.drop(index=[4, 5])
    assert rows.target.tolist() == kept["ill"].tolist()
    np.testing.assert_array_equal(rows.groups["age"], kept["age"].astype(str))
    bright = rows.inputs.max(axis=(1, 2, 3)) > 0.5
    np.testing.assert_array_equal(bright, kept["ill"] == 1)

    assert prepared.task.by_time
    assert [part.reason for part in prepared.intake.left_out] == ["no outcome (ill)", "no image (file)"]
    assert "only the images are learned from; columns left aside: age" in prepared.intake.notes


def test_a_row_may_share_its_image_and_a_path_may_be_of_windows(tmp_path: Path, patients: pd.DataFrame):
    patients.loc[1, "file"] = "scans\\0.png"
    prepared = prepare(of_table(tmp_path, patients))
    inputs = prepared.task.rows().inputs
    np.testing.assert_array_equal(inputs[0], inputs[1])
    assert any("with the same bytes as another: 1" in note for note in prepared.intake.notes)


def test_the_outcome_of_a_table_may_be_text_classes_or_a_number(tmp_path: Path, patients: pd.DataFrame):
    words = patients.assign(ill=patients["ill"].map({0: "healthy", 1: "ill"}))
    assert prepare(of_table(tmp_path, words)).task.outcome == "ill is ill"
    assert prepare(of_table(tmp_path, words, classes=["ill", "healthy"])).task.outcome == "ill is healthy"
    assert prepare(of_table(tmp_path, patients, classes=[0, 1, 2])).task.kind == "classes"

    numbers = patients.assign(ill=np.linspace(0, 9.5, 20))
    task = prepare(of_table(tmp_path, numbers, ranges={"ill": [0, 10, "months"]})).task
    assert task.kind == "number"
    np.testing.assert_allclose(task.rows().target, numbers["ill"] / 5 - 1, rtol=1e-6)
    with pytest.raises(MissingRanges):
        prepare(of_table(tmp_path, words, ranges={"age": [0, 99]}))


def test_paths_that_leave_the_folder_are_not_opened(tmp_path: Path, patients: pd.DataFrame):
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "scans").rename(inside / "scans")
    save(square(np.random.default_rng(0), is_ill=True), tmp_path / "outside.png")
    (inside / "link.png").symlink_to(tmp_path / "outside.png")
    (inside / "folder").symlink_to(tmp_path)
    bad = ["../outside.png", str(tmp_path / "outside.png"), "scans/../../outside.png", "C:\\x.png", "/dev/zero"]
    for row, path in enumerate([*bad, "link.png", "folder/outside.png", "scans/none.png", "scans"]):
        patients.loc[row, "file"] = path
    lines = fault_of(of_table(inside, patients))
    assert lines == [
        "expected paths that start at the folder of the table and stay in it, got others: 5 files: "
        f"'../outside.png' (row 2), {str(tmp_path / 'outside.png')!r} (row 3), 'scans/../../outside.png' (row 4) and "
        "2 more",
        "expected files and folders themselves, got links; copy what they lead to: 2 files: 'link.png' (row 7), "
        "'folder/outside.png' (row 8)",
        "expected the file of an image, there is none: 1 file: 'scans/none.png' (row 9)",
        "expected an ordinary file, got a folder: 1 file: scans",
    ]


def test_a_table_and_its_images_are_in_the_digest(tmp_path: Path, patients: pd.DataFrame):
    data = of_table(tmp_path, patients)
    fixed = settled(data)
    assert fixed.sha256 == data_digest(data)
    check_digest(fixed)
    save(np.zeros(SIZE, np.uint8), tmp_path / "scans" / "3.png")
    with pytest.raises(Mistake, match="it has changed since"):
        check_digest(fixed)


def test_the_column_of_paths_must_be_there(tmp_path: Path, patients: pd.DataFrame):
    [line] = fault_of(of_table(tmp_path, patients, image="fil"))
    assert line == "data.image: expected a column of patients.csv, got 'fil'; did you mean 'file'?"
    [line] = fault_of(of_table(tmp_path, patients, image="site"))
    assert "a column of its own for outcome and site and image" in line


def test_a_survey_lists_what_folders_and_tables_hold(tmp_path: Path, patients: pd.DataFrame):
    found = survey(of_table(tmp_path, patients))
    assert {column.name: column.role for column in found.columns} == {
        **{"file": "image", "site": "site", "ill": "outcome", "age": "not used", "day": "not used"}
    }
    found = survey(of_folder(write_folder(tmp_path / "images", count=2)))
    shown = {column.role: column.shown for column in found.columns}
    assert shown["site"] == "north (4), south (4)"
    assert shown["outcome"] == "healthy (4), ill (4)"
    assert found.intake is not None
