"""Ray's actors give what the serial engine gives, and Ray ends with the run."""

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsim.experiments import experiment
from fedsim.experiments.experiment import execute
from fedsim.experiments.on_flower.ray_actors import actors_for
from fedsim.mistakes import Mistake, RunFailed
from fedsim.planning import checks
from fedsim.scenario.files import read
from fedsim.scenario.schema import FRAME
from tests.flower.test_nodes import CASES, trained
from tests.torture.interruptions import products

SMALL = ("training.rounds=2", "seeds=1", "privacy.unit=none")


@pytest.fixture
def what_ray_leaves_open() -> Iterator[None]:
    """Let go of the files that Ray leaves open here, which pytest would find at its end."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.slow
@pytest.mark.usefixtures("what_ray_leaves_open")
@pytest.mark.parametrize("actors", [1, 2])
def test_rays_actors_give_the_bytes_of_the_serial_engine(actors: int):
    nodes = ["engine=ray", "ray.inside=serial", f"ray.actors={actors}"]
    with actors_for(read("hospital-heart", nodes)):
        for changes in CASES.values():
            alone = trained(read("hospital-heart", [*changes, "engine=serial"]))
            assert trained(read("hospital-heart", [*changes, *nodes])) == alone


@pytest.mark.slow
@pytest.mark.usefixtures("what_ray_leaves_open")
def test_a_whole_run_on_ray_is_the_serial_one_and_leaves_no_ray(tmp_path: Path):
    import ray  # it takes a second, which all who collect this test would wait for

    alone = execute(read("hospital-heart", [*SMALL, "engine=serial"]), tmp_path / "alone")
    beside = execute(read("hospital-heart", [*SMALL, "engine=ray", "ray.inside=serial"]), tmp_path / "beside")
    assert products(beside.path) == products(alone.path)
    assert not ray.is_initialized()


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    with pytest.raises(Mistake, match=r"engine: 'ray' needs the extra ray: pip install 'fedsim-flower\[ray\]'"):
        checks.check(read("hospital-heart", [*SMALL, "engine=ray"]))


@pytest.mark.parametrize("engine", ["ray", "superlink"])
def test_what_nodes_can_not_do_is_refused(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    scenario = read("hospital-heart", [*SMALL, f"engine={engine}"])
    with pytest.raises(
        Mistake, match=f"jobs: expected 1 with engine = '{engine}', which has processes of its own, got 2"
    ):
        execute(scenario, tmp_path / "run", jobs=2)
    framed = scenario.model_copy(update={"data": scenario.data.model_copy(update={"path": FRAME})})
    assert list(checks.node_faults(framed)) == [
        f"engine: expected 'cohort' or 'serial' for a pandas frame, which is in no file, got '{engine}'"
    ]
    monkeypatch.setattr(experiment, f"{'actors' if engine == 'ray' else 'supernodes'}_for", failing)
    with pytest.raises(RunFailed, match="it did not start"):
        execute(scenario, tmp_path / "run")
    assert (tmp_path / "run" / "scenario.toml").exists()  # it can be resumed


def failing(scenario: object) -> None:
    raise RunFailed("it did not start")
