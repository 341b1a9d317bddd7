"""fedsim as an app of Flower's: what ``flwr run`` starts gives the run that ``fedsim run`` would have given."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict

from fedsim.experiments.experiment import execute
from fedsim.experiments.on_flower import server_app
from fedsim.experiments.on_flower.flower_app import export
from fedsim.flower.grid import OF_A_SIMULATION
from fedsim.mistakes import Mistake
from fedsim.scenario import catalog
from fedsim.scenario.changes import with_strategy
from fedsim.scenario.files import read
from tests.nodes import Wires
from tests.torture.interruptions import products

pytestmark = pytest.mark.usefixtures("charts_undrawn")
SMALL = ("training.rounds=2", "seeds=1", "privacy.unit=none")
ROOT = Path(__file__).parents[3]


def started(app: Any, config: dict[str, Any]) -> None:
    """Run a ServerApp's main function, as Flower does."""
    with OF_A_SIMULATION.taken():
        app(Wires(2), Context(1, 1, {}, RecordDict(), config))


def test_the_run_config_in_the_project_is_what_the_app_knows():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["flwr"]["app"]["config"] == server_app.DEFAULTS


@pytest.mark.whole
def test_a_run_of_the_app_is_the_run_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    alone = execute(read("hospital-heart", [*SMALL, "engine=serial"]), tmp_path / "alone")
    started(server_app.app, {"changes": " ".join(SMALL), "out": str(tmp_path / "app")})
    assert products(tmp_path / "app") == products(alone.path)
    assert f"fedsim: run directory: {tmp_path / 'app'}" in capsys.readouterr().err


def test_a_run_config_that_is_wrong_is_named_with_all_its_faults():
    with pytest.raises(Mistake) as caught:
        started(server_app.app, {"scenari": "x", "nodes": "2", "epsilon": 2})
    assert str(caught.value).splitlines() == [
        "run config: scenari: expected scenario, changes, strategy, epsilon, nodes, inside, out",
        "run config: epsilon: expected text, got 2",
        "run config: nodes: expected a whole number, got '2'",
    ]


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text("from strategies.fedavg import FedAvg\n\n\nclass Mine(FedAvg):\n    pass\n")
    return str(path)


@pytest.mark.whole
def test_an_exported_app_holds_the_scenario_and_the_strategy_and_runs(
    mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scenario = read("hospital-heart", [with_strategy(mine), *SMALL])
    export(scenario, tmp_path / "app")
    alone = execute(read("hospital-heart", [with_strategy(mine), *SMALL, "engine=serial"]), tmp_path / "alone")
    monkeypatch.syspath_prepend(tmp_path / "app")
    for name in ("server", "client", "mine"):
        monkeypatch.delitem(sys.modules, f"fedsim_exported.{name}", raising=False)
    from fedsim_exported.client import app as client  # type: ignore[import-not-found]  just written
    from fedsim_exported.server import app as server  # type: ignore[import-not-found]

    from fedsim.site import node

    assert client is node.app
    assert "fedsim_exported.mine:Mine" in catalog.allowed()
    started(server, {"out": str(tmp_path / "run")})
    own = products(tmp_path / "run")
    assert {**own, "model.safetensors": b""} == {**products(alone.path), "model.safetensors": b""}
    project = tomllib.loads((tmp_path / "app" / "pyproject.toml").read_text())
    assert project["tool"]["flwr"]["app"]["components"]["serverapp"] == "fedsim_exported.server:app"


def test_what_can_not_be_exported_is_said(tmp_path: Path):
    scenario = read("hospital-heart", SMALL)
    own = scenario.model_copy(update={"data": scenario.data.model_copy(update={"path": "patients.csv"})})
    with pytest.raises(Mistake, match=r"data\.path: expected a task that comes with an installed package"):
        export(own, tmp_path / "app")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(Mistake, match="taken: expected a new or empty directory"):
        export(scenario, tmp_path / "taken")


@pytest.mark.slow
def test_flwr_run_of_the_project_ends_in_a_run_directory(tmp_path: Path):
    """As the docs say it, on Flower's own simulation, which Ray runs."""
    environment = {
        **os.environ,
        "FLWR_HOME": str(tmp_path / "home"),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    config = f'changes="{" ".join(SMALL)}" out="{tmp_path / "run"}"'
    try:
        words = ["flwr", "run", str(ROOT), "--stream", "--run-config", config]
        subprocess.run(words, check=True, env=environment, cwd=tmp_path, timeout=300)
    finally:
        subprocess.run(["pkill", "-f", str(tmp_path / "home")], check=False)
    alone = execute(read("hospital-heart", [*SMALL, "engine=serial"]), tmp_path / "alone")
    assert products(tmp_path / "run") == products(alone.path)
    assert (tmp_path / "run" / "report.html").exists()
