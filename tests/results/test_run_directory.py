import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from fedsim.cli import terminal
from fedsim.cli.document import as_document
from fedsim.experiments.experiment import execute, summary
from fedsim.mistakes import Mistake
from fedsim.report import page as report
from fedsim.results import run_directory as results
from fedsim.results.evaluation import POOLED
from fedsim.scenario.files import read, read_own
from tests.runs import unsealed

pytestmark = pytest.mark.usefixtures("charts_undrawn")


@pytest.fixture
def copied(small_run: Path, tmp_path: Path) -> Path:
    return unsealed(Path(shutil.copytree(small_run, tmp_path / "copy")))


@pytest.fixture(scope="module")
def finished_privately(tmp_path_factory: pytest.TempPathFactory) -> Path:
    changes = ["training.rounds=1", "seeds=1", "privacy.noise_multiplier=4", 'arms=["local"]']
    return execute(read("hospital-heart", changes), tmp_path_factory.mktemp("runs") / "private").path


@pytest.fixture
def private(finished_privately: Path, tmp_path: Path) -> Path:
    return unsealed(Path(shutil.copytree(finished_privately, tmp_path / "private")))


def test_a_run_directory_holds_plain_files_only(small_run: Path):
    names = {path.name for path in small_run.iterdir()}
    assert names == {
        ".lock", "SHA256SUMS", "begun.json", "scenario.toml", "manifest.json", "rounds.parquet", "sites.parquet",
        "groups.parquet", "ledger.json", "metrics.json", "model.safetensors", "checkpoints", "report.html",
        "traffic.parquet",
    }  # fmt: skip
    assert not [path for path in small_run.rglob("*") if path.suffix in (".pkl", ".pt", ".tmp")]


def test_anyone_with_pandas_can_read_it(small_run: Path):
    table = pd.read_parquet(small_run / "sites.parquet")
    assert list(table) == ["arm", "private", "seed", "site", "rows", "positives", "auc", "accuracy", "log_loss"]
    manifest = json.loads((small_run / "manifest.json").read_text())
    assert manifest["versions"]["flwr"].startswith("1.4")


def test_a_figure_that_is_undefined_in_every_row_is_a_number_that_is_missing(tmp_path: Path):
    """The AUC inside sites, where each site has one row: older versions wrote a column of no kind."""
    rounds = pd.DataFrame({"arm": ["federated", "local"], "auc": [None, None], "log_loss": [0.7, None]})
    now = tmp_path / "now.parquet"
    before = tmp_path / "before.parquet"
    results.write_table(now, rounds)
    rounds.to_parquet(before, index=False)
    for path in (now, before):
        table = results._table(path.read_bytes(), path)
        assert table["auc"].dtype == table["log_loss"].dtype == float
        assert table["auc"].isna().all()
        assert list(table["arm"]) == ["federated", "local"]
    assert pd.read_parquet(now)["auc"].dtype == float


