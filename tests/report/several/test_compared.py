"""Runs side by side on one page."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from fedsim.mistakes import Mistake
from fedsim.report.findings import Numbers
from fedsim.report.several import compared
from fedsim.results.run_directory import Run
from fedsim.scenario.schema import Scenario
from tests.runs import make_run, spending


def two(tmp_path: Path) -> list[Run]:
    first = make_run(tmp_path / "first")
    second = spending(make_run(tmp_path / "second"), 2.0)
    values = second.scenario.values()
    values["privacy"]["epsilon"] = 2.0
    return [first, replace(second, scenario=Scenario.model_validate(values))]


def test_a_page_has_the_difference_of_the_scenarios_and_a_frontier(tmp_path: Path) -> None:
    text = compared.write(two(tmp_path), tmp_path / "page.html").read_text()
    assert "privacy.epsilon" in text
    assert 'aria-label="AUC inside sites of every arm against epsilon' in text
    assert not re.search(r'(src|href)="(?!#)', text)
    assert "have no verdict" in text


def test_figures_are_those_of_the_runs(tmp_path: Path) -> None:
    runs = two(tmp_path)
    rows = compared.figures_of([Numbers(run) for run in runs], compared.names_of(runs))
    mean = Numbers(runs[1]).of("mean", True, "federated")
    row = next(row for row in rows if row["run"] == "second" and row["private"] and row["arm"] == "federated")
    assert (row["mean"], row["low"], row["high"]) == (mean.mean, mean.low, mean.high)
    frame = compared.frontier_of(rows)
    assert set(frame["epsilon"].dropna()) == {8.0, 2.0}
    assert not frame.duplicated(["arm", "epsilon"]).any()


def test_a_run_is_not_compared_with_itself(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(Mistake, match="twice"):
        compared.write([run, run], tmp_path / "page.html")
