"""The first screen holds a sentence and three figures, with their verdicts."""

from pathlib import Path

import pytest

from fedsim.report.deciding.first_screen import sentence, tiles
from fedsim.report.findings import Numbers, headline
from tests.runs import BETTER, FEWER_ARMS, NOISE, make_run, one_seed


def test_a_difference_that_may_be_chance_is_called_not_distinguishable(tmp_path: Path) -> None:
    numbers = Numbers(make_run(tmp_path, {("federated", True): NOISE}))
    gain = tiles(numbers)[1]
    assert any("not distinguishable" in line for line in gain.below)
    better = Numbers(make_run(tmp_path, {("federated", True): BETTER}))
    assert "better" in tiles(better)[1].below


def test_there_are_three_figures_of_which_one_is_epsilon(tmp_path: Path) -> None:
    numbers = Numbers(make_run(tmp_path))
    found = tiles(numbers)
    assert len(found) == 3
    assert found[2].value == "8.00"
    assert sentence(numbers) in headline(numbers.run)


@pytest.mark.parametrize("arms", FEWER_ARMS)
def test_some_arms_are_enough(tmp_path: Path, arms: tuple[str, ...]) -> None:
    numbers = Numbers(make_run(tmp_path, arms=arms))
    assert 1 <= len(tiles(numbers)) <= 3
    assert all(tile.value != "–" for tile in tiles(numbers))


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    below = tiles(Numbers(one_seed(make_run(tmp_path))))[0].below
    assert not [line for line in below if "95 %" in line]
