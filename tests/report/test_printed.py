"""Printed by a browser, the report has few pages, and the privacy statement one."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fedsim.experiments.experiment import execute
from fedsim.flower.traffic import UP
from fedsim.report import page, statement_page
from fedsim.report.leaving import table
from fedsim.results.run_directory import Run, load
from fedsim.scenario.files import read

BROWSER = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
MOST_PAGES = 8


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    small = ["training.rounds=2", "seeds=3", "privacy.noise_multiplier=3", "privacy.epsilon=900"]
    return execute(read("hospital-heart", small), tmp_path_factory.mktemp("run") / "run")


def pages_of(html: Path, pdf: Path) -> int:
    """Print a page and return the number of sheets."""
    assert BROWSER
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer")
    subprocess.run([BROWSER, *quiet, f"--print-to-pdf={pdf}", f"file://{html}"], check=True, capture_output=True)
    return len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes()))


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="there is no chromium")
def test_the_report_has_at_most_eight_pages_and_the_statement_one(run: Run, tmp_path: Path) -> None:
    assert 2 <= pages_of(page.write(run), tmp_path / "report.pdf") <= MOST_PAGES
    assert pages_of(statement_page.write(run), tmp_path / "statement.pdf") == 1


@pytest.mark.slow
def test_what_left_is_counted_and_in_the_report(run: Run) -> None:
    """Each of four sites sends one model in each of two rounds; its size is that of the model, as Flower encodes it."""
    read_back = load(run.path)
    assert read_back.traffic is not None
    models = [line for line in table.lines(read_back) if line.direction == UP and line.fields == "weight, bias"]
    assert [line.messages for line in models] == [8, 8]
    assert {line.in_all for line in models} == {8 * models[0].in_a_round}
    assert table.size(models[0].in_a_round) in (run.path / page.FILE).read_text()
