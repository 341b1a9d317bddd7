"""A finished run is explained from its checkpoints and its rows; its seal holds, and its report shows the features."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fedsim.cli import commands
from fedsim.experiments import experiment
from fedsim.experiments.explanations.explain import explain
from fedsim.mistakes import Mistake
from fedsim.results.evaluation import INSIDE
from fedsim.results.explained.table import FILE, GRADIENTS, PERMUTATION, PICTURE, read
from fedsim.results.run_directory import load
from fedsim.scenario import files

SMALL = ("training.rounds=2", "seeds=1", "arms=[federated, local]")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, charts_undrawn: None) -> Path:
    folder = tmp_path_factory.mktemp("explained") / "run"
    return experiment.execute(files.read("hospital-heart", [*SMALL]), folder).path


@pytest.mark.whole
def test_the_command_adds_a_table_a_picture_and_a_section_and_seals_them(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert "Which features drive the models?" not in (run_dir / "report.html").read_text("utf-8")
    monkeypatch.setattr(sys, "argv", ["fedsim", "explain", str(run_dir)])
    with pytest.raises(SystemExit) as stop:
        commands.main()
    assert not stop.value.code
    printed = capsys.readouterr().out
    assert "no epsilon covers them" in " ".join(printed.split())

    finished = load(run_dir)  # the seal holds
    sealed = (run_dir / "SHA256SUMS").read_text("utf-8")
    assert f"  {FILE}\n" in sealed
    assert f"  {PICTURE}\n" in sealed
    table = read(run_dir)
    assert table is not None
    assert set(table["arm"]) == {"federated", "local"}
    assert set(table["private"]) == {True, False}
    assert set(table["method"]) == {PERMUTATION, GRADIENTS}
    assert set(table["site"]) == {INSIDE, *set(finished.sites["site"]) - set(finished.TOGETHER)}
    page = (run_dir / "report.html").read_text("utf-8")
    assert "Which features drive the models?" in page
    assert "nothing of causes" in page
    assert "no epsilon covers them" in page

    with (run_dir / FILE).open("a") as file:
        file.write("\n")
    with pytest.raises(Mistake, match="has changed since it was made"):
        load(run_dir)
    monkeypatch.setattr(sys, "argv", ["fedsim", "explain", str(run_dir), "--json"])
    with pytest.raises(SystemExit) as stop:  # it is made anew, whatever it holds
        commands.main()
    assert not stop.value.code
    load(run_dir)


@pytest.mark.whole
def test_rows_or_models_that_give_other_figures_are_refused(run_dir: Path):
    finished = load(run_dir, made_anew=[FILE, PICTURE, "report.html"])
    others = finished.sites.assign(log_loss=finished.sites["log_loss"] + 0.1)
    with pytest.raises(Mistake, match="expected the figures of federated-plain-0 that the run has"):
        explain(replace(finished, sites=others))
