import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedsim.scenario import catalog

pytestmark = pytest.mark.usefixtures("charts_undrawn")

SMALL = ["--set", "training.rounds=1", "--set", "privacy.epsilon=1", "--seeds", "2"]


@pytest.mark.whole
def test_a_run_prints_one_json_document_and_nothing_else(fedsim):
    ran = fedsim("run", "hospital-heart", *SMALL, "--json", "--seeds", "3")
    assert ran.code == 0
    assert ran.err == ""
    document = json.loads(ran.out)
    assert list(document) == [
        *("run_dir", "scenario", "kind", "data", "seeds", "arms", "base_answer", "threshold", "cautions"),
        "failed",
        *("intervals", "delta", "epsilon"),
    ]
    assert (document["base_answer"], document["threshold"]) == ("always answering positive", 0.5)
    for arm in document["arms"]:
        assert arm["over_base"]["difference"] == pytest.approx(arm["mean"] - arm["over_base"]["base"])
    assert (document["scenario"], document["seeds"], document["delta"]) == ("hospital-heart", [0, 1, 2], 1e-4)
    kinds = {(arm["arm"], arm["private"], arm["metric"]) for arm in document["arms"]}
    assert len(kinds) == len(document["arms"]) == 3 * 2 * 3
    first = document["arms"][0]
    assert (first["arm"], first["private"], first["metric"]) == ("federated", False, "auc")
    assert first["low"] < first["mean"] < first["high"]
    assert first["over"] == "(inside sites)"
    assert first["pooled"]["mean"] != first["mean"]
    assert first["difference_low"] < first["difference_here_low"] < first["difference_here_high"]
    assert document["intervals"] == {
        "low, high": "at institutions like these",
        "here_low, here_high": "on these records",
    }
    accuracy = next(arm for arm in document["arms"] if arm["metric"] == "accuracy")
    assert accuracy["pooled"]["mean"] == accuracy["mean"]
    assert set(first["sites"]) == set(document["epsilon"])
    assert all(0.98 < value <= 1 for value in document["epsilon"].values())
    again = fedsim("show", "run", document["run_dir"], "--json")
    assert json.loads(again.out) == document


@pytest.mark.whole
def test_a_run_ends_with_tables_and_the_report(fedsim):
    ran = fedsim("run", "hospital-heart", *SMALL, "--set", "privacy.unit=none")
    assert ran.code == 0
    assert ran.err == ""
    assert "AUC at each site" in ran.out
    assert "Nobody can be said to gain or lose by this run: the AUC inside sites is" in ran.out
    assert "Means over 2 seeds: two seeds give no verdict." in ran.out
    assert "±" not in ran.out
    assert "No privacy guarantee" in ran.out
    report = Path(re.search(r"report: (.*)", ran.out)[1])  # type: ignore[index]
    assert report.exists()
    report.unlink()
    assert fedsim("report").out.strip() == f"report: {report}"
    assert report.exists()
    assert json.loads(fedsim("report", str(report.parent), "--json").out)["report"] == str(report)


@pytest.mark.whole
def test_output_that_is_piped_has_no_escape_codes(tmp_path: Path):
    command = [sys.executable, "-m", "fedsim", "run", "hospital-heart", *SMALL, "--epsilon", "none", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("kind", ["scenarios", "tasks", "strategies", "attacks", "engines", "trackers"])
def test_lists_have_names_and_titles(fedsim, kind: str):
    found = json.loads(fedsim("list", kind, "--json").out)
    assert found
    assert all(set(item) == {"name", "title"} for item in found)
    assert found[0]["name"] in fedsim("list").out
    assert found[0]["title"] in fedsim("list", kind).out


@pytest.mark.parametrize(
    "words",
    [
        ["hospital-heart"], ["scenario", "hospital-heart"], ["task", "hospital/heart"], ["fedavg"],
        ["strategy", "fedavg"], ["sign-flip"], ["engine", "serial"], ["hospital/heart-complete"],
        ["tracker", "tensorboard"], ["mlflow"],
    ],
)  # fmt: skip
def test_everything_listed_can_be_shown(fedsim, words: list[str]):
    ran = fedsim("show", *words)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.strip()
    assert isinstance(json.loads(fedsim("show", *words, "--json").out), dict)


def test_a_task_card_has_rows_and_rates(fedsim):
    card = json.loads(fedsim("show", "hospital/heart", "--json").out)
    assert card["sites"]["switzerland"] == {"rows": 123, "positive": 0.935}
    assert card["columns"][0] == {"name": "age", "range": "20 to 100 years", "may be missing": False, "missing": None}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "hospital-hart"], "did you mean 'hospital-heart'?"),
        (["run", "none.toml"], "none.toml: expected a scenario file, there is none"),
        (["run", "hospital-heart", "--set", "privacy.epsilon=-1"], "expected a number > 0, got -1"),
        (["run", "hospital-heart", "--seeds", "0"], "seeds: expected a number >= 1, got 0"),
        (["run", "hospital-heart", "--set", "strategy.beta=1"], "fedavg has no such hyperparameter"),
        (["list", "things"], "expected one of scenarios, tasks, strategies, attacks, engines"),
        (["show", "nothing"], "expected a scenario, task, strategy, engine or run directory"),
        (["show", "a", "b", "c"], "show: expected [scenario|task|strategy|attack|engine|audit|unit|tracker|run] NAME"),
        (["report", "nowhere"], "nowhere: expected a run directory, there is none"),
        (["report"], "no finished run under runs/"),
        (["resume", "nowhere"], "nowhere: expected an interrupted run"),
    ],
)
def test_a_mistake_is_a_line_and_exit_code_2(fedsim, words: list[str], message: str):
    ran = fedsim(*words)
    assert ran.code == 2
    assert ran.out == ""
    assert message in ran.err
    assert all(line.startswith("fedsim: ") for line in ran.err.splitlines())


