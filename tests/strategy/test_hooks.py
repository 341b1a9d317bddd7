"""Base classes of strategies and rules: defaults, misspelt hooks, and files without a base class."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from fedsim.flower.adapter import Adapter
from fedsim.mistakes import Mistake
from fedsim.planning.attack import HOOKS as ATTACK_HOOKS
from fedsim.planning.attack import Attack
from fedsim.planning.participation import arrivals_of
from fedsim.scenario import catalog
from fedsim.scenario.files import with_strategy
from fedsim.scenario.schema import Scenario
from fedsim.strategy import Buffered, Choosing, Comparing, LocalRule, Personal, Plain, Strategy
from fedsim.strategy.contract import HOOKS
from fedsim.strategy.local_rule import RULE_HOOKS
from fedsim.strategy.make import made_of, strategy_of
from fedsim.strategy.plain_class import with_base


class Least(Strategy):
    """A strategy that defines nothing but ``aggregate``."""

    def aggregate(self, center, updates, weights, state):
        return center, state


def test_every_hook_but_aggregate_has_a_default():
    assert set(HOOKS) == {
        *("reports", "tells", "mean_only", "plain_sgd"),
        *("aggregate", "first_state", "local_rule", "second_rule"),
    }
    strategy = Least()
    assert (strategy.reports, strategy.tells, strategy.mean_only, strategy.plain_sgd) == ((), (), False, False)
    assert strategy.first_state(lambda count: []) == {}
    assert strategy.local_rule() == Plain()
    assert strategy.second_rule() is None
    with pytest.raises(TypeError, match=r"abstract method '?aggregate"):
        Strategy()


def test_a_rule_that_changes_nothing_is_that_of_federated_averaging():
    center, gradient = torch.randn(3), torch.randn(3)
    rule = LocalRule()
    assert rule.begin(center, {}, ()) == (center, {})
    assert rule.correct(gradient, center, {}, 0) is gradient
    assert rule.finish(center, {}, 2) == (center, {})
    assert not rule.follows


@pytest.mark.parametrize("name", ["agregate", "Aggregate", "aggregates"])
def test_a_misspelt_aggregate_is_named(name: str):
    with pytest.raises(Mistake, match=rf"^Odd.{name}: nothing calls a hook of this name; did you mean 'aggregate'"):
        type("Odd", (Strategy,), {name: Least.aggregate})


@pytest.mark.parametrize(
    ("name", "hook"),
    [
        ("report", "reports"),
        ("tell", "tells"),
        ("mean_onyl", "mean_only"),
        ("meanOnly", "mean_only"),
        ("plain_sdg", "plain_sgd"),
        ("local_rules", "local_rule"),
        ("localRule", "local_rule"),
        ("secondrule", "second_rule"),
        ("first_states", "first_state"),
    ],
)
def test_a_misspelt_hook_of_a_strategy_is_an_error_that_names_the_nearest(name: str, hook: str):
    with pytest.raises(Mistake, match=f"^Odd.{name}: .*did you mean '{hook}'"):
        type("Odd", (Least,), {name: ()})
    with pytest.raises(Mistake, match=f"^Odd.{name}: .*did you mean '{hook}'"):
        with_base(type("Odd", (), {name: (), "aggregate": Least.aggregate}))
    with pytest.raises(Mistake, match=f"^Odd.{name}: .*did you mean '{hook}'"):
        type("Odd", (Least,), {"__annotations__": {name: tuple}})  # a field


@pytest.mark.parametrize("name", ["personl", "begins", "finsh", "corect", "candidate", "follow", "compare_d"])
def test_a_misspelt_hook_of_a_rule_is_an_error(name: str):
    with pytest.raises(Mistake, match=f"^Odd.{name}: .*did you mean '"):
        type("Odd", (LocalRule,), {name: Plain.begin})


@pytest.mark.parametrize("name", ["posion", "forged", "target_clas", "triger"])
def test_a_misspelt_hook_of_an_attack_is_an_error(name: str):
    with pytest.raises(Mistake, match=f"^Odd.{name}: .*did you mean '"):
        type("Odd", (Attack,), {name: Attack.forge})


def test_an_attack_that_does_nothing_is_an_error():
    with pytest.raises(Mistake, match=r"^Odd: expected an attack with a method poison or forge, got neither"):
        type("Odd", (Attack,), {})


def test_hyperparameters_of_the_papers_are_not_taken_for_hooks():
    """No name that any strategy or attack here uses is near a hook: they would not have loaded."""
    for kind in ("strategies", "attacks"):
        for name in catalog.titles(kind):
            assert catalog.load(kind, name)
    type("Fine", (Least,), {"shares": 1, "rate": 0.5, "steps": 2, "aggregation_rule": None, "loss": 1.0})


@pytest.mark.parametrize("kind", [Personal, Comparing, Choosing])
def test_a_method_of_a_kind_of_rule_needs_its_base_class(kind: type):
    (hook, *_) = [name for name in vars(kind) if name in RULE_HOOKS]
    with pytest.raises(Mistake, match=rf"^Odd.{hook}: .*write class Odd\({kind.__name__}\)"):
        type("Odd", (LocalRule,), {hook: Plain.begin})


def test_a_report_that_does_not_exist_is_named():
    with pytest.raises(Mistake, match=r"Odd.reports: expected some of loss, cluster, steps, staleness, got 'losses'"):
        type("Odd", (Least,), {"reports": ("losses",)})


def test_no_strategy_is_buffered_by_the_names_of_its_fields(scenario):
    """IFCA has a field k; a subclass of Strategy may have a field concurrency as well."""

    @dataclass(frozen=True)
    class Named(Least):
        k: int = 2
        concurrency: int = 0

    Adapter(Named())  # a Buffered one would ask for arrivals
    assert arrivals_of(scenario("strategy.name=ifca"), 0, 4) is None
    with pytest.raises(Mistake, match="Odd: expected fields k and concurrency in a Buffered strategy, got no k"):
        type("Odd", (Buffered,), {})


def test_the_adapter_asks_for_a_base_class():
    class Alone:
        aggregate = Least.aggregate

    with pytest.raises(TypeError, match=r"got Alone; write class Alone\(Strategy\)"):
        Adapter(Alone())  # type: ignore[arg-type]


# Files of users, without a base class or with the imports of older versions.

PLAIN = """
from dataclasses import dataclass
from typing import ClassVar

