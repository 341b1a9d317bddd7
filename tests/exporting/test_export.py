"""An exported model predicts what PyTorch predicts, from raw columns, and goes along with no more than was promised."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import fedsim
from clients import bank, hospital
from fedsim import figures
from fedsim.data import loading
from fedsim.data.federation import Examples
from fedsim.exporting import predict as predicting
from fedsim.mistakes import Mistake
from fedsim.planning.trial import Trial, without_noise
from fedsim.results.evaluation import predict as predict_with_torch
from fedsim.results.run_directory import load
from tests.clients.xrays import write_xrays

pytestmark = [pytest.mark.whole, pytest.mark.usefixtures("charts_undrawn")]

TOLERANCE = 1e-5
DATA = Path(hospital.__file__).parent / "data"
SMALL = ("training.rounds=1", "seeds=1", 'arms=["federated"]')
NOISE = "privacy.noise_multiplier=4"
PRIVATE = ("privacy.unit=record", "privacy.epsilon=8", "privacy.delta=1e-4", NOISE)
XRAY = """
title = "Three hospitals look for pneumonia"
task = "hospital/xray"
[partition]
by = "iid"
sites = 3
[training]
rounds = 1
local_steps = 2
sampling_rate = 0.5
expected_batch = 16
optimizer = { name = "sgd", lr = 0.1 }
[strategy]
name = "fedavg"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


def trained(place: Path, name: str, scenario: str | None, *changes: str, **options: Any) -> Path:
    """Run a scenario, made small, and export its model; return the directory of that."""
    fedsim.run(scenario, *SMALL, *changes, out=place / name, progress=False, **options)
    return fedsim.export(place / name, place / f"{name}-model")


@pytest.fixture(scope="module")
def heart(place: Path) -> Path:
    return trained(place, "heart", "hospital-heart", NOISE)


@pytest.fixture(scope="module")
def lending(place: Path) -> Path:
    return trained(place, "lending", "bank-lending", NOISE)


@pytest.fixture(scope="module")
def volatility(place: Path) -> Path:
    return trained(place, "volatility", "bank-volatility", epsilon="none")


@pytest.fixture(scope="module")
def xray(place: Path) -> Path:
    write_xrays(place / "x.npz", 60, 10, 30)
    (place / "xray.toml").write_text(XRAY, encoding="utf-8")
    return trained(place, "xray", str(place / "xray.toml"), f"data.path={place / 'x.npz'}")


def by_torch(folder: Path, rows: torch.Tensor) -> np.ndarray:
    """Return the outputs of the model that the run itself wrote, (rows, outputs), of inputs as training has them."""
    run_dir = folder.with_name(folder.name.removesuffix("-model"))
    run = load(run_dir)
    trial = Trial(run.scenario if run.scenario.private else without_noise(run.scenario), run.scenario.seed, "federated")
    parameters = load_file(run_dir / "model.safetensors")
    examples = Examples(rows, torch.zeros(len(rows)))
    [(_, _, outputs)] = predict_with_torch(trial.untried_model, [("all", parameters, examples)])
    return outputs.numpy()


def all_rows(folder: Path) -> torch.Tensor:
    run = load(folder.with_name(folder.name.removesuffix("-model")))
    return torch.from_numpy(loading.rows_of(run.scenario).inputs)


def by_onnxruntime(folder: Path, inputs: Mapping[str, Any]) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(folder / "model.onnx").run(None, dict(inputs))


def sigmoid(outputs: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-outputs[:, 0].astype(float)))


def test_heart(heart: Path):
    wanted = sigmoid(by_torch(heart, all_rows(heart)))
    raw = hospital.read_heart()
    [got] = by_onnxruntime(heart, {column.name: raw[column.name].to_numpy(float) for column in hospital.HEART})
    assert len(got) == 920
    assert np.abs(got - wanted).max() < TOLERANCE
    assert np.ptp(wanted) > 0.1

    predicted = fedsim.predict(heart, DATA / "heart_disease_4_hospitals.csv")
    assert np.array_equal(predicted["probability"], got)
    assert predicted["row"].tolist() == list(range(2, 922))  # as an editor counts lines
    assert fedsim.predict(heart, raw)["probability"].equals(predicted["probability"])


