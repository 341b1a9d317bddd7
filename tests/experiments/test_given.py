"""A table is given to ``fedsim.run`` as a frame or a path, with its columns' roles and ranges."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open

import fedsim
from fedsim.experiments.experiment import execute, resume
from fedsim.experiments.given import GivenData, scenario_of
from fedsim.mistakes import Mistake

pytestmark = pytest.mark.usefixtures("charts_undrawn")

RANGES = {"age": (20, np.int64(90), "years"), "sex": ["f", "m"], "visit": "leave out"}
SHORT = ("training.rounds=2", 'arms=["federated"]')
GIVEN: dict[str, Any] = {"target": "ill", "site": "hospital", "ranges": RANGES}


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    age = rng.integers(20, 90, 120)
    return pd.DataFrame({
        "hospital": rng.choice([2**53 + 1, 2**53 + 2], 120),
        "age": age,
        "sex": pd.Categorical(rng.choice(["f", "m"], 120)),
        "visit": pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(120), unit="D"),
        "ill": age + rng.normal(0, 10, 120) > 55,
    })  # fmt: skip


def run(out: Path, *changes: str, **given: object) -> pd.DataFrame:
    return fedsim.run(None, *SHORT, *changes, seeds=1, out=out, progress=False, **{**GIVEN, **given})


def models_of(*folders: Path) -> set[bytes]:
    models = set()
    for folder in folders:
        with safe_open(folder / "model.safetensors", "np") as file:  # without what it says of the table
            models.add(b"".join(file.get_tensor(name).tobytes() for name in sorted(file.keys())))
    return models


@pytest.mark.whole
def test_a_frame_gives_what_its_file_gives(frame: pd.DataFrame, tmp_path: Path):
    before = frame.copy(deep=True)
    frame.to_parquet(tmp_path / "patients.parquet")
    ranges = {**RANGES, "ill": ["False", "True"]}
    of_file = run(tmp_path / "file", data=tmp_path / "patients.parquet", ranges=ranges)
    of_frame = run(tmp_path / "frame", data=frame, ranges=ranges)

    pd.testing.assert_frame_equal(frame, before)
    assert len(models_of(tmp_path / "file", tmp_path / "frame")) == 1
    pd.testing.assert_frame_equal(of_frame, of_file)
    assert str(2**53 + 1) in of_frame.columns


@pytest.mark.whole
def test_a_run_directory_is_read_without_the_frame_and_has_no_row_of_it(frame: pd.DataFrame, tmp_path: Path):
    frame.loc[7, "age"] = 77
    private = ("privacy.unit=record", "privacy.noise_multiplier=2", "privacy.epsilon=8", "privacy.delta=1e-4")
    run(tmp_path / "run", *private, data=frame, ranges={**RANGES, "ill": ["False", "True"], "age": [0, 99]})
    loaded = fedsim.load(tmp_path / "run")
    assert loaded.manifest["data"]["rows_used"] == 120
    assert "no file and no run directory has its rows" in loaded.manifest["data"]["notes"][0]
    assert loaded.scenario.data.path == "(pandas frame)"
    assert loaded.scenario.data.sha256
    assert not list((tmp_path / "run").glob("**/*.csv"))
    assert {path.name for path in (tmp_path / "run").glob("*.parquet")} == {
        *("sites.parquet", "groups.parquet", "rounds.parquet", "traffic.parquet")
    }


@pytest.mark.whole
def test_a_run_is_repeated_from_its_scenario_with_the_frame_alone(frame: pd.DataFrame, tmp_path: Path):
    run(tmp_path / "first", data=frame, ranges="from-data")
    stored = tmp_path / "first" / "scenario.toml"
    fedsim.run(stored, data=frame, out=tmp_path / "second", progress=False)
    assert len(models_of(tmp_path / "first", tmp_path / "second")) == 1

    with pytest.raises(Mistake, match="which is in no file"):
        fedsim.run(stored, out=tmp_path / "third", progress=False)


@pytest.mark.whole
def test_an_interrupted_run_goes_on_with_the_same_frame_only(frame: pd.DataFrame, tmp_path: Path):
    ranges = {**RANGES, "ill": ["False", "True"]}
    run(tmp_path / "whole", data=frame, ranges=ranges)
    run(tmp_path / "cut", data=frame, ranges=ranges)
    for name in ("manifest.json", "model.safetensors"):
        (tmp_path / "cut" / name).unlink()

    with pytest.raises(Mistake, match="which is in no file"):
        resume(tmp_path / "cut")
    with pytest.raises(Mistake, match="expected the frame that the interrupted run in it was begun with"):
        run(tmp_path / "cut", data=frame.assign(age=50 - frame["age"] % 7), ranges=ranges)
    with pytest.raises(Mistake, match="got others of training"):
        run(tmp_path / "cut", "training.local_steps=1", data=frame, ranges=ranges)

    run(tmp_path / "cut", data=frame.copy(), ranges=ranges)
    assert len(models_of(tmp_path / "whole", tmp_path / "cut")) == 1
    with pytest.raises(Mistake, match="is taken"):
        run(tmp_path / "cut", data=frame, ranges=ranges)


def test_equal_frames_have_the_same_noise_and_others_another(frame: pd.DataFrame, tmp_path: Path):
    private = ("privacy.unit=record", "privacy.noise_multiplier=2", "privacy.epsilon=8", "privacy.delta=1e-4")
    given = GivenData(frame, **{**GIVEN, "ranges": "from-data"})
    same = GivenData(frame.copy(), **{**GIVEN, "ranges": "from-data"})
    other = GivenData(frame.iloc[::-1], **{**GIVEN, "ranges": "from-data"})
    releases = []
    for each in (given, same, other):
        with scenario_of(None, private, None, each) as scenario:
            releases.append(scenario.release)
    assert releases[0] == releases[1] != releases[2]


@pytest.mark.whole
def test_a_path_is_data_too(frame: pd.DataFrame, tmp_path: Path):
    frame.to_csv(tmp_path / "patients.csv", index=False)
    (tmp_path / "my.toml").write_text(
        'age = [0, 120]\nsex = ["f", "m"]\nvisit = "leave out"\nill = ["False", "True"]\n'
    )
    table = run(tmp_path / "run", data=str(tmp_path / "patients.csv"), ranges=tmp_path / "my.toml", groups=["sex"])
    assert table["mean"].iloc[0] > 0.7
    assert set(fedsim.load(tmp_path / "run").groups["group"]) >= {"f", "m"}


@pytest.mark.whole
def test_rows_are_split_by_time(frame: pd.DataFrame, tmp_path: Path):
    ranges = {key: value for key, value in RANGES.items() if key != "visit"}
    run(tmp_path / "run", data=frame, time="visit", ranges={**ranges, "ill": ["False", "True"]})
    assert fedsim.load(tmp_path / "run").scenario.data.time == "visit"


FAULTS = {
    "roles": (
        {"target": "il", "site": "hospitl", "groups": ["sx"]},
        ["data.target: expected a column of (pandas frame), got 'il'; did you mean 'ill'?", "data.site", "data.groups"],
    ),
    "one column for two roles": ({"site": "ill"}, ["data: expected a column of its own for outcome and site"]),
    "ranges": ({"ranges": {"age": None}}, ["ranges: age: expected [low, high]", "got NoneType"]),
    "no ranges": ({"ranges": None}, ["data.ranges lacks", '"age": [..., ..., "unit"],', 'or ranges="from-data"']),
    "another column": ({"ranges": {**RANGES, "agge": [0, 1]}}, ["data.ranges: agge: there is no such column"]),
    "no target": ({"target": None}, ["in Python target=COLUMN (the arguments)"]),
    "a word for a number": ({"target": 3}, ["data.target: expected text, got 3"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_mistakes_and_no_directory_is_made(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.chdir(tmp_path)
    given, expected = FAULTS[name]
    with pytest.raises(Mistake) as caught:
        run(tmp_path / "run", data=frame, **given)
    for part in expected:
        assert part in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_faults_of_names_roles_and_settings_are_told_together(frame: pd.DataFrame, tmp_path: Path):
    frame.columns = ["hospital", "age", "age", 3, "ill"]
    with pytest.raises(Mistake) as caught:
        run(tmp_path / "run", data=frame, target="il")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "got 3 (int)" in lines[0]
    assert "got age several times" in lines[1]
    assert "data.target" in lines[2]


def test_a_task_has_columns_of_its_own(frame: pd.DataFrame, tmp_path: Path):
    with pytest.raises(Mistake, match=r"data\.target: expected none beside a task"):
        fedsim.run("hospital-heart", data=frame, target="ill", out=tmp_path / "run", progress=False)


def test_the_name_of_a_frame_is_no_file(tmp_path: Path):
    given = GivenData("(pandas frame)", **GIVEN)
    with scenario_of(None, SHORT, None, given) as scenario, pytest.raises(Mistake, match="which is in no file"):
        execute(scenario, tmp_path / "run")
