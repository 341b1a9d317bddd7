"""Sweeps: which cells there are, what is refused, and what the command writes."""

from pathlib import Path

import pytest

from fedsim.experiments.deciding.choice import NOT_FOR_IT
from fedsim.experiments.deciding.kept import of_arm, read_kept
from fedsim.experiments.deciding.sweep import Axes, grid_of, sweep
from fedsim.experiments.tournament import play
from fedsim.mistakes import Mistake


def places(axes: Axes) -> list[tuple[str, ...]]:
    return [tuple(cell.place.values())[1:] for cell in grid_of(axes).cells]


def test_all_arms_are_crossed_with_all_epsilons():
    axes = Axes("hospital-heart", ["federated", "local"], ["2", "none"])
    assert places(axes) == [("federated", "2"), ("local", "2"), ("federated", "none"), ("local", "none")]
    cells = grid_of(axes).cells
    assert [cell.private for cell in cells] == [True, True, False, False]
    assert [cell.arm for cell in cells] == ["federated", "local"] * 2
    assert [cell.scenario.privacy.unit for cell in cells] == ["record", "record", "none", "none"]
    assert [cell.scenario.privacy.epsilon for cell in cells[:2]] == [2.0, 2.0]


def test_without_epsilons_the_scenarios_own_budget_and_arms_are_taken():
    assert places(Axes("hospital-heart")) == [("federated", "8"), ("centralized", "8"), ("local", "8")]
    assert places(Axes("synthetic-label-skew")) == [("federated", "none")]


def test_epsilon_is_an_axis_by_either_name():
    typed = Axes("hospital-heart", ["local"], varied=["privacy.epsilon=1,4"])
    assert places(typed) == places(Axes("hospital-heart", ["local"], ["1", "4"]))
    with pytest.raises(Mistake, match=r"--vary privacy.epsilon: expected none beside --epsilon"):
        grid_of(Axes("hospital-heart", ["local"], ["1"], varied=["privacy.epsilon=1,4"]))


def test_settings_that_an_arm_has_not_are_not_crossed_with_it():
    """One training of the local arm stands for all strategies, and one without privacy for all clips."""
    axes = Axes(
        "hospital-heart",
        ["federated", "local"],
        ["2", "none"],
        ["strategy.name=fedavg,krum:f=0", "privacy.clip=1,2"],
    )
    grid = grid_of(axes)
    assert grid.settings == ["strategy.name", "privacy.clip"]
    assert places(axes) == [
        ("federated", "2", "fedavg", "1"),
        ("federated", "2", "fedavg", "2"),
        ("federated", "2", "krum:f=0", "1"),
        ("federated", "2", "krum:f=0", "2"),
        ("local", "2", NOT_FOR_IT, "1"),
        ("local", "2", NOT_FOR_IT, "2"),
        ("federated", "none", "fedavg", NOT_FOR_IT),
        ("federated", "none", "krum:f=0", NOT_FOR_IT),
        ("local", "none", NOT_FOR_IT, NOT_FOR_IT),
    ]
    assert grid.cells[3].scenario.strategy.model_extra == {"f": 0}
    assert grid.cells[3].scenario.privacy.clip == 2


def test_an_arm_that_the_unit_does_not_protect_is_left_out_and_said():
    grid = grid_of(Axes("synthetic-whole-sites", ["federated", "local"], ["2", "none"]))
    assert [(cell.arm, cell.private) for cell in grid.cells] == [
        ("federated", True),
        ("federated", False),
        ("local", False),
    ]
    assert grid.left_out == ["There is no local arm under epsilon 2: the privacy unit does not protect it."]
    with pytest.raises(Mistake, match="sweep: There is no local arm under epsilon 2"):
        grid_of(Axes("synthetic-whole-sites", ["local"], ["2"]))