@pytest.mark.whole
def test_a_run_at_sites_of_five_rows_is_finished_and_loaded(tmp_path: Path):
    """No site has two test rows, so that the AUC inside sites is undefined in every arm and round."""
    rows = pd.DataFrame(
        {
            "age": [row * 37 % 90 for row in range(100)],
            "ill": [0, 1, 0, 1, 1, 0, 0, 1, 1, 0] * 10,
            "site": [row // 5 for row in range(100)],
        }
    )
    rows.to_csv(tmp_path / "tiny.csv", index=False)
    about = [f"data.path={tmp_path}/tiny.csv", "data.target=ill", "data.site=site", "data.ranges=from-data"]
    scenario = read_own([*about, "training.rounds=2", "seeds=1"])
    execute(scenario, tmp_path / "run")
    run = results.load(tmp_path / "run")
    assert run.rounds["auc"].isna().all()
    assert run.rounds["log_loss"].notna().all()
    assert set(run.sites["rows"]) == {1, 20}

    # Its figures are those pooled over the sites, as far as words and pictures go.
    page = (tmp_path / "run" / "report.html").read_text()
    assert "At no site can test rows be compared with each other" in page
    assert "an AUC pooled over the sites of" in page
    assert "older than the figures" not in page
    assert "unknown" not in page


def test_what_is_loaded_is_what_was_written(small_run: Path):
    run = results.load(small_run)
    assert run.scenario.training.rounds == 1
    assert len(run.sites) == 3 * 6  # four hospitals, inside them, and pooled
    assert run.epsilon() == {}


@pytest.mark.whole
def test_a_run_from_before_there_were_figures_inside_sites_is_loaded_and_reported(copied: Path):
    """It is spoken of by its pooled figures, on the page, in the document and from Python."""
    table = pd.read_parquet(copied / "sites.parquet")
    pooled = table[table["site"] == "(pooled)"].set_index("arm")["auc"]
    results.write_table(copied / "sites.parquet", table[table["site"] != "(inside sites)"])
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["files"]["sites.parquet"] = results.sha256((copied / "sites.parquet").read_bytes())
    results.write_json(copied / "manifest.json", manifest)

    run = results.load(copied)
    assert run.headline == "(pooled)"
    assert "its figures are pooled over the sites" in report.write(run).read_text("utf-8")
    for arm in as_document(run)["arms"]:
        assert arm["over"] == "(pooled)"
        assert set(arm["sites"]) == {"cleveland", "hungarian", "switzerland", "va_long_beach"}
        assert arm["metric"] != "auc" or arm["mean"] == pytest.approx(pooled[arm["arm"]])
    frame = summary(run)
    assert set(frame["over"]) == {"(pooled)"}
    assert frame["mean"].tolist() == frame["pooled_mean"].tolist()
    assert "pooled over the sites" in " ".join(terminal.closing_lines(run))


@pytest.mark.parametrize(
    "name",
    [
        *("scenario.toml", "sites.parquet", "groups.parquet", "rounds.parquet"),
        *("ledger.json", "metrics.json", "model.safetensors"),
    ],
)
def test_one_flipped_bit_anywhere_is_noticed(copied: Path, name: str):
    """F5: safetensors alone would load it."""
    content = bytearray((copied / name).read_bytes())
    for position in random.Random(0).sample(range(len(content)), 20):
        broken = content.copy()
        broken[position] ^= 1
        (copied / name).write_bytes(broken)
        with pytest.raises(Mistake, match="expected SHA-256"):
            results.load(copied)


@pytest.mark.whole
def test_a_run_from_before_there_was_metrics_json_is_loaded_and_reported(copied: Path):
    """Nothing is said of a base rate, of calibration or of coefficients, and nothing is missing."""
    new = report.write(results.load(copied)).read_text()
    (copied / "metrics.json").unlink()
    manifest = json.loads((copied / "manifest.json").read_text())
    del manifest["files"]["metrics.json"]
    results.write_json(copied / "manifest.json", manifest)

    run = results.load(copied)
    assert run.over_base is None
    page = report.write(run).read_text()
    parts = ("Without a model", "Can the probabilities be believed?", "Which mistakes", "What does the model weigh?")
    for part in parts:
        assert part in new
        assert part not in page
    document = as_document(run)
    assert (document["base_answer"], document["cautions"]) == (None, [])
    assert all(arm["over_base"] is None for arm in document["arms"])
    assert "base rate" not in " ".join(terminal.closing_lines(run))


def test_metrics_json_agrees_with_the_tables_and_with_the_model(small_run: Path):
    """The confusion matrix at one half gives the accuracy, the bins hold all rows, and the model its coefficients."""
    run = results.load(small_run)
    pooled = run.sites[run.sites["site"] == "(pooled)"]
    for row in pooled.to_dict("records"):
        of_arm = run.measured.confusion[run.measured.confusion["arm"] == row["arm"]]
        right = of_arm.loc[of_arm["true"] == of_arm["named"], "rows"].sum()
        assert right / of_arm["rows"].sum() == row["accuracy"]
        assert of_arm.loc[of_arm["true"] == 1, "rows"].sum() == row["positives"]
        bins = run.measured.calibration[run.measured.calibration["arm"] == row["arm"]]
        assert (bins["rows"].sum(), bins["seen"].sum()) == (row["rows"], row["positives"])

    weights = load_file(small_run / "model.safetensors")["weight"][0]
    shown = run.measured.coefficients.set_index("input")["per_input"]
    assert list(shown.iloc[1:]) == pytest.approx(weights.tolist())
    age = run.measured.coefficients.set_index("input").loc["age"]
    assert (age["unit"], age["per_unit"]) == ("years", pytest.approx(age["per_input"] / 40))
    base = run.measured.base_rates.set_index("site").loc["(pooled)"]
    assert base["rows"] == pooled["rows"].iloc[0]
    assert run.measured.threshold == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"calibration": [{"arm": "local"}]}, "calibration: expected private, seed, bin, rows, said, seen in each row"),
        ({"base_rates": "none"}, "base_rates: expected a list of rows"),
        ({"base_rates": [{"seed": 0, "site": "(pooled)", "answer": "1"}]}, "answer of row 0: expected a number, got"),
        ({"base_rates": [{"seed": 0, "site": 3, "answer": 1}]}, "site of row 0: expected text, got 3"),
        ({"threshold": "half"}, "threshold: expected a number, got 'half'"),
        ({"secrets": []}, "metrics.json: expected base_rates, .*threshold, got something else"),
    ],
)
def test_a_metrics_json_that_is_none_is_explained(copied: Path, change: dict, message: str):
    values = json.loads((copied / "metrics.json").read_text()) | change
    results.write_json(copied / "metrics.json", values)
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["files"]["metrics.json"] = results.sha256((copied / "metrics.json").read_bytes())
    results.write_json(copied / "manifest.json", manifest)
    with pytest.raises(Mistake, match=message):
        results.load(copied)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("manifest.json", b"{", "manifest.json: expected JSON, got"),
        ("manifest.json", b"[]", "manifest.json: expected a JSON object, got list"),
        ("manifest.json", b"{}", "manifest.json: expected data, device, files, git, .*versions in it"),
        ("manifest.json", None, "this run is not finished; go on with: fedsim resume"),
        ("ledger.json", None, "ledger.json: No such file"),
    ],
)
def test_a_broken_run_directory_is_explained(copied: Path, name: str, content: bytes | None, message: str):
    if content is None:
        (copied / name).unlink()
    else:
        (copied / name).write_bytes(content)
    with pytest.raises(Mistake, match=message):
        results.load(copied)


