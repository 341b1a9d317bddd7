"""Parameters of strategies and attacks have the types that their class declares."""

from dataclasses import dataclass
from typing import Any

import pytest

from fedsim.mistakes import Mistake
from fedsim.scenario import catalog
from fedsim.strategy.make import check_types, hyperparameters, make


@dataclass(frozen=True)
class Typed:
    share: float = 0.5
    count: int = 1
    name: str = ""
    on: bool = False
    ends: tuple[float, float] = (0.0, 1.0)
    written: "float" = 1.0


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"share": "a"}, "strategy.share: expected a number, got 'a'"),
    ({"share": True}, "strategy.share: expected a number, got True"),
    ({"share": [1.0]}, "strategy.share: expected a number, got [1.0]"),
    ({"count": 1.0}, "strategy.count: expected a whole number, got 1.0"),
    ({"count": False}, "strategy.count: expected a whole number, got False"),
    ({"name": 1}, "strategy.name: expected a text, got 1"),
    ({"on": 1}, "strategy.on: expected true or false, got 1"),
    ({"on": "yes"}, "strategy.on: expected true or false, got 'yes'"),
    ({"written": "a"}, "strategy.written: expected a number, got 'a'"),
]


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_a_wrong_type_is_told(given: dict[str, Any], message: str):
    with pytest.raises(Mistake) as caught:
        make(Typed, "typed", given)
    assert str(caught.value) == message


def test_all_wrong_types_are_told_at_once():
    with pytest.raises(Mistake) as caught:
        check_types(Typed, {"count": "a", "on": 2}, "attack")
    assert str(caught.value).splitlines() == [
        "attack.count: expected a whole number, got 'a'",
        "attack.on: expected true or false, got 2",
    ]


def test_right_ones_are_taken_and_other_types_are_left_to_the_class():
    given = {"share": 1, "count": 3, "name": "x", "on": True, "ends": [0, 1], "written": 2}
    assert make(Typed, "typed", given) == Typed(**given)


@pytest.mark.parametrize("strategy", sorted(catalog.titles("strategies")))
def test_no_wrong_type_reaches_a_strategy(strategy: str):
    kind = catalog.load("strategies", strategy)
    for field in hyperparameters(kind):
        for wrong in ([1], {"a": 1}):
            with pytest.raises(Mistake, match="expected "):
                make(kind, strategy, {field: wrong})
