"""Tuning: each arm by its own validation rows, the same number of trials, the same end after an interruption."""

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest

import scenarios
from fedsim.experiments.deciding import kept, study, tuned_files
from fedsim.experiments.deciding.choice import NOT_FOR_IT
from fedsim.experiments.deciding.study import COMPLETE, FAILED, PRUNED
from fedsim.experiments.deciding.tune import Tuned, Wanted, tune
from fedsim.mistakes import Mistake
from fedsim.scenario.files import read

QUICK = ["training.rounds=3"]
SPACE = ["training.optimizer.lr=0.1..10:log", "strategy.name=fedavg,median"]
ARMS = ["federated", "local"]

# With the random numbers of a salt (see tests/privacy/mutants), which other processes don't know.
SALTED = bool(os.environ.get("FEDSIM_TEST_SALT", "").lstrip("0"))


def wanted(**changes: Any) -> Wanted:
    given = {"trials": 3, "space": SPACE, "arms": ARMS, "epsilon": "none", "changes": QUICK, "seeds": 2, **changes}
    return Wanted("hospital-heart", **given)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    return tune(wanted(), tmp_path_factory.mktemp("cache"))


@pytest.mark.whole
def test_each_arm_has_the_same_number_of_trials_under_each_seed(tuned: Tuned):
    counted = tuned.trials.groupby(["arm", "seed"]).size()
    assert counted.tolist() == [3, 3, 3, 3]
    assert set(tuned.trials[tuned.trials["arm"] == "local"]["strategy.name"]) == {NOT_FOR_IT}
    assert set(tuned.trials[tuned.trials["arm"] == "federated"]["strategy.name"]) <= {"fedavg", "median"}


@pytest.mark.whole
def test_the_first_trial_has_the_scenarios_own_settings(tuned: Tuned):
    first = tuned.trials[tuned.trials["trial"] == 0]
    assert set(first["training.optimizer.lr"]) == {"0.5"}
    assert set(first[first["arm"] == "federated"]["strategy.name"]) == {"fedavg"}


@pytest.mark.whole
def test_what_is_chosen_has_the_best_validation_figure_of_its_arm_and_seed(tuned: Tuned):
    trainings = tuned.decided.chosen.trainings
    for _, own in trainings.groupby(["arm", "seed"]):
        chosen = own[own["chosen"]]
        assert len(chosen) == 1
        assert chosen["validation"].iloc[0] == own["validation"].max()
    federated = tuned.scenarios["federated"]
    row = trainings[trainings["chosen"] & (trainings["arm"] == "federated") & (trainings["seed"] == 0)].iloc[0]
    assert f"{federated.training.optimizer.lr:g}" == row["training.optimizer.lr"]
    assert federated.strategy.name == row["strategy.name"]


