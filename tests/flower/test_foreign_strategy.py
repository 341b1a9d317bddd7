"""Strategies of Flower's and of somebody else in our round loop, and ours in a ServerApp of Flower's."""

import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp import strategy as flower

from fedsim.data.federation import federate
from fedsim.engines.serial import execute
from fedsim.experiments.arms import GLOBAL, Job, run_job
from fedsim.flower.adapter import Adapter
from fedsim.flower.foreign_strategy import Hosted
from fedsim.flower.grid import InProcessGrid
from fedsim.mistakes import Mistake
from fedsim.scenario import catalog
from fedsim.scenario.files import read, with_strategy
from fedsim.site.app import app
from fedsim.strategy.make import strategy_of
from fedsim.training.model import new_model
from strategies.fedavg import FedAvg
from strategies.median import Median
from tests.nodes import arrays, good, grid_of

FLOWER = "flwr.serverapp.strategy"
OTHERS = "qora.strategy:QoraStrategy"


def weights(scenario, *overrides: str, private: bool = False) -> torch.Tensor:
    found = run_job(scenario(*overrides), Job("federated", private, 0), lambda number: None)
    assert found.notes == []
    return found.models[GLOBAL]["weight"]


def hosted(name: str, **parameters: object) -> str:
    inner = "".join(f", {key} = {value}" for key, value in parameters.items())
    return f'strategy={{ class = "{FLOWER}:{name}"{inner} }}'


@pytest.mark.parametrize("engine", ["serial", "cohort"])
@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (hosted("FedAvg"), "strategy.name=fedavg"),
        (hosted("FedTrimmedAvg", beta=0.3), 'strategy={ name = "trimmed_mean", beta = 0.3 }'),
        (hosted("FedMedian"), "strategy.name=median"),
        (hosted("Krum", num_malicious_nodes=0), 'strategy={ name = "krum", f = 0 }'),
    ],
)
def test_flowers_strategies_run_unchanged_on_every_engine(scenario, theirs, ours, private, engine):
    """What they give is what ours give, on the same batches and, under privacy, up to noise that has another name."""
    one = weights(scenario, theirs, f"engine={engine}", private=private)
    if not private:
        torch.testing.assert_close(one, weights(scenario, ours, f"engine={engine}"), rtol=1e-4, atol=1e-6)
    assert one.dtype == torch.float32
    assert one.isfinite().all()


def test_flowers_q_fedavg_gets_the_losses_it_asks_for(scenario):
    theirs = weights(scenario, hosted("QFedAvg", client_learning_rate=0.5, q=0.3))
    ours = ["strategy.name=qfedavg", "strategy.q=0.3", "training.expected_batch=64"]
    ours = weights(scenario, *ours)
    equal = weights(scenario, hosted("QFedAvg", client_learning_rate=0.5, q=0.3), "training.expected_batch=64")
    assert theirs.isfinite().all()
    torch.testing.assert_close(equal, ours, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("engine", ["serial", "cohort"])
def test_flowers_fedprox_holds_the_sites_near_the_global_model(scenario, engine: str):
    """Its sites are told ``proximal-mu`` in a config that nobody but they can act on."""
    theirs = weights(scenario, hosted("FedProx", proximal_mu=2.0), f"engine={engine}")
    ours = weights(scenario, 'strategy={ name = "fedprox", mu = 2.0 }', f"engine={engine}")
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-6)
    without = weights(scenario, hosted("FedAvg"), f"engine={engine}")
    assert not torch.allclose(theirs, without, rtol=1e-3)