@dataclass(frozen=True)
class Mine:
    mean_only: ClassVar = True
    eta: float = 0.5

    def aggregate(self, center, updates, weights, state):
        return center + self.eta * (weights @ (updates - center)), state
"""


@pytest.fixture
def chosen(scenario, tmp_path: Path):
    """Write a strategy's file and return the scenario that names it."""

    def make(text: str) -> Scenario:
        path = tmp_path / "mine.py"
        path.write_text(text)
        return scenario(with_strategy(str(path)))

    return make


def test_a_class_without_a_base_class_gets_the_defaults(chosen):
    strategy = strategy_of(chosen(PLAIN))
    assert isinstance(strategy, Strategy)
    assert type(strategy).__name__ == "Mine"
    assert strategy.mean_only
    assert strategy.second_rule() is None
    new, _ = strategy.aggregate(torch.zeros(2), torch.ones(3, 2), torch.full((3,), 1 / 3), {})
    torch.testing.assert_close(new, torch.full((2,), 0.5))
    assert strategy == strategy_of(chosen(PLAIN))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("def aggregate", "def agregate", r"expected a class Mine .*; did you mean 'aggregate' by Mine.agregate\?"),
        ("eta: float", "report: ClassVar = ('loss',)\n    eta: float", "Mine.report: .*did you mean 'reports'"),
        (
            "eta: float",
            "k: int = 2\n    concurrency: int = 0\n    eta: float",
            r"Mine: a strategy with fields k and concurrency, .* write class Mine\(Buffered\)",
        ),
        (
            "    def agg",
            "    def local_rule(self):\n        return Rule()\n\n    def agg",
            r"Mine.local_rule: expected a local rule with a base class, got Rule; write class Rule\(Personal\)",
        ),
    ],
)
def test_what_no_longer_works_without_a_base_class_says_what_to_write(chosen, old: str, new: str, message: str):
    rule = "\nclass Rule:\n    def personal(self, center, kept):\n        return center\n"
    with pytest.raises(Mistake, match=message) as caught:
        strategy_of(chosen(PLAIN.replace(old, new) + rule))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "now"),
    [
        ("from fedsim.local_rule import LocalRule, Parts", "from fedsim.strategy import LocalRule, Parts"),
        ("from fedsim.private_layers import PrivateLayers", "from fedsim.strategy import PrivateLayers"),
        ("from fedsim.arrivals import Arrivals", "from fedsim.strategy.arrivals import Arrivals"),
    ],
)
def test_an_import_from_where_a_name_was_is_told_where_it_is(chosen, line: str, now: str):
    with pytest.raises(Mistake, match=rf"is {now.split()[1]} now: write `{now}` \(mine.py:1\)") as caught:
        strategy_of(chosen(line + PLAIN))
    assert "\n" not in str(caught.value)
    strategy_of(chosen(now + PLAIN))


def test_an_import_from_fedsim_strategy_goes_on_working(chosen):
    strategy_of(chosen("from fedsim.strategy import State, check, mean_delta, zeros, Plain, Parts" + PLAIN))


def test_a_class_of_flowers_is_no_strategy_of_ours():
    with pytest.raises(Mistake, match=r"expected a class with a method aggregate\(.*\), got FedAvg"):
        made_of("flwr.serverapp.strategy:FedAvg", [])


def test_the_hooks_of_an_attack():
    assert set(ATTACK_HOOKS) == {"poison", "forge", "trigger", "target_class"}


class Both(Least):
    """A strategy whose reports are inherited."""

    reports: ClassVar = ("loss",)


def test_hooks_are_inherited():
    assert type("Child", (Both,), {}).reports == ("loss",)