def test_all_mistakes_of_a_scenario_are_lines(fedsim):
    ran = fedsim("run", "hospital-heart", "--set", "privacy.epsilon=-1", "--set", "training.ronds=1")
    assert len(ran.err.splitlines()) == 2


@pytest.mark.whole
def test_a_folder_that_can_not_be_written_is_a_line(fedsim, tmp_path: Path):
    (tmp_path / "file").write_text("")
    ran = fedsim("run", "hospital-heart", *SMALL, "--out", "file/run")
    assert ran.code == 1
    assert "file/run: Not a directory" in ran.err


@pytest.mark.parametrize("name", ["scenario.toml", "manifest.json"])
def test_a_tournament_is_not_written_into_a_run(fedsim, tmp_path: Path, name: str):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("{}")
    ran = fedsim("compare", "hospital-heart", "--out", "mine")
    assert (ran.code, ran.err) == (2, "fedsim: --out: mine: expected a folder of its own, a run is in it\n")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == [name]


@pytest.mark.whole
def test_a_strategy_that_goes_elsewhere_when_it_is_loaded_moves_no_output(fedsim, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    own = "import os\nos.chdir('elsewhere')\nfrom strategies.fedavg import FedAvg\nclass Moves(FedAvg):\n    pass\n"
    (tmp_path / "moves.py").write_text(own)
    ran = fedsim("run", "hospital-heart", *SMALL, "--strategy", "moves.py", "--out", "mine")
    assert (ran.code, ran.err) == (0, "")
    assert (tmp_path / "mine" / "manifest.json").exists()
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.whole
def test_a_bug_shows_its_traceback(fedsim, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fedsim.experiments.experiment.train_all", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fedsim("run", "hospital-heart", *SMALL)


@pytest.mark.whole
def test_ctrl_c_says_how_to_go_on(fedsim, monkeypatch: pytest.MonkeyPatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("fedsim.experiments.trainings.run_job", stop)
    ran = fedsim("run", "hospital-heart", *SMALL, "--out", "here")
    assert ran.code == 130
    assert ran.err == "fedsim: interrupted; go on with: fedsim resume here\n"


def test_help_names_every_command(fedsim):
    ran = fedsim("--help")
    assert all(name in ran.out for name in ("run", "resume", "list", "show", "report"))


@pytest.mark.whole
def test_the_epsilon_shown_is_what_was_spent_rounded_up(fedsim):
    small = ["--set", "training.rounds=1", "--set", "privacy.noise_multiplier=4", "--seeds", "1"]
    ran = fedsim("run", "hospital-heart", *small, "--set", 'arms=["centralized","local"]', "--out", "here")
    assert "Epsilon of one record, centralized: 0.61 at each site (delta 0.0001)." in ran.out
    assert re.search(r"local +0\.61 ", ran.out)
    assert "No privacy guarantee" not in ran.out
    spent = json.loads(fedsim("show", "here", "--json").out)["epsilon"]
    assert list(spent) == ["pooled"]
    assert 0.60 < spent["pooled"] <= 0.61


@pytest.mark.whole
def test_brackets_are_no_markup(fedsim):
    ran = fedsim("run", "hospital-heart", *SMALL, "--set", "privacy.unit=none", "--set", "title=a [/b] [red]c")
    assert ran.code == 0
    assert "a [/b] [red]c" in ran.out


def test_a_run_that_is_not_finished_is_said_to_be_so(fedsim, tmp_path: Path):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "scenario.toml").write_text("")
    assert "this run is not finished; go on with: fedsim resume half" in fedsim("show", "half").err


@pytest.mark.whole
def test_show_draws_the_sites(fedsim, tmp_path: Path):
    ran = fedsim("show", "task", "hospital/heart", "--picture", "card.png")
    assert (ran.code, ran.err) == (0, "")
    assert "picture: card.png" in ran.out
    assert (tmp_path / "card.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(fedsim("show", "hospital-heart", "--out", "two.png", "--json").out)["picture"] == "two.png"
    refused = fedsim("show", "synthetic/tabular", "--picture", "none.png")
    assert refused.code == 2
    assert "--picture: expected a scenario or task whose sites have rows to draw, got synthetic/tabular" in refused.err


@pytest.mark.whole
def test_many_sites_are_not_all_listed(fedsim):
    words = ("hospital-heart", *SMALL, "--set", "privacy.unit=none", "--set", "training.expected_batch=8")
    ran = fedsim("run", *words, "--set", 'partition={by="iid",sites=50}')
    assert ran.code == 0
    assert "AUC at each site, the 40 with the most test rows of 50" in " ".join(ran.out.split())
    assert len(re.findall(r"^ site-\d\d ", ran.out, re.MULTILINE)) == 40


@pytest.mark.whole
@pytest.mark.parametrize("name", catalog.titles("strategies"))
def test_what_a_strategy_keeps_fits_80_columns_when_piped_and_is_said_in_full(fedsim, name: str):
    ran = fedsim("check", name)
    assert (ran.code, ran.err) == (0, "")
    assert max(map(len, ran.out.splitlines())) <= 80
    checks = json.loads(fedsim("check", name, "--json").out)["checks"]
    assert set(" ".join(f"{one['name']} {one['detail']}" for one in checks).split()) <= set(ran.out.split())