REFUSED = {
    "DifferentialPrivacyClientSideFixedClipping": "a clip that the sites would have to keep to, .*privacy.unit=client",
    "DifferentialPrivacyClientSideAdaptiveClipping": "a clip that the sites would have to keep to",
    "DifferentialPrivacyServerSideFixedClipping": "its noise would be in no ledger, .*privacy.unit=client",
    "DifferentialPrivacyServerSideAdaptiveClipping": "its noise would be in no ledger",
    "FedXgbBagging": "it aggregates trees of XGBoost",
    "FedXgbCyclic": "it aggregates trees of XGBoost",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_strategy_of_flowers_that_would_not_do_what_it_says_is_refused(scenario, name: str):
    with pytest.raises(Mistake, match=f"strategy.name: expected another strategy than .*{name}: .*{REFUSED[name]}"):
        strategy_of(scenario(hosted(name)))


@pytest.mark.parametrize("side", ["Client", "Server"])
def test_privacy_of_flowers_around_a_strategy_is_refused_in_a_file_as_well(scenario, side: str, tmp_path: Path):
    path = tmp_path / "wrapped.py"
    base = f"DifferentialPrivacy{side}SideFixedClipping"
    path.write_text(
        f"from flwr.serverapp.strategy import {base}, FedAvg\n\n\nclass Wrapped({base}):\n"
        "    def __init__(self):\n        super().__init__(FedAvg(), 1.0, 1.0, 4)\n"
    )
    with pytest.raises(Mistake, match=r"expected another strategy than .*wrapped.py"):
        strategy_of(scenario(with_strategy(str(path))))
    inside = tmp_path / "inside.py"
    inside.write_text(
        f"from flwr.serverapp.strategy import {base}, FedAvg\n\n\nclass Inside(FedAvg):\n"
        f"    def __init__(self):\n        super().__init__()\n        self.own = {base}(FedAvg(), 1.0, 1.0, 4)\n"
    )
    with pytest.raises(Mistake, match=f"expected another strategy than {base}"):
        strategy_of(scenario(with_strategy(str(inside))))


def test_a_strategy_from_somebody_elses_package_runs_unchanged(scenario):
    """Qora-FL's, from the index, is written for Flower's older interface; its aggregation is not even Python."""
    chosen = ["training.expected_batch=64", "engine=serial"]
    for theirs, ours in (("trimmed_mean", 'name="trimmed_mean", beta=0.25'), ("fedavg", 'name="fedavg"')):
        override = with_strategy(OTHERS)
        found = weights(
            scenario, override, f"strategy.aggregation_method={theirs}", "strategy.trim_fraction=0.25", *chosen
        )
        expected = weights(scenario, f"strategy={{ {ours} }}", *chosen)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_somebody_elses_code_is_not_run_from_a_scenario_file(scenario, monkeypatch):
    monkeypatch.setattr(catalog, "_allowed", set())
    for name in (OTHERS, "os:system", "my.py", "flwr.serverapp.strategy.fedavg:FedAvg"):
        with pytest.raises(Mistake, match=r"is code; name it: --strategy"):
            strategy_of(scenario(f'strategy.name="{name}"'))
        with pytest.raises(Mistake, match=r"class: expected flwr.serverapp.strategy:CLASS"):
            scenario(f'strategy={{ class = "{name}" }}')


def test_a_file_of_ones_own_is_a_strategy(scenario, tmp_path: Path):
    path = tmp_path / "half.py"
    path.write_text(
        "from dataclasses import dataclass\n\n\n@dataclass(frozen=True)\nclass Half:\n    eta: float = 0.5\n\n"
        "    def aggregate(self, center, updates, weights, state):\n"
        "        return center + self.eta * (weights @ (updates - center)), state\n"
    )
    one = weights(scenario, with_strategy(str(path)), "training.rounds=1")
    torch.testing.assert_close(one, weights(scenario, "training.rounds=1") / 2)
    assert catalog.source_hash(str(path)) != catalog.source_hash("fedavg")


MINE = """
class Mine:
    def local_rule(self):
        return Rule()

    def aggregate(self, center, updates, weights, state):
        return center + weights @ (updates - center), state


class Rule(Plain):
    def correct(self, gradient, parameters, memory, step):
        return FACTOR * gradient
"""


@pytest.mark.whole
def test_a_file_that_was_changed_is_another_strategy_at_the_sites_too(scenario, tmp_path: Path):
    """In one process: its client half is not kept, and under privacy its noise is another."""
    path = tmp_path / "mine.py"

    def found(factor: str, private: bool) -> torch.Tensor:
        path.write_text(f"from fedsim.strategy.local_rule import Plain\n{MINE}".replace("FACTOR", factor))
        one_step = ["training.rounds=1", "training.local_steps=1"]
        return weights(scenario, with_strategy(str(path)), *one_step, private=private)

    torch.testing.assert_close(found("3", private=False), 3 * found("1", private=False))
    assert torch.equal(found("1", private=True), found("1", private=True))
    assert not torch.allclose(found("1", private=True), found("1.0", private=True), rtol=0.1)


def test_a_site_with_another_copy_of_a_strategys_file_does_not_train(scenario, tmp_path: Path):
    """Its noise would have another name than the server's, or one that another release has."""
    path = tmp_path / "mine.py"
    path.write_text(f"from fedsim.strategy.local_rule import Plain\n{MINE}".replace("FACTOR", "1"))
    chosen = scenario(with_strategy(str(path)), "privacy.unit=none")
    config = {"scenario": chosen.model_dump_json(), "seed": 0, "arm": "federated", "strategy-code": "0" * 64}
    model = new_model(chosen, federate(chosen, 0).sites[0], 0, "cpu")
    grid = InProcessGrid(execute(app), 4, config)
    replies = grid.send_and_receive(
        Adapter(FedAvg()).configure_train(1, ArrayRecord(model.state_dict()), ConfigRecord(), grid)
    )
    expected = r"PermissionError: expected the server's strategy .*mine.py, SHA-256 0{64}, got [0-9a-f]{64} "
    assert all(re.match(expected, reply.error.reason) for reply in replies)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (", "SyntaxError"),
        ("import nothing_like_it", "ModuleNotFoundError"),
        ("1 / 0", r"ZeroDivisionError: division by zero \(bad.py:1\)"),
        ("def aggregate(): ...", "expected a class Bad with a method aggregate, got none"),
        ("class A:\n  def aggregate(self): ...\nclass B(A): ...", "expected a class Bad .* got A, B"),
    ],
)
def test_a_bad_file_is_explained(tmp_path: Path, text: str, message: str):
    path = tmp_path / "bad.py"
    path.write_text(text)
    catalog.allow(str(path))
    with pytest.raises(Mistake, match=message):
        catalog.load("strategies", str(path))