def change_json(folder: Path, name: str, change: Callable[[Any], None]) -> None:
    """Change what a JSON file of a run holds, with its digest, as somebody would who means to deceive."""
    values = json.loads((folder / name).read_text())
    change(values)
    (folder / name).write_text(json.dumps(values))
    make_digest_anew(folder, name)


def make_digest_anew(folder: Path, name: str) -> None:
    if name != "manifest.json":
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"][name] = results.sha256((folder / name).read_bytes())
        results.write_json(folder / "manifest.json", manifest)


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("manifest.json", ["task", "kind"], "odd", "task.kind: expected 'binary', 'classes', 'contrastive', "),
        ("manifest.json", ["task", "kind"], math.nan, "expected JSON, got NaN, which is no JSON"),
        ("manifest.json", ["task"], "heart", "task: expected an object, got 'heart'"),
        ("manifest.json", ["started"], None, "started: expected text, got None"),
        ("manifest.json", ["started"], "soon", "started: .*soon"),
        ("manifest.json", ["seconds_per_training"], [5], r"seconds_per_training: expected an object, got \[5\]"),
        ("manifest.json", ["versions"], "\ud800", "expected JSON, got .*surrogates not allowed"),
        ("manifest.json", ["versions"], {}, "versions: expected fedsim-flower among them"),
        ("manifest.json", ["seeds"], [], "seeds: expected at least 1 in the list, got"),
        ("manifest.json", ["files", "scenario.toml"], 3, "files.scenario.toml: expected text, got 3"),
        ("ledger.json", ["trainings"], "none", "trainings: expected a list, got 'none'"),
        ("ledger.json", ["unit"], "patient", "unit: .*expected 'client', .*'record', got 'patient'"),
        ("ledger.json", ["delta"], 1.5, "delta: expected a number < 1, got 1.5"),
        ("ledger.json", ["delta"], None, "expected a delta beside private trainings"),
        ("ledger.json", ["tuning"], {"runs": None, "charged": True}, "expected the number of trainings that are charg"),
        ("ledger.json", ["trainings", 0, "epsilon"], {}, "expected an epsilon of each site that released something"),
        ("ledger.json", ["trainings", 0, "entries", 0, "kind"], "loud", "entries.0: expected a release of the kinds"),
        (
            "ledger.json",
            ["trainings", 0, "entries", 0, "mechanism", "noise_multiplier"],
            [],
            r"entries.0: noise_multiplier: expected a finite number > 0, got \[\]",
        ),
        ("metrics.json", ["confusion", 0, "true"], 10**30, "true of row 0: expected a whole number >= 0, got 1000000"),
        ("metrics.json", ["confusion", 0, "true"], 5, "expected a row for each pair of classes from 0 on"),
        ("metrics.json", ["calibration", 0, "arm"], "distant", "arm of row 0: expected one of federated, .*'distant'"),
        ("metrics.json", ["calibration", 0, "arm"], [0], r"arm of row 0: expected one of .*got \[0\]"),
        ("metrics.json", ["threshold"], None, "threshold: expected the number from which on a row is called positive"),
    ],
)
def test_a_value_that_nobody_wrote_is_named_whatever_its_digest(
    copied: Path, private: Path, name: str, place: list[str | int], value: Any, message: str
):
    copied = private if name == "ledger.json" else copied

    def change(values: Any) -> None:
        *holders, key = place
        for holder in holders:
            values = values[holder]
        values[key] = value

    change_json(copied, name, change)
    with pytest.raises(Mistake, match=message) as caught:
        results.load(copied)
    assert str(copied / name) in str(caught.value)


