"""What a run says in a terminal: the answer in words, cautions, and lines that are not cut inside words."""

import io
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from fedsim.cli import commands
from fedsim.cli.cards import card
from fedsim.cli.output import print_lines, print_places, print_table
from fedsim.cli.run import print_run
from fedsim.cli.terminal import arms_table, closing_lines
from fedsim.report.findings import in_short
from fedsim.results.run_directory import Run
from tests.runs import BETTER, first_seeds, make_run, one_seed

WIDTH = 80


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("COLUMNS", str(WIDTH)), ("TERM", "xterm"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)


def shown(show: Callable[[], None]) -> str:
    """Return what a terminal of 80 columns shows."""
    stream = Terminal()
    with redirect_stdout(stream):
        show()
    return plain(stream.getvalue())


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"), {("federated", True): BETTER})


def test_a_run_ends_in_the_answer_in_words_broken_between_words(run: Run):
    text = shown(lambda: print_run(run, as_json=False))
    flowing = " ".join(text.split())
    for sentence in in_short(run):
        assert sentence in flowing, "a word is cut, or a sentence is missing"

    start = text.index(in_short(run)[0][:30])
    *prose, place, report = text[start:].rstrip().splitlines()
    assert max(map(len, prose)) <= WIDTH
    assert place.endswith(str(run.path))
    assert report.endswith("report.html")


def test_in_a_pipe_each_sentence_is_a_line(run: Run, capsys: pytest.CaptureFixture[str]):
    print_lines(closing_lines(run))
    assert capsys.readouterr().out.splitlines() == list(closing_lines(run))


def test_a_path_is_never_broken():
    path = Path("/somewhere") / "/".join(["a long name of a folder"] * 6) / "report.html"
    text = shown(lambda: print_places({"run": path.parent, "report": path}))
    assert f"report: {path}\n" in text


@pytest.mark.parametrize(("seeds", "caution"), [(1, "one seed gives no interval"), (2, "two seeds give no verdict")])
def test_few_seeds_are_said_to_say_little_and_no_interval_is_shown(run: Run, seeds: int, caution: str):
    few = one_seed(run) if seeds == 1 else first_seeds(run, 2)
    table = shown(lambda: print_table(arms_table(few)))
    assert "centralized" in table
    assert "±" not in table
    closing = list(closing_lines(few))
    assert any(caution in line and "may be chance" in line for line in closing), closing


@pytest.mark.parametrize(("seeds", "caution"), [(1, "one seed gives no interval"), (2, "two seeds give no verdict")])
def test_that_there_are_few_seeds_is_said_once(run: Run, seeds: int, caution: str):
    few = one_seed(run) if seeds == 1 else first_seeds(run, 2)
    closing = " ".join(closing_lines(few))
    assert closing.count(caution) == 1
    assert closing.count("may be chance") == 1
    assert "cannot be told: ." not in closing


def test_with_more_seeds_it_is_said_what_the_margin_is(run: Run):
    assert "±" in shown(lambda: print_table(arms_table(run)))
    assert any("± half a 95 % interval" in line for line in closing_lines(run))


def test_few_sites_are_listed_and_not_summed_up():
    text = card("hospital/heart").text
    assert "4 sites, 920 rows\n" in text
    assert "half of them" not in text
    assert text.count(" rows, ") >= 4


def test_a_terminal_without_a_minus_sign_gets_a_hyphen(monkeypatch: pytest.MonkeyPatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    monkeypatch.setattr(sys, "argv", ["fedsim", "--version"])
    with pytest.raises(SystemExit):
        commands.main()
    sys.stdout.write("−0.002 ± 0.001 – é\n")
    sys.stdout.flush()
    assert raw.getvalue().decode("ascii").endswith("-0.002 +- 0.001 - ?\n")