def test_choices_of_flowers_strategies_follow_from_the_seed_and_leave_the_global_generator_alone(scenario):
    half = [hosted("FedAvg", fraction_train=0.5), "training.rounds=3"]
    random.seed(1)
    first = weights(scenario, *half)
    state = random.getstate()
    random.seed(2)
    assert torch.equal(weights(scenario, *half), first)
    random.seed(1)
    weights(scenario)
    assert random.getstate() == state


def test_a_strategy_that_would_wait_for_ever_is_refused():
    with pytest.raises(Mistake, match=r"min_available_nodes: expected at most the 1 sites there are, got 2"):
        Hosted(flower.FedAvg(), 0, 1)


@pytest.mark.parametrize("model", [{"a": np.zeros(2)}, {"a": np.full((2, 3), np.nan), "b": np.zeros(3)}])
def test_what_is_no_model_is_refused(model):
    class Odd(flower.FedAvg):
        def aggregate_train(self, server_round, replies):
            return ArrayRecord({name: Array(value) for name, value in model.items()}), None

    one = Hosted(Odd(fraction_evaluate=0.0), 0, 4)
    grid = grid_of(good)
    replies = grid.send_and_receive(one.configure_train(1, arrays(), ConfigRecord(), grid))
    with pytest.raises(Mistake, match=r"strategy Odd.*expected (a model of|finite numbers)"):
        one.aggregate_train(1, replies)


def test_float64_from_a_strategy_does_not_travel_on():
    one = Hosted(flower.FedAdam(), 0, 4)
    grid = grid_of(good)
    replies = list(grid.send_and_receive(one.configure_train(1, arrays(), ConfigRecord(), grid)))
    new, _ = one.aggregate_train(1, replies)
    assert {array.dtype for array in new.values()} == {"float32"}  # type: ignore[union-attr]


@pytest.mark.parametrize("strategy", [FedAvg(), Median()])
def test_ours_run_in_a_plain_flower_server_app(strategy):
    app, models = ServerApp(), []

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        models.append(Adapter(strategy).start(grid=grid, initial_arrays=arrays(), num_rounds=2).arrays)

    app(grid_of(good), Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={}))
    np.testing.assert_allclose(models[0]["b"].numpy(), 2.5, rtol=1e-6)


def test_a_hyperparameter_that_flowers_class_does_not_have_is_named():
    with pytest.raises(
        Mistake, match=r"strategy.bta: .*FedTrimmedAvg has no such hyperparameter; did you mean 'beta'\?"
    ):
        strategy_of(read("hospital-heart", [hosted("FedTrimmedAvg", bta=0.3)]))
    with pytest.raises(Mistake, match="missing 1 required positional argument: 'client_learning_rate'"):
        strategy_of(read("hospital-heart", [hosted("QFedAvg")]))
