"""The privacy statement alone, to hand on."""

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedsim.cli.commands import app
from fedsim.experiments.experiment import execute
from fedsim.mistakes import Mistake
from fedsim.report import page, statement_page
from fedsim.results.run_directory import load
from fedsim.scenario.files import read

pytestmark = pytest.mark.usefixtures("charts_undrawn")


@pytest.fixture(scope="module")
def run_once(charts_undrawn: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    small = ["training.rounds=1", "seeds=1", 'arms=["federated"]', "privacy.noise_multiplier=3", "privacy.epsilon=900"]
    return execute(read("hospital-heart", small), tmp_path_factory.mktemp("run") / "run").path


@pytest.fixture
def run(run_once: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run_once, tmp_path / "run")


def terms_in(path: Path) -> list[str]:
    return re.findall(r"<d[td]>(.*?)</d[td]>", path.read_text())


@pytest.mark.whole
def test_it_says_what_the_report_says_and_loads_nothing(run: Path):
    written = statement_page.write(load(run))
    terms = terms_in(written)
    assert len(terms) > 20
    report = page.write(load(run, [page.FILE])).read_text()
    assert all(f">{term}</d" in report for term in terms)
    assert "Epsilon" in terms
    assert 'src="http' not in written.read_text()
    assert load(run).manifest["files"]["ledger.json"] in written.read_text()


@pytest.mark.whole
def test_a_run_without_privacy_says_so(tmp_path: Path):
    small = ["training.rounds=1", "seeds=1", 'arms=["federated"]', "privacy.unit=none"]
    run = execute(read("hospital-heart", small), tmp_path / "run")
    assert "gives no privacy guarantee" in statement_page.write(run).read_text()


@pytest.mark.whole
def test_the_command_writes_it_and_it_is_sealed(run: Path):
    ended = CliRunner().invoke(app, ["report", str(run), "--statement"])
    assert ended.exit_code == 0, ended.output
    assert "statement.html" in ended.stdout
    assert "statement.html" in (run / "SHA256SUMS").read_text()
    (run / "statement.html").write_text("Epsilon 0")
    with pytest.raises(Mistake, match=r"statement\.html"):
        load(run)
    assert CliRunner().invoke(app, ["report", str(run), "--statement"]).exit_code == 0
    assert load(run).path == run


@pytest.mark.whole
def test_figures_and_tables_are_written_beside_the_run_and_the_seal_holds(run: Path, tmp_path: Path):
    ended = CliRunner().invoke(app, ["report", str(run), "--files", str(tmp_path / "figures")])
    assert ended.exit_code == 0, ended.output
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"arms.csv", "leaving.csv", "statement.csv", "arms-inside.svg", "arms-inside.png"} <= names
    assert load(run).path == run


@pytest.mark.whole
def test_several_runs_are_compared_outside_their_directories(run: Path, tmp_path: Path):
    other = shutil.copytree(run, tmp_path / "other")
    ended = CliRunner().invoke(app, ["report", str(run), str(other), "--out", str(tmp_path / "both")])
    assert ended.exit_code == 0, ended.output
    assert "2 runs compared" in (tmp_path / "both" / "comparison.html").read_text()
    assert load(run).path == run
    assert load(other).path == other


@pytest.mark.whole
@pytest.mark.parametrize("wrong", [["--out", "x"], ["--statement", "--files", "x"], ["other", "--files", "x"]])
def test_an_option_without_effect_is_an_error(run_once: Path, wrong: list[str]):
    ended = CliRunner().invoke(app, ["report", str(run_once), *wrong])
    assert isinstance(ended.exception, Mistake)
