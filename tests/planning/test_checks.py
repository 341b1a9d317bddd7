"""What can't be run is refused in one place: the same by whole experiments and by tournaments, and all at once."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fedsim.data.tables import Number
from fedsim.data.task import Rows, Task
from fedsim.experiments.experiment import execute
from fedsim.experiments.tournament import Cell, play
from fedsim.mistakes import Mistake
from fedsim.planning.checks import check, strategy_faults
from fedsim.planning.trial import Trial
from fedsim.scenario import catalog
from fedsim.scenario.schema import Scenario
from fedsim.strategy.make import hyperparameters


class Mixing(nn.Module):
    """A model that centers a batch: each row's output depends on the others."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = self.layer(inputs)
        return outputs - outputs.mean(0) if len(outputs) else outputs


def said_by_an_experiment(scenario: Scenario, folder: Path) -> str:
    with pytest.raises(Mistake) as caught:
        execute(scenario, folder / "run")
    assert not (folder / "run").exists()
    return " ".join(str(caught.value).split())


def said_by_a_tournament(scenario: Scenario, folder: Path) -> str:
    """Play one cell, which must be refused before anything is trained."""
    place = {"scenario": "hospital-heart", "attack": "none", "epsilon": "1", "strategy": scenario.strategy.name}
    played = play([Cell(place, scenario)], folder / "cache")
    assert not list((folder / "cache").iterdir())
    assert played.scores.empty
    (reason,) = played.refused["reason"]
    return reason


CLIENT = ["privacy.unit=client", "privacy.delta=0.1", "training.expected_batch=64"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["strategy.name=qfedavg"], "strategy.name: expected one that does without losses under privacy"),
        (["strategy.name=krum", *CLIENT], "expected one that needs the mean of the updates only"),
        ([*CLIENT, "privacy.adaptive_clip={bit_noise=0.001}"], "privacy.adaptive_clip.bit_noise: expected more"),
        (["privacy.delta=0.5"], "privacy.delta: expected less than one over"),
        (["attack={name='sign-flip', sites=['nowhere']}"], "attack.sites: expected sites of this federation"),
        (["attack={name='sign-flip', share=0.5, factr=2}"], "attack.factr: sign-flip has no such hyperparameter"),
        (["secure_aggregation=true", "strategy.name=median"], "expected one that uses the mean of the updates alone"),
        (["training.expected_batch={cleveland=3}"], "training.expected_batch: expected one number for each of"),
        (["training.sites_per_round=5"], "training.sites_per_round: expected at most 4, the number of sites, got 5"),
        (["strategy={name='fedper', private=1}"], "strategy.private: expected a text, got 1"),
        (
            ["strategy={name='fedadam', tau=1e308}"],
            "strategy fedadam: a trial of it failed, with these hyperparameters",
        ),
        (["strategy={name='geometric_median', nu=1e308}"], "RuntimeError: value cannot be converted to type float"),
    ],
)
def test_experiments_and_tournaments_refuse_the_same(scenario, tmp_path: Path, overrides: list[str], message: str):
    wrong = scenario("arms=['federated']", *overrides)
    said = said_by_an_experiment(wrong, tmp_path)
    assert message in said
    assert said_by_a_tournament(wrong, tmp_path) == said


def test_both_refuse_a_model_that_mixes_rows(scenario, tmp_path: Path, monkeypatch):
    load = catalog.load
    task = replace(load("tasks", "hospital/heart"), model=Mixing)
    monkeypatch.setattr(catalog, "load", lambda kind, name: task if kind == "tasks" else load(kind, name))
    mixing = scenario("arms=['federated']", "title=A model that mixes rows")
    said = said_by_an_experiment(mixing, tmp_path)
    assert "expected a model whose output for a row depends on that row alone, got one that mixes rows" in said
    assert said_by_a_tournament(mixing, tmp_path) == said


def test_all_faults_are_said_at_once(scenario):
    wrong = scenario(
        "strategy.name=qfedavg",
        "privacy.delta=0.5",
        "attack={name='sign-flip', sites=['nowhere'], factr=2}",
        "secure_aggregation={drop_outs=2}",
    )
    with pytest.raises(Mistake) as caught:
        check(wrong)
    lines = str(caught.value).splitlines()
    starts = [line.partition(":")[0] for line in lines]
    assert starts == [
        "strategy.name",  # losses under privacy
        "strategy.name",  # single updates under secure aggregation
        "attack.name",
        "secure_aggregation.drop_outs",
        "attack.factr",
        "attack.sites",
        "privacy.delta",
    ]


