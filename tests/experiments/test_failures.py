"""A training that fails ends no other: the run reports the rest, says what failed, and tries it again."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedsim.cli.commands import app
from fedsim.experiments import trainings
from fedsim.experiments.arms import Job, Trained, run_job
from fedsim.experiments.experiment import execute, resume
from fedsim.mistakes import Mistake, RunFailed
from fedsim.planning.checks import check
from fedsim.planning.time_limit import limited
from fedsim.results import run_directory as results
from fedsim.scenario.changes import with_strategy
from fedsim.scenario.files import read
from fedsim.scenario.schema import Scenario

pytestmark = pytest.mark.usefixtures("charts_undrawn")

SMALL = ("training.rounds=2", "privacy.noise_multiplier=3.0", "privacy.epsilon=900", "seeds=2")
Failing = Callable[[Job], bool]

WHICH: dict[str, Failing] = {
    "one": lambda job: job == Job("local", False, 1),
    "the one whose model is handed on": lambda job: job == Job("federated", True, 0),
    "an arm": lambda job: job.arm == "centralized",
    "an arm, plain": lambda job: job.arm == "federated" and not job.private,
    "an arm, private": lambda job: job.arm == "federated" and job.private,
    "all that are plain": lambda job: not job.private,
    "all that are private": lambda job: job.private,
    "a seed": lambda job: job.seed == 0,
    "all but one": lambda job: job != Job("local", False, 1),
}


TRAINED: dict[tuple[str, Job], Trained] = {}
"""What came of a training, so that no test waits for the same one again."""


def failing(monkeypatch: pytest.MonkeyPatch, fails: Failing, error: Exception) -> list[Job]:
    """Let some trainings fail; return those that are run, or are told to have been, as they are."""
    ran: list[Job] = []

    def train(scenario: Scenario, job: Job, *more: Any) -> Trained:
        ran.append(job)
        if fails(job):
            raise error
        about = (scenario.model_dump_json(), job)
        if about not in TRAINED:
            TRAINED[about] = run_job(scenario, job, *more)
        return TRAINED[about]

    monkeypatch.setattr(trainings, "run_job", train)
    return ran


@pytest.mark.whole
@pytest.mark.parametrize("which", WHICH)
def test_the_rest_is_reported_and_resume_tries_what_failed(which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    scenario, fails = read("hospital-heart", SMALL), WHICH[which]
    ran = failing(monkeypatch, fails, ZeroDivisionError("by nothing"))
    run = execute(scenario, tmp_path / "run")
    failed = [job for job in ran if fails(job)]
    assert len(ran) == len(set(ran)) == 12
    assert [Job(one["arm"], one["private"], one["seed"]) for one in run.failed] == failed
    for one in run.failed:
        text = "" if one["private"] else ": by nothing"  # it may hold values of a row
        assert one["reason"].startswith(f"ZeroDivisionError{text} (test_failures.py:")
    page = (run.path / "report.html").read_text("utf-8")
    assert "Failed, and not in these figures: " in page
    assert ("ZeroDivisionError: by nothing" in page) == any(not job.private for job in failed)
    assert ("the centralized arm failed." in page) == (which == "an arm")
    assert "was not run" not in page

    ran = failing(monkeypatch, lambda job: False, ValueError())
    again = resume(run.path)
    assert ran == failed
    assert again.failed == []
    assert "Failed, and not" not in (run.path / "report.html").read_text("utf-8")
    assert results.load(run.path).manifest == again.manifest


@pytest.mark.whole
def test_what_is_finished_has_the_figures_that_it_would_have_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    scenario = read("hospital-heart", SMALL)
    whole = execute(scenario, tmp_path / "whole")
    failing(monkeypatch, WHICH["one"], RunFailed("no site answered"))
    part = execute(scenario, tmp_path / "part")
    kept = whole.sites[(whole.sites["arm"] != "local") | whole.sites["private"] | (whole.sites["seed"] != 1)]
    assert part.sites.equals(kept.reset_index(drop=True))
    monkeypatch.undo()
    again = resume(part.path)
    for name in ("model.safetensors", "sites.parquet", "rounds.parquet", "groups.parquet", "ledger.json"):
        assert (again.path / name).read_bytes() == (whole.path / name).read_bytes()


@pytest.mark.whole
@pytest.mark.parametrize("error", [Mistake("too few sites"), RunFailed("no site answered"), TypeError("odd")])
def test_where_nothing_is_finished_there_is_no_report_but_the_reason(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    failing(monkeypatch, lambda job: True, error)
    with pytest.raises(Mistake if isinstance(error, Mistake) else RunFailed, match=str(error)):
        execute(read("hospital-heart", [*SMALL, 'arms=["federated"]']), tmp_path / "run")
    assert not (tmp_path / "run" / "manifest.json").exists()
    monkeypatch.undo()
    assert resume(tmp_path / "run").failed == []


@pytest.mark.whole
def test_the_command_ends_with_a_line_and_the_exit_code_of_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    failing(monkeypatch, WHICH["one"], RunFailed("no site answered"))
    words = ["run", "hospital-heart", "--out", str(tmp_path / "run"), "--seeds", "3"]
    words += ["--set", "training.rounds=2", "--set", "privacy.unit=none"]
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == 1
    lines = ended.stderr.splitlines()
    assert lines[-2:] == [
        "fedsim: Failed, and not in these figures: local, without privacy, seed 1. The reason: no site answered",
        f"fedsim: try what failed again with: fedsim resume {tmp_path / 'run'}",
    ]
    assert "Traceback" not in ended.output
    shown = CliRunner().invoke(app, ["show", str(tmp_path / "run"), "--json"])
    assert json.loads(shown.stdout)["failed"] == [
        {"arm": "local", "private": False, "seed": 1, "reason": "no site answered"}
    ]


DIVERGING = {
    "centralized": ("centralized", ()),
    "local": ("local", ()),
    "personal": ("federated", ("strategy={name='ditto', lambda_=1e30}",)),
}


@pytest.mark.parametrize("which", DIVERGING)
def test_a_training_that_diverges_is_a_failure_with_its_round(which: str):
    arm, changes = DIVERGING[which]
    decay = () if changes else ("training.optimizer.weight_decay=1e30",)
    scenario = read("hospital-heart", ["privacy.unit=none", "training.rounds=5", *changes, *decay])
    with pytest.raises(RunFailed, match=r"round \d: the .*model.* is no longer finite: the training diverged"):
        run_job(scenario, Job(arm, False, 0), lambda number: None)  # type: ignore[arg-type]


@pytest.mark.whole
def test_a_loss_that_blows_up_is_a_caution(tmp_path: Path):
    attacked = "attack={name='sign-flip', factor=1e6, share=0.25}"
    scenario = read("hospital-heart", ["privacy.unit=none", "training.rounds=3", "seeds=3", attacked])
    run = execute(scenario, tmp_path / "run")
    assert "Such a training has blown up" in (run.path / "report.html").read_text("utf-8")


HANGS = """
import time