def test_lending(lending: Path):
    wanted = sigmoid(by_torch(lending, all_rows(lending)))
    raw = bank.read_lending()
    [got] = by_onnxruntime(lending, {column.name: raw[column.name].to_numpy(float) for column in bank.LENDING_FILE})
    assert len(got) == 9857
    assert np.abs(got - wanted).max() < TOLERANCE
    predicted = fedsim.predict(lending, DATA / "lending_club_by_state.csv.gz")
    assert np.array_equal(predicted["probability"], got)


def test_volatility(volatility: Path):
    """From daily prices; a window is 20 days and the 20 before, and the last five days have a prediction, too."""
    middle, half = (-7.0 + -0.5) / 2, (-0.5 + 7.0) / 2
    wanted = middle + half * by_torch(volatility, all_rows(volatility))[:, 0].astype(float)
    predicted = fedsim.predict(volatility, DATA / "stocks_5_tickers_daily.csv.gz")
    known = predicted.groupby("Ticker").apply(lambda own: own.iloc[:-5]).reset_index(drop=True)
    assert np.abs(known["prediction"] - wanted).max() < TOLERANCE

    stocks = bank.read_stocks().sort_values("Date")
    ticker = predicted["Ticker"].iloc[-1]
    days = stocks[stocks["Ticker"] == ticker]
    last = {column.name: days[column.name].to_numpy(float)[None, -40:] for column in bank.STOCKS_FILE}
    [got] = by_onnxruntime(volatility, last)
    assert predicted["Date"].iloc[-1] == days["Date"].iloc[-1]
    assert got[0] == pytest.approx(predicted["prediction"].iloc[-1], abs=TOLERANCE)


def test_xray(xray: Path):
    wanted = sigmoid(by_torch(xray, all_rows(xray)))
    with np.load(xray.with_name("x.npz")) as arrays:
        images = np.concatenate([arrays[f"{part}_images"] for part in ("train", "val", "test")])
    [got] = by_onnxruntime(xray, {"image": images})
    assert len(got) == 100
    assert np.abs(got - wanted).max() < TOLERANCE
    assert np.array_equal(fedsim.predict(xray, xray.with_name("x.npz"))["probability"], got)


def patients(rows: int = 120) -> pd.DataFrame:
    """Make a table with categories as text, missing values, dates, and an outcome in dollars."""
    random = np.random.default_rng(3)
    ages = random.integers(20, 90, rows).astype(float)
    stays = random.integers(0, 400, rows)
    return pd.DataFrame({
        "ward": np.where(np.arange(rows) % 2, "north", "south"),
        "age": np.where(np.arange(rows) % 11, ages, np.nan),
        "stage": random.choice(["early", "late", "unsure"], rows),
        "came": pd.Series(pd.Timestamp("2024-01-01") + pd.to_timedelta(stays, "D")).dt.strftime("%d.%m.%Y"),
        "cost": (1000 + 90 * ages + 10 * stays).round(2),
    }).assign(stage=lambda own: own["stage"].where(np.arange(rows) % 7 > 0, ""))  # fmt: skip


RANGES = """
age = { low = 18, high = 100, missing = true }
stage = { levels = ["early", "late", "unsure"], missing = true }
came = { from = "2024-01-01", to = "2025-12-31", written = "31.12.2020" }
cost = [0, 50000]
"""


@pytest.fixture(scope="module")
def own(place: Path) -> Path:
    table = place / "patients.csv"
    patients().to_csv(table, index=False)
    (place / "patients.ranges.toml").write_text(RANGES, encoding="utf-8")
    return trained(place, "own", None, data=table, target="cost", site="ward")


