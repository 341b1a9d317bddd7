"""What a search varies: how it is typed, what is proposed, and what is refused."""

import math

import optuna
import pytest

from fedsim.experiments.deciding.space import Dimension, space_of, usual
from fedsim.mistakes import Mistake
from fedsim.scenario.files import read


def trial(**values: float | int | str) -> optuna.trial.FixedTrial:
    return optuna.trial.FixedTrial(values)


def test_ranges_and_values_are_read():
    rate, steps, names = space_of(
        ["training.optimizer.lr=0.01..1:log", "training.local_steps=1..8", "strategy.name=fedavg,krum:f=1"]
    )
    assert rate == Dimension("training.optimizer.lr", (), 0.01, 1.0, whole=False, log=True)
    assert steps == Dimension("training.local_steps", (), 1.0, 8.0, whole=True)
    assert names == Dimension("strategy.name", ["fedavg", "krum:f=1"])
    assert [str(one) for one in (rate, steps, names)] == [
        "training.optimizer.lr=0.01..1:log",
        "training.local_steps=1..8",
        "strategy.name=fedavg,krum:f=1",
    ]


def test_values_are_proposed_as_they_would_be_typed():
    rate, steps, names = space_of(["a=0.01..1:log", "b=1..8", "c=x,y"])
    made = trial(a=0.123456, b=3, c="y")
    assert [one.suggest(made) for one in (rate, steps, names)] == ["0.123", "3", "y"]


REFUSED = {
    "a=1": "expected two or more values, each once, or a range",
    "a=1,1": "expected two or more values, each once",
    "a=1..x": "expected a range LOW..HIGH",
    "a=1..2:exp": "expected a range LOW..HIGH",
    "a=2..1": "expected LOW < HIGH",
    "a=0..1:log": "expected 0 < LOW < HIGH",
    "a=nan..1": "expected a range LOW..HIGH",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_space_is_refused(text: str):
    with pytest.raises(Mistake) as refused:
        space_of([text])
    assert str(refused.value).startswith(f"--vary {text}: {REFUSED[text]}")


def test_all_faults_are_said_at_once():
    with pytest.raises(Mistake) as refused:
        space_of(["a=1", "b=2..1", "c=1..2", "c=1..3"])
    assert len(str(refused.value).splitlines()) == 3


def test_the_nearest_value_of_the_space_stands_for_the_scenarios_own():
    rate, steps, names = space_of(["a=0.01..1", "b=2..8", "c=x,y"])
    assert (rate.nearest(0.0), rate.nearest(0.5), rate.nearest(3)) == (0.01, 0.5, 1.0)
    assert (steps.nearest(1), steps.nearest(5)) == (2, 5)
    assert (names.nearest("x"), names.nearest("z"), rate.nearest(None), rate.nearest(True)) == ("x", None, None, None)


def test_the_usual_space_lies_around_the_scenarios_own_values():
    private = {one.key: one for one in usual(read("hospital-heart"))}
    assert set(private) == {"training.optimizer.lr", "training.optimizer.weight_decay", "privacy.clip"}
    rate = private["training.optimizer.lr"]
    assert math.sqrt(rate.low * rate.high) == pytest.approx(0.5, rel=0.01)
    assert "privacy.clip" not in {one.key for one in usual(read("hospital-heart", epsilon="none"))}