@pytest.mark.whole
@pytest.mark.parametrize("jobs", [1] if SALTED else [1, 2])
def test_a_search_that_is_stopped_ends_where_it_would_have_ended(
    tuned: Tuned, jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It proposes the same settings again, and trains nothing twice."""
    ran = []
    whole = kept.run_job

    def stopping(*given: Any) -> Any:
        if len(ran) == 5:
            raise KeyboardInterrupt
        ran.append(given[1])
        return whole(*given)

    monkeypatch.setattr(kept, "run_job", stopping)
    with pytest.raises(KeyboardInterrupt):
        tune(wanted(), tmp_path)
    monkeypatch.setattr(kept, "run_job", lambda *given: ran.append(given[1]) or whole(*given))
    again = tune(wanted(), tmp_path, jobs=jobs)
    pd.testing.assert_frame_equal(again.trials, tuned.trials)
    pd.testing.assert_frame_equal(again.decided.points, tuned.decided.points)
    if jobs == 1:
        assert len(ran) == len(list(tmp_path.glob("*.json")))


@pytest.mark.whole
def test_trials_that_fall_behind_are_cut_short_and_stay_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(study, "_TRIALS_BEFORE_PRUNING", 1)
    asked = wanted(trials=6, space=["training.optimizer.lr=0.001..10:log"], arms=["federated"], seeds=1)
    first = tune(asked, tmp_path)
    cut = first.trials[first.trials["state"] == PRUNED]
    assert len(cut) > 0
    assert (cut["rounds"] < 3).all()
    assert not first.decided.chosen.trainings["trial"].isin(cut["trial"]).any()
    again = tune(asked, tmp_path)
    pd.testing.assert_frame_equal(again.trials, first.trials)
    whole = tune(Wanted(**{**vars(asked), "prune": False}), tmp_path)
    assert set(whole.trials["state"]) == {COMPLETE}


@pytest.mark.whole
def test_a_trial_that_fails_is_no_choice_and_is_said(tmp_path: Path):
    asked = wanted(space=["strategy.name=fedavg,krum:f=3"], arms=["federated"], seeds=1, trials=4)
    tuned = tune(asked, tmp_path)
    failed = tuned.trials[tuned.trials["state"] == FAILED]
    assert set(failed["strategy.name"]) == {"krum:f=3"}
    assert tuned.scenarios["federated"].strategy.name == "fedavg"
    assert any("trials of the federated arm failed" in line for line in tuned.decided.cautions)


@pytest.mark.whole
@pytest.mark.parametrize("charged", [False, True])
def test_what_the_trials_of_one_choice_cost_is_charged_or_declared(charged: bool, tmp_path: Path):
    """Charged, all trials together stay within the budget, and come near to it; declared, each alone does."""
    asked = wanted(
        epsilon="8", charged=charged, arms=["centralized"], seeds=1, space=["training.optimizer.lr=0.1..1"], prune=False
    )
    tuned = tune(asked, tmp_path)
    (released,) = tuned.decided.released
    assert released.trainings == 3
    scenario = tuned.scenarios["centralized"]
    assert (scenario.privacy.tuning.runs, scenario.privacy.tuning.charged) == (3, charged)
    if charged:
        assert 7.5 < released.epsilon <= 8
    else:
        assert 8 < released.epsilon < 24
    assert any("no epsilon covers the records that are validated on" in line for line in tuned.decided.about_privacy)


@pytest.mark.whole
def test_the_files_are_read_back(tuned: Tuned, tmp_path: Path):
    """The page says what was found, Optuna reads its studies, and a scenario holds what was chosen."""
    tuned_files.write(tmp_path, tuned)
    page = (tmp_path / "tune.html").read_text()
    for sentence in tuned.decided.answers:
        assert sentence in page
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "studies.journal"))
    )
    names = optuna.get_all_study_names(storage)
    assert sorted(names) == sorted(f"{arm}, seed {seed}" for arm in ARMS for seed in (0, 1))
    first = optuna.load_study(study_name="federated, seed 0", storage=storage)
    own = tuned.trials[(tuned.trials["arm"] == "federated") & (tuned.trials["seed"] == 0)]
    assert first.best_value == pytest.approx(own["validation"].max())
    assert len(first.trials) == 3
    again = read(str(tmp_path / "tuned-federated.toml"), all_used=False)
    assert again.training == tuned.scenarios["federated"].training
    assert tomllib.loads((tmp_path / "tuned-local.toml").read_text())["arms"] == ["local"]
    assert len(json.loads((tmp_path / "tune.json").read_text())["points"]) == 2


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no validation rows": ({"changes": ["split.validation=0"]}, "split.validation: expected more than 0"),
    "a budget twice": (
        {"changes": ["privacy.epsilon=2"], "epsilon": "3"},
        "--set privacy.epsilon: expected none beside --epsilon",
    ),
    "tuning by hand": ({"changes": ["privacy.tuning.runs=3"]}, "--set privacy.tuning.runs: expected none"),
    "nothing to charge": ({"charged": True}, "--charged: expected a privacy budget to charge to"),
    "epsilon as a setting": ({"space": ["privacy.epsilon=1..8"]}, "--vary privacy.epsilon: expected a setting"),
    "seeds": ({"changes": ["seeds=3"]}, "--set seeds: expected none beside --seeds"),
    "arms": ({"changes": ["arms=['local']"]}, "--set arms: expected --arms"),
    "other rows": ({"space": ["split.test=0.2,0.4"]}, "--vary split.test: expected a setting of the training"),
    "another task": ({"space": ["task=hospital/heart,bank/lending"]}, "--vary task: expected a setting"),
    "the relation": ({"space": ["privacy.neighbours=add-or-remove-one,replace-one"]}, "--vary privacy.neighbours:"),
    "the noise": ({"space": ["privacy.noise_multiplier=1..30"], "epsilon": "8"}, "--vary privacy.noise_multiplier:"),
    "a strategy that is none": ({"space": ["strategy.name=fedavg,nope"]}, "nope"),
    "a setting that is none": ({"space": ["training.optimizer.lrr=0.1..1"]}, "training.optimizer.lrr"),
    "a clip without privacy": (
        {"space": ["privacy.clip=0.1..1"]},
        "--vary privacy.clip: expected a setting that changes something here",
    ),
    "several mechanisms, charged": (
        {"space": ["training.sampling_rate=0.01,0.5"], "epsilon": "8", "charged": True},
        "--vary training.sampling_rate: expected none beside --charged",
    ),
    "a strategy, charged": (
        {"space": ["strategy.name=fedavg,apfl"], "epsilon": "8", "charged": True},
        "--vary strategy.name: expected none beside --charged",
    ),
    "no assignment": ({"space": ["training.rounds"]}, "--vary training.rounds: expected KEY=VALUES"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_tuned_is_refused(case: str, tmp_path: Path):
    changes, expected = REFUSED[case]
    with pytest.raises(Mistake) as refused:
        tune(wanted(**changes), tmp_path / "cache")
    assert expected in str(refused.value)
    assert not (tmp_path / "cache").exists()


def test_what_was_tuned_before_is_not_forgotten(tmp_path: Path):
    path = tmp_path / "tuned.toml"
    path.write_text(f"{scenario_text('hospital-heart')}\ntuning = {{ runs = 50, charged = true }}\n")
    with pytest.raises(Mistake, match=r"privacy.tuning: expected none in the scenario.*got runs = 50"):
        tune(Wanted(str(path)), tmp_path / "cache")


def scenario_text(name: str) -> str:
    return (Path(scenarios.__file__).parent / f"{name}.toml").read_text()


@pytest.mark.whole
def test_a_search_does_not_depend_on_what_others_have_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A training that is there as a whole is cut short all the same, and figures of another metric are not taken."""
    monkeypatch.setattr(study, "_TRIALS_BEFORE_PRUNING", 1)
    asked = wanted(trials=6, space=["training.optimizer.lr=0.001..10:log"], arms=["federated"], seeds=1)
    alone = tune(asked, tmp_path / "alone")
    assert PRUNED in set(alone.trials["state"])
    for metric in ("accuracy", None):
        tune(Wanted(**{**vars(asked), "prune": metric is not None}), tmp_path / "shared", metric)
    after = tune(asked, tmp_path / "shared")
    pd.testing.assert_frame_equal(after.trials, alone.trials)


@pytest.mark.whole
def test_a_budget_that_allows_no_round_is_said(tmp_path: Path):
    changes = ["training.rounds=2", "privacy.noise_multiplier=1"]
    asked = Wanted("hospital-heart", 2, ["training.optimizer.lr=0.1,1"], ["federated"], "0.5", changes, 1)
    with pytest.raises(Mistake, match="no trial of the federated arm ended well under seed 0:\nit has no validation"):
        tune(asked, tmp_path)


def test_no_arm_is_left_where_the_unit_protects_none(tmp_path: Path):
    asked = Wanted("synthetic-whole-sites", arms=["local"], epsilon="2")
    with pytest.raises(Mistake, match="tune: expected an arm that the privacy unit protects, got local"):
        tune(asked, tmp_path)
