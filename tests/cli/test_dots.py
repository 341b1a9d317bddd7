"""A table, an outcome and columns with dots in their names: what was trained can be read, shown and resumed."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import fedsim
from fedsim.cli.commands import app
from fedsim.experiments.experiment import resume
from fedsim.results import run_directory as results
from fedsim.scenario.files import read

pytestmark = pytest.mark.usefixtures("charts_undrawn")

TABLE = "export.2024.01.31.v1.2.final.csv"
OUTCOME = "icd.I10.9.v1.2.3.4.5.ill"
COLUMN = "lab.bp.systolic.mm.hg.mean.24.h"
LEVELS = "dx.first.code.of.the.year.x.y"
CODES = ["I10.9", "E11.9", "J45.0.1.2.3.4.5.6.7"]
SMALL = ("training.rounds=2", "seeds=1", "training.local_steps=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a table of dots and its ranges."""
    folder = tmp_path_factory.mktemp("data.2024.01.31.a.b.c.d")
    random = np.random.default_rng(0)
    lines = [f"site.of.the.row,{COLUMN},{LEVELS},{OUTCOME}"]
    for row in range(120):
        pressure = random.normal(130, 15)
        ill = int(pressure + random.normal(0, 10) > 130)
        lines.append(f"St. Mary No. {row % 2}.a.b.c.d.e.f,{pressure:.1f},{CODES[row % 3]},{ill}")
    (folder / TABLE).write_text("\n".join(lines) + "\n")
    levels = ", ".join(f'"{code}"' for code in CODES)
    side = folder / TABLE.replace(".csv", ".ranges.toml")
    side.write_text(
        "# Eight sentences. Of a comment. With dots. And more. And more. And more. And more. And more.\n"
        f'"{COLUMN}" = [0.5, 300.5]  # mm.hg.\n"{LEVELS}" = [{levels}]\n'
    )
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    out = folder / "run.1.2.3.4.5.6.7.8"
    about = "about=One. Two. Three. Four. Five. Six. Seven. Eight. Nine."
    columns = (f"data.target={OUTCOME}", "data.site=site.of.the.row", f"data.groups=['{LEVELS}']")
    fedsim.run(None, f"data.path={folder / TABLE}", *columns, about, *SMALL, out=out)
    return out


@pytest.mark.whole
def test_a_run_about_names_with_dots_can_be_read(run: Path):
    loaded = results.load(run)
    assert loaded.scenario.data.target == OUTCOME
    assert Path(str(loaded.scenario.data.path)).name == TABLE
    assert set(loaded.scenario.data.ranges or {}) == {COLUMN, LEVELS}
    assert {"St. Mary No. 0.a.b.c.d.e.f", "St. Mary No. 1.a.b.c.d.e.f"} < set(loaded.sites["site"])


@pytest.mark.whole
@pytest.mark.parametrize("words", [["report"], ["show", "run"], ["show"], ["show", "scenario"]], ids=" ".join)
def test_its_commands_work(run: Path, words: list[str]):
    thing = run / "scenario.toml" if words[-1] == "scenario" else run
    done = CliRunner().invoke(app, [*words, str(thing)])
    assert done.exit_code == 0, done.output


@pytest.mark.whole
def test_an_interrupted_run_goes_on(run: Path):
    before = results.load(run)
    (run / "manifest.json").unlink()
    again = resume(run)
    assert again.sites.equals(before.sites)


@pytest.mark.whole
def test_its_scenario_can_be_run_again(run: Path):
    scenario = read(run / "scenario.toml")
    text = (run / "scenario.toml").read_text()
    assert max(line.count(".") for line in text.splitlines()) > 8
    assert scenario == results.load(run).scenario