def test_own_table(own: Path, place: Path):
    """Its scale is learned and its outcome is in dollars; the tolerance is of half of the range."""
    scale = json.loads((own / "model.json").read_text("utf-8"))["model"]["scale"]
    half = 25_000
    trial = Trial(load(place / "own").scenario, 0, "federated")
    assert trial.federation.scale is not None
    standardized = trial.federation.scale.inputs(all_rows(own))
    outputs = by_torch(own, standardized)[:, 0].astype(float)
    wanted = half + half * (outputs * scale["target_spread"] + scale["target_mean"])
    predicted = fedsim.predict(own, place / "patients.csv")
    assert np.abs(predicted["prediction"] - wanted).max() < TOLERANCE * half

    raw = patients()
    days = (pd.to_datetime(raw["came"], format="%d.%m.%Y") - pd.Timestamp("2024-01-01")).dt.days
    inputs = {
        "age": raw["age"].to_numpy(),
        "stage": raw["stage"].to_numpy(object),
        "came": days.to_numpy(float),
    }
    [got] = by_onnxruntime(own, inputs)
    assert np.array_equal(got, predicted["prediction"])


def test_new_rows_are_read_as_training_reads_them(own: Path):
    """Case and notation don't matter; what is out of range is cut and said; one row is enough."""
    row = pd.DataFrame({"came": ["31.12.2024"], "stage": ["LATE"], "age": [130], "more": [1]})
    plain = row.assign(stage="late", age=100)
    exported = predicting.open_exported(own)
    predicted = exported.predict(row)
    assert predicted.table["prediction"].equals(exported.predict(plain).table["prediction"])
    assert any("age: 1 outside 18 to 100 cut to it" in note for note in predicted.notes)


def test_all_faults_of_a_table_are_told_at_once(heart: Path):
    frame = hospital.read_heart().drop(columns="age").assign(cp=9, chol="high", sex=np.nan)
    with pytest.raises(Mistake) as told:
        fedsim.predict(heart, frame)
    lines = str(told.value).splitlines()
    assert len(lines) == 4
    assert "it has no age" in lines[0]
    assert "column sex: expected one of 0, 1, got nothing (920 rows)" in lines[1]
    assert "column cp: expected one of 1, 2, 3, 4, got '9'" in lines[2]
    assert "column chol: expected" in lines[3]


@pytest.mark.parametrize("name", predicting.FILES)
def test_a_changed_file_is_noticed(heart: Path, tmp_path: Path, name: str):
    copy = shutil.copytree(heart, tmp_path / "copy")
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(Mistake, match="the file has changed since it was made"):
        fedsim.predict(copy, hospital.read_heart())


def test_a_file_without_a_digest_is_noticed(heart: Path, tmp_path: Path):
    copy = shutil.copytree(heart, tmp_path / "copy")
    lines = (copy / "SHA256SUMS").read_text("utf-8").splitlines(keepends=True)
    (copy / "SHA256SUMS").write_text("".join(line for line in lines if "onnx" not in line), encoding="utf-8")
    with pytest.raises(Mistake, match=r"expected the digest of model\.onnx"):
        fedsim.predict(copy, hospital.read_heart())


def test_the_card_says_what_is_promised(heart: Path, own: Path):
    private = (heart / "README.md").read_text("utf-8")
    run = load(heart.with_name("heart"))
    spent = max(run.epsilon().values())
    assert f"epsilon at most {figures.epsilon(spent)}, delta 0.0001" in private
    assert "Against somebody who knows the seed there is no guarantee" in private
    assert "coronary artery disease" in private
    assert "| AUC | inside sites |" in private
    assert "sex: female" in private

    plain = (own / "README.md").read_text("utf-8")
    assert "**This model was trained without privacy. It has no privacy guarantee.**" in plain
    assert "epsilon at most" not in plain


def test_the_model_without_privacy_says_so(heart: Path, tmp_path: Path):
    folder = fedsim.export(heart.with_name("heart"), tmp_path / "plain", private=False)
    assert "It has no privacy guarantee" in (folder / "README.md").read_text("utf-8")
    assert (folder / "model.onnx").read_bytes() != (heart / "model.onnx").read_bytes()


