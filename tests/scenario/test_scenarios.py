"""Every scenario that comes along can be run, and says what to look for."""

import pytest

from fedsim.data.federation import federate
from fedsim.experiments.arms import jobs, run_job
from fedsim.results.evaluation import TOGETHER
from fedsim.scenario import catalog
from fedsim.scenario.files import read
from fedsim.scenario.schema import Scenario

SCENARIOS = list(catalog.titles("scenarios"))
STORIES = [name for name in SCENARIOS if not name.startswith("synthetic-")]  # made-up sites are for strategies
WIDTH = 120


def small(name: str) -> Scenario:
    """Return a scenario with two rounds of one step, one seed, and whoever joins late in the second round."""
    late = [f"faults.joins_late.{site}=2" for site in read(name).faults.joins_late]
    noise = ["privacy.noise_multiplier=4"] if read(name).private else []
    return read(name, ["training.rounds=2", "training.local_steps=1", "seeds=1", *noise, *late])


def test_there_are_scenarios_of_hospitals_banks_and_schools():
    assert len(STORIES) >= 12
    assert {name.partition("-")[0] for name in STORIES} == {"hospital", "bank", "school"}
    used = {read(name).task for name in STORIES}
    needs_a_file = {"hospital/xray"}
    assert used == {name for name in catalog.titles("tasks") if not name.startswith("synthetic/")} - needs_a_file


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_says_in_three_lines_what_to_look_for(name: str):
    scenario = read(name)
    lines = scenario.about.strip().splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= WIDTH
    assert "Look for: " in scenario.about
    assert len(scenario.title) <= 60
    assert read(name).task is not None
    assert scenario.task is not None
    assert scenario.task.startswith(name.partition("-")[0])


@pytest.mark.whole
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_runs_to_its_end(name: str):
    scenario = small(name)
    for job in jobs(scenario):
        done = run_job(scenario, job, lambda number: None)
        planned = ["dropped out"] if scenario.faults.drop_out else []
        assert not [note for note in done.notes if not any(note.endswith(known) for known in planned)]
        assert list(done.scores["site"]) == [*federate(scenario, 0).names, *TOGETHER]
        assert done.scores.iloc[-1, 3:].notna().all(), "a metric of all sites together is missing"
        assert (done.ledger is not None) == job.private
        assert scenario.split.validation == 0 or list(done.curve["round"]) == [1, 2]
