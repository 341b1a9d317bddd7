"""``--task`` and ``--strategy`` with files of the user's, alike in all commands."""

import json
from pathlib import Path

import pytest

from fedsim.scenario import catalog
from tests.given import SOURCE, written

QUICK = ["--set", "training.rounds=1", "--quiet"]
STRATEGIES = '''
from dataclasses import dataclass

from fedsim.strategy import Strategy


@dataclass(frozen=True)
class Halfway(Strategy):
    """Goes half of the way."""

    def aggregate(self, center, updates, weights, state):
        return center + 0.5 * (weights @ (updates - center)), state


@dataclass(frozen=True)
class Still(Strategy):
    """Stays."""

    def aggregate(self, center, updates, weights, state):
        return center, state
'''


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(catalog, "_allowed", set())
    monkeypatch.setattr(catalog, "_own_tasks", {})
    written(tmp_path)
    (tmp_path / "my_strategies.py").write_text(STRATEGIES)


def test_a_task_in_a_file_is_shown(fedsim):
    shown = fedsim("show", "my_tasks.py:falls")
    assert shown.code == 0, shown.err
    assert "title:   Falls" in shown.out
    assert "3 sites, 120 rows" in shown.out
    told = json.loads(fedsim("show", "task", "my_tasks.py:falls", "--json").out)
    assert (told["name"], told["title"]) == ("my_tasks.py:falls", "Falls")
    assert "Goes half of the way" in fedsim("show", "my_strategies.py:Halfway").out


def test_a_class_of_several_in_a_file_is_named(fedsim):
    checked = fedsim("check", "my_strategies.py:Halfway")
    assert (checked.code, checked.err) == (0, "")
    several = fedsim("check", "my_strategies.py")
    assert several.code == 2
    assert "got Halfway, Still" in several.err
    wrong = fedsim("check", "my_strategies.py:Halfwy")
    assert (wrong.code, wrong.out) == (2, "")
    assert "expected a class; did you mean 'Halfway'?" in wrong.err


@pytest.mark.parametrize("words", [["run"], ["show"], ["compare"], ["sweep"], ["tune"], ["audit"]])
def test_a_file_that_is_not_there_is_told_by_all_commands(fedsim, words: list[str]):
    told = fedsim(*words, "hospital-heart", "--task", "nowhere.py:falls")
    assert (told.code, told.out) == (2, "")
    assert "nowhere.py: expected a Python file, there is none" in told.err


def test_a_scenario_never_holds_code(fedsim):
    Path("mine.toml").write_text('title = "t"\ntask = "my_tasks.py:falls"\n')
    told = fedsim("run", "mine.toml")
    assert (told.code, told.out) == (2, "")
    named = "--task my_tasks.py:falls, or task='my_tasks.py:falls' in Python"
    assert f"task: my_tasks.py:falls is code; name it: {named}" in told.err
    set_so = fedsim("run", "hospital-heart", "--set", "task=my_tasks.py:falls")
    assert "task: my_tasks.py:falls is code" in set_so.err


@pytest.mark.whole
@pytest.mark.usefixtures("charts_undrawn")
def test_a_task_and_a_strategy_in_files_run_and_go_along(fedsim, monkeypatch: pytest.MonkeyPatch):
    words = ["--task", "my_tasks.py:falls", "--strategy", "my_strategies.py:Halfway"]
    ran = fedsim("run", *words, *QUICK, "--seeds", "1", "--out", "mine")
    assert ran.code == 0, ran.err
    assert fedsim("show", "mine").code == 0
    assert fedsim("report", "mine").code == 0
    exported = fedsim("export", "mine", "--to", "model", *words)
    assert exported.code == 0, exported.err

    Path("s.toml").write_text('title = "t"\n')
    compared = fedsim(
        "compare", "s.toml", *words[:2], "--strategy", "fedavg,my_strategies.py:Halfway", *QUICK, "--seeds", "1"
    )
    assert compared.code == 0, compared.err
    assert "my_strategies.py:Halfway" in compared.out
    assert "--task my_tasks.py:falls" in Path("runs/tournament/tournament.html").read_text()

    Path("my_tasks.py").write_text(f"{SOURCE}# changed\n")
    monkeypatch.setattr(catalog, "_own_tasks", {})
    changed = fedsim("export", "mine", "--to", "again", *words)
    assert changed.code == 2
    assert "its file has changed" in changed.err