class Hangs:
    calls = 0

    def aggregate(self, center, updates, weights, state):
        Hangs.calls += 1
        if Hangs.calls == NUMBER:
            time.sleep(600)
        return center, {}
"""


def hanging(folder: Path, at_call: int, seconds: float = 2) -> Scenario:
    path = folder / "hangs.py"
    path.write_text(HANGS.replace("NUMBER", str(at_call)))
    limit = f"limits.round_seconds={seconds}"
    return read("hospital-heart", [*SMALL[:1], "seeds=1", "privacy.unit=none", limit, with_strategy(str(path))])


@pytest.mark.whole
def test_a_round_that_hangs_ends_its_training_and_no_other(tmp_path: Path):
    run = execute(hanging(tmp_path, at_call=3), tmp_path / "run")  # the first call is a trial before the run
    (failed,) = run.failed
    assert failed["arm"] == "federated"
    assert failed["reason"].startswith("round 2 took more than the 2 seconds of limits.round_seconds")


SWALLOWS = """
import time

class Swallows:
    calls = 0

    def aggregate(self, center, updates, weights, state):
        Swallows.calls += 1
        while Swallows.calls == 3:
            try:
                time.sleep(0.01)
            except Exception:
                pass
        return updates.mean(0), {}
"""


@pytest.mark.whole
def test_a_strategy_that_swallows_errors_is_ended_too(tmp_path: Path):
    path = tmp_path / "swallows.py"
    path.write_text(SWALLOWS)
    changes = ["training.rounds=2", "seeds=1", "privacy.unit=none", "limits.round_seconds=1"]
    run = execute(read("hospital-heart", [*changes, with_strategy(str(path))]), tmp_path / "run")
    (failed,) = run.failed
    assert failed["reason"].startswith("round 2 took more than the 1 seconds of limits.round_seconds")


@pytest.mark.parametrize("seconds", ["1e-7", "0", "1e10", "nan"])
def test_a_limit_that_no_round_or_no_clock_can_keep_is_refused(seconds: str):
    with pytest.raises(Mistake, match=r"limits\.round_seconds: expected a (finite )?number"):
        read("hospital-heart", [f"limits.round_seconds={seconds}"])


@pytest.mark.whole
def test_a_strategy_that_hangs_while_it_is_made_is_refused(tmp_path: Path):
    """Also where its own guards, and ours, catch whatever is raised."""
    path = tmp_path / "hangs.py"
    hook = "def local_rule(self):\n        import time\n        time.sleep(600)\n"
    path.write_text(f"class Hangs:\n    def aggregate(self, *all): pass\n    {hook}")
    slow = read("hospital-heart", ["privacy.unit=none", "limits.round_seconds=0.5", with_strategy(str(path))])
    with pytest.raises(Mistake, match=r"a trial of it took more than the 0\.5 seconds of limits\."):
        check(slow)


ODD_CLASSES = {
    "a hook that raises": ("def local_rule(self): raise ValueError('own bug')", "ValueError: own bug"),
    "a hook that lacks something": ("def second_rule(self): return self.x", "AttributeError"),
    "a subclass that is refused": ("def __init_subclass__(cls, **more): raise TypeError('final')", "TypeError: final"),
    "attributes that raise": ("def __getattribute__(self, name): raise LookupError(name)", "LookupError"),
    "an error without a text": (
        "def aggregate(self, *all):\n"
        "        class Odd(Exception):\n            def __str__(self): raise ValueError\n        raise Odd",
        "Odd: its text can't be made",
    ),
    "an error that is no Exception": (
        "def aggregate(self, *all):\n        class Odd(BaseException): pass\n        raise Odd('base')",
        "Odd: base",
    ),
}


@pytest.mark.parametrize("name", ODD_CLASSES)
def test_odd_classes_of_strategies_end_in_a_line_with_its_place(name: str, tmp_path: Path):
    body, said = ODD_CLASSES[name]
    path = tmp_path / "odd.py"
    usual = "def aggregate(self, center, updates, weights, state): return center, {}"
    path.write_text(f"class Odd:\n    {usual}\n    {body}\n")
    with pytest.raises(Mistake, match=said) as caught:
        check(read("hospital-heart", ["privacy.unit=none", with_strategy(str(path))]))
    assert "(odd.py:" in str(caught.value)


def test_a_strategy_that_hangs_is_refused(tmp_path: Path):
    strategy = hanging(tmp_path, at_call=1, seconds=0.5)
    with pytest.raises(Mistake, match=r"hangs\.py: a trial of it took more than the 0\.5 seconds of limits\."):
        check(strategy)


def test_a_limit_in_a_thread_is_refused_and_none_is_not(tmp_path: Path):
    with (
        ThreadPoolExecutor(1) as pool,
        pytest.raises(Mistake, match=r"limits\.round_seconds: expected none in a thread"),
    ):
        pool.submit(lambda: limited(2.0, print).__enter__()).result()
    told: list[int] = []
    with ThreadPoolExecutor(1) as pool, limited(None, told.append) as tell:
        pool.submit(lambda: tell(3)).result()
    assert told == [3]
