"""What is found in a folder of runs: no link, nothing hidden, and no way out."""

import os
from pathlib import Path

import pytest

from fedsim.mistakes import Mistake
from fedsim.ui import folders
from fedsim.ui.folders import check_place, content_of, found


def put(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(name)
    return folder


def test_each_kind_is_known_by_its_files(tmp_path: Path):
    put(tmp_path / "run", "scenario.toml", "report.html", "model.safetensors", "sites.parquet")
    put(tmp_path / "sites", "scenario.toml", "training.json")
    put(tmp_path / "study" / "deep", "sweep.html", "points.csv")
    put(tmp_path / "tuned", "tune.html")
    put(tmp_path / "played", "tournament.html")
    put(tmp_path / "attacked", "story.html")
    put(tmp_path / "cache", "0185.json")
    kinds = {name: folder.kind for name, folder in found(tmp_path).items()}
    assert kinds == {
        "run": "run", "sites": "deployment", "study/deep": "sweep", "tuned": "tune", "played": "tournament",
        "attacked": "audit",
    }  # fmt: skip
    assert found(tmp_path)["run"].files == ("report.html", "scenario.toml", "sites.parquet")
    assert found(tmp_path)["run"].pages == ("report.html",)


def test_links_and_hidden_files_are_left_out(tmp_path: Path):
    outside = put(tmp_path / "outside", "scenario.toml", "report.html")
    root = put(tmp_path / "runs")
    (root / "linked").symlink_to(outside)
    put(root / ".hidden", "scenario.toml")
    put(root / "run", "scenario.toml", ".journal")
    (root / "run" / "report.html").symlink_to(outside / "report.html")
    assert list(found(root)) == ["run"]
    assert found(root)["run"].files == ("scenario.toml",)
    assert folders.link_in(found(root)["run"]) == "report.html"


def test_names_that_are_no_text_are_left_out(tmp_path: Path):
    put(tmp_path / "good", "scenario.toml")
    put(Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff")), "scenario.toml")
    put(tmp_path / "two\nlines", "scenario.toml")
    assert list(found(tmp_path)) == ["good"]


def test_a_link_that_takes_the_place_of_a_file_or_folder_is_not_followed(tmp_path: Path):
    secret = put(tmp_path / "secret", "report.html", "scenario.toml")
    root = tmp_path / "runs"
    run = put(root / "run", "report.html", "scenario.toml")
    folder = found(root)["run"]
    assert content_of(root, folder, "report.html") == (b"report.html", "text/html; charset=utf-8")

    (run / "report.html").unlink()
    (run / "report.html").symlink_to(secret / "report.html")
    assert content_of(root, folder, "report.html") is None
    run.rename(root / "other")
    (root / "run").symlink_to(secret)
    assert content_of(root, folder, "scenario.toml") is None


def test_a_pipe_is_not_waited_for_and_a_large_file_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = put(tmp_path / "run", "report.html", "scenario.toml")
    folder = found(tmp_path)["run"]
    (run / "report.html").unlink()
    os.mkfifo(run / "report.html")
    assert content_of(tmp_path, folder, "report.html") is None
    monkeypatch.setattr(folders, "LARGEST_SERVED", 3)
    assert content_of(tmp_path, folder, "scenario.toml") is None


@pytest.mark.parametrize(
    "name", ["model.safetensors", "../run/report.html", "..", "", "checkpoints/x.json", "/etc/passwd"]
)
def test_only_files_that_were_found_are_handed_out(tmp_path: Path, name: str):
    put(tmp_path / "run" / "checkpoints", "x.json")
    put(tmp_path / "run", "report.html", "scenario.toml", "model.safetensors")
    assert content_of(tmp_path, found(tmp_path)["run"], name) is None


def test_the_number_of_folders_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folders, "MOST_FOLDERS", 2)
    for number in range(4):
        put(tmp_path / str(number), "scenario.toml")
    assert list(found(tmp_path)) == ["0", "1"]


def test_the_place_has_to_be_a_folder_of_runs(tmp_path: Path):
    check_place(tmp_path)
    with pytest.raises(Mistake, match="expected a folder of runs, there is none"):
        check_place(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(Mistake, match="expected a folder of runs, got a file"):
        check_place(tmp_path / "file")
    run = put(tmp_path / "run", "scenario.toml")
    with pytest.raises(Mistake, match="got a single run; the folder it lies in: ") as caught:
        check_place(run)
    assert str(tmp_path) in str(caught.value)
