"""Sweeps and searches from Python are those of the command line."""

from pathlib import Path

import pytest

import fedsim
from fedsim.experiments.deciding import python
from fedsim.experiments.deciding.sweep import Axes
from fedsim.experiments.deciding.tune import Wanted


def test_values_are_handed_on_as_they_would_be_typed(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(python, "run_sweep", lambda *given: asked.append(given))
    monkeypatch.setattr(python, "run_tune", lambda *given: asked.append(given))
    fedsim.sweep("hospital-heart", "training.rounds=2", epsilon=[2, 0.5, "none"], vary={"training.local_steps": [1, 2]})
    fedsim.tune("hospital-heart", trials=3, vary={"training.optimizer.lr": "0.01..1:log"}, epsilon=2.0, charged=True)
    swept, tuned = (given[0] for given in asked)
    assert swept == Axes(
        "hospital-heart", None, ["2", "0.5", "none"], ["training.local_steps=1,2"], ("training.rounds=2",), None
    )
    assert tuned == Wanted(
        "hospital-heart", 3, ["training.optimizer.lr=0.01..1:log"], None, "2", (), None, charged=True, prune=True
    )
    assert asked[0][1] == Path("runs/cache")


@pytest.mark.whole
def test_a_sweep_returns_tables_and_writes_its_files(tmp_path: Path):
    decided = fedsim.sweep(
        "hospital-heart",
        "training.rounds=2",
        epsilon=["none"],
        arms=["federated", "local"],
        seeds=1,
        out=tmp_path / "out",
        cache=tmp_path / "cache",
        progress=False,
    )
    assert decided.points["arm"].tolist() == ["federated", "local"]
    assert decided.by_arm["against"].tolist() == ["federated"]
    assert (tmp_path / "out" / "sweep.html").is_file()
    with pytest.raises(fedsim.Mistake, match="expected a folder of its own, a run is in it"):
        (tmp_path / "out" / "scenario.toml").touch()
        fedsim.sweep("hospital-heart", out=tmp_path / "out")