REFUSED = {
    "seeds=1,2": "--vary seeds: expected --seeds",
    "arms=local": "--vary arms: expected --arms",
    "privacy.unit=record,client": "--vary privacy.unit: expected --set privacy.unit",
    "privacy.tuning.runs=1,2": "--vary privacy.tuning.runs: expected fedsim tune",
    "attack.name=alie": "--vary attack.name: expected fedsim compare --attack",
    "training.rounds=2,2": "--vary training.rounds: expected each value once, got 2,2",
    "training.round=2,3": "training.round",
    "split.test=0.2,0.4": "--vary split.test: expected a setting of the training",
    "task=hospital/heart,bank/lending": "--vary task: expected a setting of the training",
    "training.rounds": "--vary: expected KEY=VALUES, got 'training.rounds'",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_axis_is_refused_with_what_to_type(text: str):
    with pytest.raises(Mistake) as refused:
        grid_of(Axes("hospital-heart", varied=[text]))
    assert REFUSED[text] in str(refused.value)


def test_a_choice_without_validation_rows_is_refused():
    axes = Axes("hospital-heart", varied=["training.rounds=2,3"], changes=["split.validation=0"])
    with pytest.raises(Mistake, match=r"split.validation: expected more than 0"):
        grid_of(axes)
    assert grid_of(Axes("hospital-heart", changes=["split.validation=0"])).settings == []


def test_other_arms_are_one_training_for_all_strategies_and_attacks():
    varied = ["strategy.name=fedavg,krum:f=0"]
    cells = grid_of(Axes("synthetic-attacked", ["federated", "centralized"], varied=varied, seeds=1)).cells
    keys = {cell.training(0).key for cell in cells}
    assert len(keys) == 3
    pooled = cells[-1]
    assert of_arm(pooled.scenario, "centralized").attack.name == "none"
    assert pooled.training(0).scenario.strategy.name == "fedavg"


def test_a_setting_that_changes_nothing_anywhere_is_refused():
    with pytest.raises(Mistake, match=r"--vary privacy.clip: expected a setting that changes something here"):
        grid_of(Axes("hospital-heart", ["local"], ["none"], ["privacy.clip=1,2"]))


def test_one_budget_in_two_forms_is_one():
    with pytest.raises(Mistake, match="--epsilon: expected each value once"):
        grid_of(Axes("hospital-heart", ["local"], ["2", "2.0"]))


@pytest.mark.whole
def test_a_budget_that_allows_no_round_has_no_figures(tmp_path: Path):
    changes = ["training.rounds=2", "privacy.noise_multiplier=1"]
    axes = Axes("hospital-heart", ["federated"], ["0.5", "none"], changes=changes, seeds=1)
    decided = sweep(Axes(**{**vars(axes), "changes": ["training.rounds=2"], "epsilons": ["none"]}), tmp_path)
    assert decided.points["epsilon"].tolist() == ["none"]
    with pytest.raises(Mistake, match="no round was run"):
        sweep(Axes(**{**vars(axes), "epsilons": ["0.5"]}), tmp_path)


def test_what_is_set_twice_is_refused():
    changes = ["training.rounds=2", "privacy.epsilon=3", "arms=['local']", "seeds=2"]
    axes = Axes("hospital-heart", ["local"], ["1"], ["training.rounds=2,3"], changes, seeds=3)
    with pytest.raises(Mistake) as refused:
        grid_of(axes)
    assert str(refused.value).splitlines() == [
        "--set training.rounds: expected none beside --vary training.rounds",
        "--set privacy.epsilon: expected none beside --epsilon",
        "--set arms: expected --arms",
        "--set seeds: expected none beside --seeds",
    ]


@pytest.mark.whole
def test_a_setting_that_can_not_be_run_is_said_and_the_rest_is_compared(tmp_path: Path):
    axes = Axes("hospital-heart", ["federated"], ["none"], ["strategy.name=fedavg,krum:f=3"], ["training.rounds=2"], 1)
    decided = sweep(axes, tmp_path)
    assert decided.points["settings"].tolist() == ["strategy.name=fedavg"]
    assert decided.cautions[0].startswith("There are no figures of federated, krum:f=3: ")


@pytest.mark.whole
def test_a_training_is_found_again_by_all_that_decides_it(tmp_path: Path):
    cell = grid_of(Axes("hospital-heart", ["local"], ["none"], changes=["training.rounds=1"], seeds=1)).cells[0]
    played = play([cell], tmp_path)
    kept = read_kept(tmp_path, cell.training(0))
    assert kept is not None
    assert len(kept.scores) == len(played.scores)
    assert read_kept(tmp_path, cell.training(1)) is None
