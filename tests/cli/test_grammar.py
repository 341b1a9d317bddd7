"""One grammar: what means something to one command means the same to all that take it."""

import json
import os
import re
import time
from pathlib import Path

import pytest

from fedsim.cli.help import OLD_NAMES
from fedsim.mistakes import Mistake
from fedsim.scenario.changes import value_of, with_attack, with_epsilon, with_strategy
from fedsim.scenario.files import read

QUICK = ["--set", "training.rounds=1", "--seeds", "1", "--set", 'arms=["federated"]', "--quiet"]


@pytest.mark.whole
def test_a_budget_is_asked_for_alike_in_run_and_compare(fedsim):
    ran = fedsim("run", "hospital-heart", "--epsilon", "2", *QUICK, "--out", "two")
    assert ran.code == 0, ran.err
    assert "Epsilon of one record, federated: 2.00 at each site" in ran.out
    compared = fedsim("compare", "hospital-heart", "--epsilon", "2", "--seeds", "1", "--set", "training.rounds=1")
    assert compared.code == 0, compared.err
    assert "epsilon 2" in compared.out
    for command in (["run", "hospital-heart"], ["compare", "hospital-heart"]):
        refused = fedsim(*command, "--epsilon", "much")
        assert (refused.code, refused.out) == (2, "")
        assert "--epsilon: expected none or a number > 0, e.g. 2, got 'much'" in refused.err


@pytest.mark.whole
def test_a_budget_of_none_means_no_privacy(fedsim):
    ran = fedsim("run", "hospital-heart", "--epsilon", "none", *QUICK, "--out", "none")
    assert "No privacy guarantee" in ran.out
    assert 'unit = "none"' in (Path("none") / "scenario.toml").read_text()


@pytest.mark.parametrize(
    ("own", "expected"),
    [("none", ["privacy.unit=record", "privacy.epsilon=2"]), ("client", ["privacy.unit=client", "privacy.epsilon=2"])],
)
def test_a_budget_is_of_the_scenarios_own_unit_or_of_records(own: str, expected: list[str]):
    assert with_epsilon("2", own) == expected


def test_a_budget_can_be_all_that_a_scenario_lacks(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text('title = "t"\ntask = "hospital/heart"\n[privacy]\nunit = "client"\ndelta = 1e-4\n')
    assert read(path, epsilon="3").privacy.epsilon == 3
    assert read(path, epsilon="3").privacy.unit == "client"
    assert read(path, epsilon="none").privacy.unit == "none"
    with pytest.raises(Mistake, match=r"epsilon: expected a number <= 1000, got 5000 \(--epsilon 5000\)"):
        read(path, epsilon="5000")


@pytest.mark.whole
def test_hyperparameters_are_said_alike_in_check_run_and_compare(fedsim):
    checked = fedsim("check", "krum:f=2")
    assert (checked.code, checked.err) == (0, "")
    assert "krum:f=2: keeps all" in checked.out
    assert (
        fedsim("check", "krum", "--set", "f=2", "--json").out
        == fedsim("check", "krum", "--set", "strategy.f=2", "--json").out
    )
    ran = fedsim("run", "synthetic-attacked", "--strategy", "krum:f=2", *QUICK, "--out", "krum")
    assert ran.code == 0, ran.err
    assert read("krum/scenario.toml").strategy.model_extra == {"f": 2}
    compared = fedsim("compare", "synthetic-attacked", "--strategy", "krum:f=2", *QUICK[:4])
    assert compared.code == 0, compared.err
    for command in (["check", "krum:f"], ["run", "hospital-heart", "--strategy", "krum:f"],
                    ["compare", "hospital-heart", "--strategy", "krum:f"]):  # fmt: skip
        refused = fedsim(*command)
        assert refused.code == 2
        assert "krum:f: expected parameters as KEY=VALUE, e.g. krum:f=2, got 'f'" in refused.err


@pytest.mark.parametrize(
    ("text", "name", "extra"),
    [
        ("krum", "krum", {}),
        ("krum:f=2", "krum", {"f": 2}),
        ("fedper:private=*bias", "fedper", {"private": "*bias"}),
        ("flwr.serverapp.strategy:FedYogi:eta=0.1", "flwr.serverapp.strategy:FedYogi", {"eta": 0.1}),
        ("my_strategy.py:factor=0.5:word=a b", "my_strategy.py", {"factor": 0.5, "word": "a b"}),
    ],
)
def test_a_strategy_with_its_hyperparameters_is_one_word(text: str, name: str, extra: dict):
    chosen = read("hospital-heart", [with_strategy(text)]).strategy
    assert (chosen.name, chosen.model_extra) == (name, extra)


def test_an_attack_with_its_parameters_is_one_word():
    chosen = read("hospital-heart", [with_attack("alie:z=1", "0.2")]).attack
    assert (chosen.name, chosen.share, chosen.model_extra) == ("alie", 0.2, {"z": 1})
    assert read("hospital-heart", [with_attack("alie:share=0.5", "0.2")]).attack.share == 0.5
    assert read("hospital-heart", [with_attack("alie:sites=[hungarian]", "0.2")]).attack.sites == ["hungarian"]
    assert read("synthetic-attacked", [with_attack("none", "0.2")]).attack.share is None


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("a={by=dirichlet,sites=5, alpha = 1}", {"by": "dirichlet", "sites": 5, "alpha": 1}),
        ('a={by="dirichlet", file=my/data.csv}', {"by": "dirichlet", "file": "my/data.csv"}),
        ("a=[sex, 'age', true]", ["sex", "age", True]),
        ("a=[0.1,1e5]", [0.1, 1e5]),
        ("a={ b = { c = word }, d = [x] }", {"b": {"c": "word"}, "d": ["x"]}),
        ("a=a [/b] [red]c", "a [/b] [red]c"),
        ("a={by=dirichlet sites=5}", "{by=dirichlet sites=5}"),
        ("a=", ""),
    ],
)
def test_words_may_stand_without_quotes(change: str, value: object):
    assert value_of(change) == ("a", value)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("command", "old", "new"), [(c, o, n) for c, names in OLD_NAMES.items() for o, n in names.items()]
)
def test_old_names_of_options_go_on_working(fedsim, command: str, old: str, new: str):
    words = {
        "privacy": {"--sampling-rate": ".1", "--noise-multiplier": "1", "--steps": "10", "--delta": "1e-5"},
        "show": {"hospital-heart": None, "--picture": "sites.png"},
        "compare": {"hospital-heart": None, "--reach": "0.5", "--seeds": "1", "--set": "training.rounds=1"},
        "look": {"table.csv": None, "--page": "x.html", "--json": None},
    }[command]
    Path("table.csv").write_text("age,ill\n60,1\n50,0\n")
    today = [word for pair in words.items() for word in pair if word]
    before = [old if word == new else word for word in today]
    assert old in before
    first, second = fedsim(command, *today), fedsim(command, *before)
    assert (first.code, first.err) == (0, "")
    assert (second.code, second.out) == (0, first.out)


