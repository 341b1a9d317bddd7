"""Runs over parts of the seeds, merged, are the run over all seeds."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fedsim.experiments import begun
from fedsim.experiments.experiment import execute
from fedsim.experiments.merge import merge
from fedsim.mistakes import Mistake
from fedsim.results import run_directory as results
from fedsim.scenario.files import read
from tests.runs import unsealed
from tests.torture.interruptions import products

pytestmark = [pytest.mark.whole, pytest.mark.usefixtures("charts_undrawn")]
SMALL = ("training.rounds=1", "privacy.noise_multiplier=2", "privacy.epsilon=900", 'arms=["federated","local"]')


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Run seeds 3 and 4, seed 5, and seed 7."""
    folder = tmp_path_factory.mktemp("parts")
    made = []
    for seed, seeds in ((3, 2), (5, 1), (7, 1)):
        scenario = read("hospital-heart", [*SMALL, f"seed={seed}", f"seeds={seeds}"])
        made.append(execute(scenario, folder / f"{seed}").path)
    return made


def test_the_merged_run_is_the_one_over_all_seeds(parts: list[Path], tmp_path: Path):
    merged = merge([parts[1], parts[0]], tmp_path / "merged")
    whole = execute(read("hospital-heart", [*SMALL, "seed=3", "seeds=3"]), tmp_path / "whole")
    assert products(merged.path) == products(whole.path)
    for name in ("scenario.toml", "metrics.json", "begun.json"):
        assert (merged.path / name).read_bytes() == (whole.path / name).read_bytes()
    assert merged.manifest["seeds"] == [3, 4, 5]
    parts_read = [results.load(part) for part in parts[:2]]
    assert merged.manifest["seconds"] == pytest.approx(sum(run.manifest["seconds"] for run in parts_read))
    assert merged.manifest["started"] == parts_read[0].manifest["started"]
    assert results.load(merged.path).path == merged.path  # it has its seal


def changed(part: Path, folder: Path, change: Callable[[dict], None], name: str = "begun.json") -> Path:
    copied = unsealed(Path(shutil.copytree(part, folder / "changed")))
    values = json.loads((copied / name).read_text())
    change(values)
    (copied / name).write_text(json.dumps(values))
    return copied


def test_parts_that_are_not_alike_are_named(parts: list[Path], tmp_path: Path):
    other = execute(read("hospital-heart", [*SMALL, "seed=6", "seeds=1", "training.rounds=2"]), tmp_path / "other").path
    with pytest.raises(Mistake, match=f"{other}: expected the scenario of {parts[1]} but for the seeds, .*: training"):
        merge([parts[1], other], tmp_path / "merged")
    with pytest.raises(Mistake, match="seed 5: expected each seed once"):
        merge([parts[0], parts[1], parts[1]], tmp_path / "merged")
    with pytest.raises(Mistake, match="expected seeds without a gap, from 5 to 7 there lack: 6"):
        merge(parts[1:], tmp_path / "merged")
    with pytest.raises(Mistake, match="expected two run directories or more, got 1"):
        merge(parts[:1], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_parts_of_other_circumstances_are_named(parts: list[Path], tmp_path: Path):
    def elsewhere(values: dict) -> None:
        values["circumstances"]["version of torch"] = "1.0"
        values["cores"] += 1

    copied = changed(parts[1], tmp_path, elsewhere)
    with pytest.raises(Mistake) as caught:
        merge([parts[0], copied], tmp_path / "merged")
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert f"{copied}: cores that stacks are cut for: expected {begun.cores_of(parts[0])} as in {parts[0]}" in lines[0]
    assert lines[1].endswith("got 1.0")


def test_a_part_with_a_failed_or_missing_training_is_named(parts: list[Path], tmp_path: Path):
    failure = {"arm": "local", "private": False, "seed": 5, "reason": "odd"}
    copied = changed(parts[1], tmp_path, lambda values: values.update(failed=[failure]), "manifest.json")
    (copied / "checkpoints" / "local-plain-5.json").unlink()
    with pytest.raises(Mistake) as caught:
        merge([parts[0], copied], tmp_path / "merged")
    assert f"try it again with: fedsim resume {copied}" in str(caught.value)
    assert "expected the training local-plain-5 in checkpoints, it is gone" in str(caught.value)
