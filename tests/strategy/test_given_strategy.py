"""Strategies that are given in Python: classes, and objects with their hyperparameters."""

from dataclasses import dataclass

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAdagrad

from fedsim.mistakes import Mistake
from fedsim.scenario.code.held import label_of
from fedsim.scenario.files import parse, value_of
from fedsim.strategy import Strategy
from fedsim.strategy.given_strategy import text_of_strategy, with_given_strategy
from fedsim.strategy.make import strategy_of
from strategies.krum import Krum
from tests.given import Halved, Needy, Plain


def made(given) -> Strategy:
    """Return the strategy that a scenario with it makes."""
    change = with_given_strategy(given)
    key, value = value_of(change)
    return strategy_of(parse({"name": "n", "title": "t", "task": "synthetic/tabular", key: value}))


def test_ours_keep_their_names():
    assert text_of_strategy("krum:f=2") == "krum:f=2"
    assert text_of_strategy(Krum) == "krum"
    assert text_of_strategy(Krum(f=2)) == "krum:f=2"
    assert text_of_strategy(FedAdagrad) == "flwr.serverapp.strategy:FedAdagrad"


def test_an_object_stands_for_its_class_and_the_fields_that_differ_from_their_defaults():
    assert made(Halved) == Halved(lr=0.1)
    assert made(Halved()) == Halved(lr=0.1)
    assert made(Halved(factor=0.25)) == Halved(factor=0.25, lr=0.1)
    assert made(Halved(factor=0.25, lr=0.5)) == Halved(factor=0.25, lr=0.5)
    assert made(Halved(factor=np.float64(1e-7))).factor == 1e-7
    assert label_of(text_of_strategy(Halved)) == "Halved"


def test_each_training_has_an_object_of_its_own():
    given = Halved(factor=0.25)
    assert made(given) is not given
    assert isinstance(made(Plain), Strategy)


@dataclass(frozen=True)
class Odd(Halved):
    """Holds what no scenario can hold."""

    weights: tuple[float, ...] = ()
    word: str = ""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (42, r"strategy: expected a name, a class with a method aggregate\(.*, got int"),
        (dict, r"expected a name, a class with a method aggregate\(.*, got dict"),
        (Plain(2.0), r"expected an object of a dataclass, whose fields are its parameters, got Plain; give the class"),
        (Odd(weights=(1.0,)), r"strategy\.weights: expected a number, true or false, or a word, .*, got tuple"),
        (Odd(word="a:b"), r"strategy\.word: expected a number, .*, got str"),
        (Needy, r"strategy: .*missing 1 required positional argument: 'factor'"),
    ],
)
def test_what_is_no_strategy_is_refused(given, message: str):
    with pytest.raises(Mistake, match=message):
        made(given)
    if given is Needy:
        assert made(Needy(3.0)) == Needy(3.0)
