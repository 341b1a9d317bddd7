"""Scenarios and runs of a privacy unit that there is not."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedsim.audits.claims import claim_in, claim_of
from fedsim.cli.terminal import closing_lines
from fedsim.experiments.arms import Job, run_job
from fedsim.experiments.experiment import check
from fedsim.mistakes import Mistake
from fedsim.planning.budgets import Spending
from fedsim.planning.checks import refuse, strategy_faults
from fedsim.planning.delta_rule import delta_faults
from fedsim.planning.noise import noise_for
from fedsim.planning.participation import joining_of, sites_of_round
from fedsim.planning.secure_checks import secure_faults
from fedsim.planning.trial import Trial
from fedsim.privacy.ledger import Release
from fedsim.privacy.unit import Unit
from fedsim.privacy.units import unit_of
from fedsim.report.statement import statement
from fedsim.results.run_directory import load
from fedsim.scenario.schema import Privacy, Scenario
from fedsim.training.work import Streams

OLDER = Path(__file__).parent / "older"


def made_up(scenario, *overrides: str) -> Scenario:
    """Return a scenario that got round its checks with a unit that there is not."""
    known = scenario(*overrides)
    values = {name: getattr(known.privacy, name) for name in Privacy.model_fields}
    privacy = Privacy.model_construct(**values | {"unit": "recrod"})
    sections = {name: getattr(known, name) for name in Scenario.model_fields}
    return Scenario.model_construct(**sections | {"privacy": privacy})


def test_a_scenario_of_an_unknown_unit_is_refused(scenario):
    with pytest.raises(Mistake, match=r"privacy.unit: expected .* got 'recrod'; did you mean 'record'"):
        scenario("privacy.unit=recrod")
    with pytest.raises(Mistake, match=r"got '../record'"):
        unit_of("../record")


def _masks(unknown: Scenario) -> None:
    refuse(secure_faults(unknown, Trial(unknown, 0, "federated").strategy, 4, 10))


DOORS = {
    "whether it is private": lambda unknown: unknown.private,
    "which arms are": lambda unknown: unknown.private_arms,
    "its neighbours": lambda unknown: unknown.privacy.relation,
    "its noise": lambda unknown: noise_for(unknown, 0, "federated", ["a", "b"]),
    "its batches": lambda unknown: Streams.of(unknown, 0, "federated", "a", 1),
    "who joins": lambda unknown: joining_of(unknown, 0)(1),
    "the sites of a round": lambda unknown: sites_of_round(
        unknown.model_copy(update={"training": unknown.training.model_copy(update={"site_sampling_rate": 0.5})}),
        0, ["a", "b"], 1,
    ),
    "its first model": lambda unknown: Trial(unknown, 0, "federated").model,
    "its budget": lambda unknown: Spending.of(Trial(unknown, 0, "federated")),
    "its delta": lambda unknown: refuse(delta_faults(unknown, Trial(unknown, 0, "federated").federation)),
    "its strategy": lambda unknown: refuse(strategy_faults(unknown, 4, torch.nn.Linear(2, 1))),
    "its masks": _masks,
    "all checks": check,
    "its claim": claim_of,
    "a training": lambda unknown: run_job(unknown, Job("federated", True, 0), lambda number: None),
    "a training without noise": lambda unknown: unknown.all_seeds and run_job(
        unknown, Job("local", True, 0), lambda number: None
    ),
}  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
def test_nothing_takes_an_unknown_unit_for_another(scenario, door: str):
    """Also where a scenario was made without its checks: nothing falls into the case of records in silence."""
    with pytest.raises(Mistake, match=r"expected .*'record'.* got 'recrod'"):
        DOORS[door](made_up(scenario))


@pytest.mark.whole
def test_a_run_of_an_unknown_unit_says_nothing():
    run = load(OLDER / "record")
    unknown = replace(run, ledger=run.ledger | {"unit": "recrod"})
    for ask in (statement, claim_in, lambda run: list(closing_lines(run))):
        with pytest.raises(Mistake, match="got 'recrod'"):
            ask(unknown)


def test_a_unit_without_a_fact_or_a_method_is_an_error_when_it_is_read():
    with pytest.raises(TypeError, match="expected the class attributes neighbours"):
        type("Empty", (Unit,), {})

    facts = {name: getattr(unit_of("local"), name) for name in Unit.__annotations__}
    with pytest.raises(TypeError, match="expected the methods release, noised"):
        type("Idle", (Unit,), facts)
    with pytest.raises(TypeError, match="expected a class attribute kind"):
        type("Nameless", (Release,), {})