def test_all_faults_of_a_file_are_said_at_once(copied: Path):
    change_json(copied, "manifest.json", lambda values: values.update(seconds="long", threads=-1, git=3))
    with pytest.raises(Mistake) as caught:
        results.load(copied)
    assert [line.partition(": expected")[0].rpartition(": ")[2] for line in str(caught.value).splitlines()] == [
        *("git", "threads", "seconds")
    ]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("sites", lambda table: table.iloc[:0], "expected a row for each training and site, got none"),
        ("sites", lambda table: table.drop(columns="arm"), "expected the columns arm, got private, seed"),
        ("sites", lambda table: table.drop(columns="auc"), "expected the columns auc, got"),
        ("sites", lambda table: table.assign(private=None), "private of row 0: expected true or false, got nan"),
        ("sites", lambda table: table.assign(seed=table["seed"] - 1), "seed of row 0: expected a whole number >= 0"),
        ("sites", lambda table: table.assign(rows=0.5), "rows of row 0: expected a whole number >= 0, got 0.5"),
        ("sites", lambda table: table.assign(auc="high"), "auc of row 0: expected a number, got 'high'"),
        ("sites", lambda table: table.iloc[1:], "expected the same sites for each training, .* lacks 'cleveland'"),
        ("sites", lambda table: table[table["site"] != POOLED], r"expected the site \(pooled\) among the rows"),
        ("sites", lambda table: pd.concat([table, table.iloc[:1]]), "expected one row for each arm, private, seed, si"),
        ("groups", lambda table: table.iloc[:0], "expected the same groups for each training of a seed|lacks some"),
        ("groups", lambda table: table.assign(attribute=3), "attribute of row 0: expected text, got 3"),
        ("groups", lambda table: table.iloc[1:], "expected the same groups for each training of a seed, federated"),
        ("rounds", lambda table: table[["seed"]], "expected the columns arm, private, round, auc"),
        (
            "rounds",
            lambda table: table.assign(seed=7),
            "expected the trainings of sites.parquet, got federated, not private, seed 7",
        ),
    ],
)
def test_a_table_that_nobody_wrote_is_named_whatever_its_digest(
    copied: Path, name: str, change: Callable[[pd.DataFrame], pd.DataFrame], message: str
):
    path = copied / f"{name}.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)
    make_digest_anew(copied, path.name)
    with pytest.raises(Mistake, match=message) as caught:
        results.load(copied)
    assert str(path) in str(caught.value)