def begin(name: str, age: float, finished: bool) -> Path:
    """Make a run directory that looks like one."""
    folder = Path("runs") / name
    folder.mkdir(parents=True)
    for file in ["scenario.toml"] + ["manifest.json"] * finished:
        (folder / file).write_text("{}" if file == "manifest.json" else 'title = "t"\n')
        os.utime(folder / file, (time.time() - age,) * 2)
    return folder


def test_the_newest_run_is_the_default_of_all_commands_that_take_one(fedsim):
    for command in ("report", "groups", "audit", "show"):
        assert "there is no finished run under runs/" in fedsim(command).err, command
    assert "there is none under runs/" in fedsim("resume").err
    begin("older", 20, finished=True)
    begin("newer", 10, finished=True)
    begin("begun-older", 8, finished=False)
    begin("begun-newer", 5, finished=False)
    for command in ("report", "groups", "audit", "show"):
        assert "runs/newer/manifest.json: expected" in fedsim(command).err, command
    assert "runs/newer/manifest.json: expected" in fedsim("show", "run").err
    assert "begun-newer" in fedsim("resume").err


@pytest.mark.whole
def test_the_newest_interrupted_run_is_gone_on_with(fedsim, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patched:
        patched.setattr("fedsim.experiments.trainings.run_job", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert fedsim("run", "hospital-heart", *QUICK).code == 130
    resumed = fedsim("resume", "--json", "--quiet")
    assert resumed.code == 0, resumed.err
    folder = json.loads(resumed.out)["run_dir"]
    assert re.fullmatch(r"runs/hospital-heart-\d{8}-\d{6}", folder)
    audited = fedsim("audit", "--trials", "20", "--shadows", "4", "--quiet")
    assert f"written: {folder}/" in audited.out, audited.err


def test_out_is_a_directory_wherever_it_is():
    import typer

    from fedsim.cli.commands import app

    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for parameter in command.params:
            if "--out" in parameter.opts:
                assert (parameter.metavar, parameter.help) == ("DIR", "The directory to write into."), name


@pytest.mark.whole
def test_an_engine_is_chosen_by_its_option(fedsim, tmp_path: Path):
    ran = fedsim("run", "hospital-heart", "--engine", "serial", *QUICK, "--epsilon", "none", "--out", "serial")
    assert ran.code == 0
    assert 'engine = "serial"' in (tmp_path / "serial" / "scenario.toml").read_text()
    assert fedsim("run", "hospital-heart", "--engine", "cohrt").err == (
        "fedsim: engine: expected the name of an engine, got 'cohrt'; did you mean 'cohort'? (--engine cohrt)\n"
    )