def test_one_fault_that_shows_twice_is_said_once(scenario):
    with pytest.raises(Mistake) as caught:
        check(scenario("strategy={name='krum', f=-1}"))
    assert str(caught.value) == "strategy: f: expected a whole number in [0, inf), got -1"


def test_what_can_be_run_is_let_through(scenario):
    check(scenario())
    check(scenario("attack={name='sign-flip', share=0.25}", "strategy.name=median"))


def given_rows(monkeypatch: pytest.MonkeyPatch, rows_by_site: dict[str, list[int]], kind: str = "binary") -> None:
    """Let every task be one with these targets at each site."""
    site = np.repeat(list(rows_by_site), [len(values) for values in rows_by_site.values()])
    target = np.concatenate([np.array(values) for values in rows_by_site.values()])
    target = target.astype(np.int64 if kind == "classes" else np.float32)
    outcome = Number("days", 0, 60) if kind == "number" else None
    outputs = 3 if kind == "classes" else 1
    task = Task(
        "t",
        "o",
        "s",
        (),
        lambda inputs: nn.Linear(inputs, outputs),
        load=lambda: Rows(np.zeros((len(site), 2), np.float32), target, site),
        kind=kind,  # type: ignore[arg-type]
        range=outcome,
    )
    load = catalog.load
    monkeypatch.setattr(catalog, "load", lambda of, name: task if of == "tasks" else load(of, name))


FOUR = {f"s{number:02}": [0, 1, 0, 1] for number in range(20)}
PLAIN = ["privacy.unit=none", "arms=['federated']", "training.expected_batch=64"]


@pytest.mark.parametrize(
    ("rows", "kind", "overrides", "said"),
    [
        (FOUR, "binary", [], "got none under seed 0: a share of 0.2 of 4 rows at a site leaves none (seed 1 has"),
        (FOUR, "binary", ["seed=2"], "got none under seed 2: a share of 0.2 of 4 rows at a site leaves none (seed 3"),
        (
            {"a": [0, 0, 1, 1], "b": [2, 2]},
            "classes",
            ["split.test=0.1"],
            "a share of 0.1 of 2 to 4 rows at a site leaves",
        ),
        ({"a": [0, 1, 0]}, "number", ["split.test=0.01"], "under seed 0: a share of 0.01 of 3 rows at a site leaves"),
        ({"a": [0, 1, 0]}, "number", ["split.test=0.01", "seeds=3"], "got none under any of the seeds 0 to 2"),
    ],
)
def test_a_run_without_a_test_row_anywhere_is_refused_before_training(
    scenario, tmp_path: Path, monkeypatch, rows: dict, kind: str, overrides: list[str], said: str
):
    given_rows(monkeypatch, rows, kind)
    wrong = scenario(*PLAIN, *overrides, "title=No test row")
    message = said_by_an_experiment(wrong, tmp_path)
    assert message.startswith("split.test: expected a test row at some site")
    assert said in message
    assert len(message.splitlines()) == 1
    assert said_by_a_tournament(wrong, tmp_path) == message


def test_one_seed_with_test_rows_is_enough(scenario, monkeypatch):
    given_rows(monkeypatch, FOUR)
    check(scenario(*PLAIN, "seeds=2"))
    check(scenario(*PLAIN, "seeds=1", "split.test=0.5"))


@pytest.mark.parametrize(("kind", "outcome"), [("classes", "one of several classes"), ("number", "a number")])
def test_a_threshold_is_for_a_binary_outcome(scenario, monkeypatch, kind: str, outcome: str):
    given_rows(monkeypatch, {"a": [0, 1, 0, 1, 1, 1, 0, 0, 1, 0]}, kind)
    check(scenario(*PLAIN))
    with pytest.raises(Mistake, match=f"evaluation.threshold: expected none with an outcome that is {outcome}.*0.3"):
        check(scenario(*PLAIN, "evaluation.threshold=0.3"))


EXTREME = (0, -1, 1e308, -1e308, 1e-320, 10**30, float("inf"), float("nan"))


@pytest.mark.parametrize("strategy", sorted(catalog.titles("strategies")))
def test_no_hyperparameter_ends_a_check_with_a_traceback(scenario, strategy: str):
    usual = scenario("privacy.unit=none", f"strategy.name={strategy}")
    model = Trial(usual, 0, "federated").untried_model
    for name in hyperparameters(catalog.load("strategies", strategy)):
        for value in EXTREME:
            extreme = usual.model_copy(update={"strategy": usual.strategy.model_copy(update={name: value})})
            with suppress(Mistake):
                for fault in strategy_faults(extreme, 4, model):
                    assert fault.startswith(("strategy", "training"))