def test_no_run_directory_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(Mistake, match="expected a run directory, there is none"):
        results.load(tmp_path / "none")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Mistake, match="no finished run under runs/"):
        results.newest()


def test_a_directory_of_several_trainings_is_no_run(tmp_path: Path):
    with pytest.raises(Mistake, match=r"expected a run directory, got a directory without manifest\.json"):
        results.load(tmp_path)
    for name in ("ranks.csv", "pairs.csv"):
        (tmp_path / name).write_text("")
    with pytest.raises(Mistake, match=r"got the directory of several trainings, with pairs\.csv, ranks\.csv"):
        results.load(tmp_path)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path):
    path = tmp_path / "x.json"
    results.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float values"):
        results.write_json(path, {"a": float("nan")})
    with pytest.raises(TypeError):
        results.write_bytes(path, "text")  # type: ignore[arg-type]
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_an_error_and_not_a_half_written_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    import errno
    import os

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    results.write_bytes(tmp_path / "x", b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        results.write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_checkpoint_is_what_was_kept_or_refused(tmp_path: Path):
    folder = tmp_path / "checkpoints"
    assert results.read_checkpoint(folder, "a") is None
    results.write_checkpoint(folder, "a", {"w": torch.arange(3.0)}, {"notes": ["x"], "score": 0.1})
    tensors, values = results.read_checkpoint(folder, "a") or ({}, {})
    assert torch.equal(tensors["w"], torch.arange(3.0))
    assert values == {"notes": ["x"], "score": 0.1}
    for name in ("a.json", "a.safetensors"):
        whole = (folder / name).read_bytes()
        for position in random.Random(0).sample(range(len(whole)), 30):
            broken = bytearray(whole)
            broken[position] ^= 1
            (folder / name).write_bytes(broken)
            try:
                kept = results.read_checkpoint(folder, "a")
            except Mistake:
                continue
            assert kept is not None  # white space may differ, what is in it may not
            assert kept[1] == values
            assert torch.equal(kept[0]["w"], tensors["w"])
        (folder / name).write_bytes(whole)


def test_the_tensors_of_two_writes_are_the_same_bytes(tmp_path: Path):
    for name in ("a", "b"):
        results.write_tensors(tmp_path / name, {"w": torch.ones(2)}, {"task": "t", "training": "x", "more": "y"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_epsilon_is_the_most_of_all_trainings_of_an_arm_and_forgets_no_site(small_run: Path):
    import dataclasses

    def training(arm: str, **epsilon: float) -> dict:
        return {"arm": arm, "epsilon": epsilon}

    ledger = {
        "trainings": [training("federated", a=1.0, b=3.0), training("federated", a=2.0), training("local", a=9.0)]
    }
    run = dataclasses.replace(results.load(small_run), ledger=ledger)
    assert run.epsilon() == {"a": 2.0, "b": 3.0}
    assert run.epsilon("local") == {"a": 9.0}


def test_a_manifest_that_lacks_something_is_explained(copied: Path):
    manifest = json.loads((copied / "manifest.json").read_text())
    del manifest["notes"]
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(Mistake, match=r"manifest.json: expected notes in it"):
        results.load(copied)
