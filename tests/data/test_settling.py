"""What a table decides of its scenario before it is run."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedsim.data.own_table import prepared
from fedsim.data.settling import settled
from fedsim.experiments.arms import Job, run_job
from fedsim.mistakes import Mistake
from fedsim.results.evaluation import POOLED
from fedsim.scenario.files import read_own
from fedsim.scenario.schema import Scenario


def table(folder: Path, sites: int, rows: int) -> list[str]:
    """Write a table whose outcome follows one of its columns; return how it is given."""
    random = np.random.default_rng(sites)
    frame = pd.DataFrame(random.normal(size=(sites * rows, 3)).round(3), columns=list("abc"))
    frame["ill"] = (random.random(len(frame)) < 1 / (1 + np.exp(-3 * frame["a"]))).astype(int)
    frame["site"] = [f"site {number // rows}" for number in range(len(frame))]
    frame.to_csv(folder / "rows.csv", index=False)
    return [f"data.path={folder}/rows.csv", "data.target=ill", "data.site=site", "data.ranges=from-data"]


@pytest.mark.parametrize(("sites", "batch"), [(1, 64.0), (2, 64.0), (5, 64.0), (20, 16.0), (400, 1.0)])
def test_the_denominator_of_steps_follows_from_the_number_of_sites(tmp_path: Path, sites: int, batch: float):
    about = table(tmp_path, sites, 6)
    assert settled(read_own(about)).training.expected_batch == batch
    assert settled(read_own([*about, "training.expected_batch=64"])).training.expected_batch == 64
    assert settled(read_own([*about, "training.optimizer.lr=0.1"])).training.expected_batch == batch


def test_under_privacy_it_does_not(tmp_path: Path):
    about = table(tmp_path, 20, 6)
    private = [*about, "privacy.unit=record", "privacy.epsilon=1", "privacy.delta=1e-4"]
    assert settled(read_own(private)).training.expected_batch == 64


def test_what_is_settled_stays(tmp_path: Path):
    once = settled(read_own(table(tmp_path, 20, 6)))
    assert settled(once) == once
    assert Scenario.model_validate(once.values()).training == once.training


@pytest.mark.whole
def test_many_tiny_sites_learn_together(tmp_path: Path):
    """The weight decay does not outweigh their rows, as it would with the denominator of few sites."""
    about = [*table(tmp_path, 400, 5), "training.rounds=40"]

    def auc(*changes: str) -> float:
        scenario = settled(read_own([*about, *changes]))
        scores = run_job(scenario, Job("federated", False, 0), lambda number: None).scores
        return float(scores.set_index("site").loc[POOLED, "auc"])

    assert auc() > 0.85
    assert auc("training.expected_batch=64") < 0.8


def test_a_table_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    reads = []
    read_table = prepared.read_table

    def counted(path: Path) -> prepared.Table:
        reads.append(path)
        return read_table(path)

    monkeypatch.setattr(prepared, "read_table", counted)
    scenario = settled(read_own([*table(tmp_path, 7, 20), "training.rounds=1"]))
    run_job(scenario, Job("federated", False, 0), lambda number: None)
    assert len(reads) == 1


def test_a_fault_is_told_with_the_path_as_it_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    table(tmp_path, 3, 20)
    about = ["data.path=rows.csv", "data.target=ill", "data.site=site"]
    with pytest.raises(Mistake) as told:
        settled(read_own(about))
    assert str(tmp_path) not in str(told.value)
    with pytest.raises(Mistake, match=r"^none\.csv: expected a CSV or Parquet file"):
        settled(read_own(["data.path=none.csv", *about[1:]]))