def test_a_learned_scale_is_said_and_goes_with_no_private_model(own: Path, place: Path):
    """The private model of the same table has public numbers only, whatever ``data.scale`` says."""
    assert "were learned from training rows without noise" in (own / "README.md").read_text("utf-8")
    options = {"data": place / "patients.csv", "target": "cost", "site": "ward"}
    folder = trained(place, "own-private", None, *PRIVATE, "data.scale=learned", **options)
    facts = json.loads((folder / "model.json").read_text("utf-8"))
    assert facts["privacy"]["guarantee"]
    assert facts["model"]["scale"] is None
    shown = {each["name"]: (each.get("low"), each.get("high")) for each in facts["inputs"]["columns"]}
    assert shown["age"] == (18, 100)

    plain = fedsim.export(place / "own-private", place / "own-private-plain", private=False)
    assert json.loads((plain / "model.json").read_text("utf-8"))["model"]["scale"] is not None


def test_ranges_of_the_records_go_with_no_private_model(place: Path):
    patients().to_csv(place / "undeclared.csv", index=False)
    options = {"data": place / "undeclared.csv", "target": "cost", "site": "ward", "ranges": "from-data"}
    with pytest.raises(Mistake, match="which no epsilon covers, and they would go along with the model"):
        trained(place, "fitted", None, *PRIVATE, **options)
    plain = fedsim.export(place / "fitted", place / "fitted-plain", private=False)
    assert "the least and the greatest value of a column are those of single rows" in (plain / "README.md").read_text(
        "utf-8"
    )
    predicted = fedsim.predict(plain, place / "undeclared.csv")
    assert predicted["prediction"].nunique() > 1


def test_models_that_sites_keep_at_home(place: Path):
    """Under a promise for whole sites the exact model of a site is not handed on; the shared one is."""
    changes = ("strategy.name=apfl", "privacy.unit=client", "privacy.noise_multiplier=9", "privacy.clip=1")
    shared = trained(place, "apfl", "hospital-heart", *changes)
    card = (shared / "README.md").read_text("utf-8")
    assert "4 of 4 sites predict by models of their own" in card
    with pytest.raises(Mistake, match="not the model that a site keeps at home"):
        fedsim.export(place / "apfl", place / "kept", site="cleveland")
    assert not (place / "kept").exists()
    plain = fedsim.export(place / "apfl", place / "kept", site="cleveland", private=False)
    assert "It has no privacy guarantee" in (plain / "README.md").read_text("utf-8")
    assert "This model belongs to cleveland" in (plain / "README.md").read_text("utf-8")


def test_which_model(heart: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = heart.with_name("heart")
    for options, expected in (
        ({"arm": "central"}, "--arm: expected one of federated, got central"),
        ({"seed": 7}, "--seed: expected one of 0, got 7"),
        ({"site": "cleveland"}, "--site cleveland: expected no site: all sites share one model"),
    ):
        with pytest.raises(Mistake, match=expected):
            fedsim.export(run, tmp_path / "model", **options)
    with pytest.raises(Mistake, match="expected a new or empty directory, it is taken"):
        fedsim.export(run, heart)
    monkeypatch.setattr(predicting, "find_spec", lambda module: None)
    with pytest.raises(Mistake, match=r"pip install 'fedsim-flower\[export\]'"):
        fedsim.export(run, tmp_path / "model")


def test_models_of_the_local_arm(place: Path):
    """Each belongs to a site, and is the one of its own checkpoint."""
    fedsim.run(
        "hospital-heart", "training.rounds=1", 'arms=["local"]', NOISE, seeds=1, out=place / "local", progress=False
    )
    with pytest.raises(Mistake, match="expected the site whose model is meant, one of cleveland, hungarian"):
        fedsim.export(place / "local", place / "of-site")
    of_site = fedsim.export(place / "local", place / "of-site", site="hungarian")
    kept = load_file(place / "local" / "checkpoints" / "local-private-0.safetensors")
    assert torch.equal(load_file(of_site / "model.safetensors")["weight"], kept["site/hungarian/weight"])
    assert "| AUC | at hungarian |" in (of_site / "README.md").read_text("utf-8")
