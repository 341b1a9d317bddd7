"""Of very many sites some judge the models: they are drawn at random, and the run says so."""

import numpy as np
import pandas as pd
import pytest

from fedsim.data import federation
from fedsim.experiments.arms import Job, run_job
from fedsim.experiments.experiment import execute
from fedsim.planning.trial import Trial
from fedsim.report.base_findings import cautions
from fedsim.results.evaluation import TOGETHER
from fedsim.results.run_directory import Run
from fedsim.scenario.files import read
from fedsim.scenario.schema import Scenario

pytestmark = pytest.mark.usefixtures("charts_undrawn")


def many(*changes: str, most: int = 10) -> Scenario:
    fast = ("privacy.unit=none", "training.rounds=1", "training.sites_per_round=4", "training.local_steps=1")
    return read("synthetic-label-skew", ["partition.sites=300", *fast, f"evaluation.most_sites={most}", *changes])


def sites_in(scores: pd.DataFrame) -> list[str]:
    return sorted(set(scores["site"]) - set(TOGETHER))


def test_they_are_the_same_in_all_arms_and_under_all_seeds_and_others_under_another_first_seed():
    chosen = Trial(many(), 0, "federated").tested.names
    assert len(chosen) == len(set(chosen)) == 10
    assert list(chosen) == sorted(chosen)
    assert set(chosen) < set(Trial(many(), 0, "federated").names)
    assert Trial(many(), 3, "local").tested.names == chosen
    assert Trial(many("seed=7"), 7, "federated").tested.names != chosen


@pytest.mark.whole
def test_each_site_is_as_likely_as_another():
    """Of 3000 draws of 300 sites each has 10, with a standard deviation of 3."""
    drawn = [Trial(many(f"seed={seed}"), seed, "federated").tested.names for seed in range(300)]
    counts = pd.Series(np.concatenate(drawn)).value_counts().reindex(Trial(many(), 0, "federated").names, fill_value=0)
    assert counts.sum() == 3000
    assert counts.max() < 10 + 6 * 3
    assert (counts == 0).sum() < 3


def test_where_there_are_no_more_all_are_tested():
    trial = Trial(many(most=300), 0, "federated")
    assert trial.tested is trial.federation


def test_only_sites_that_are_needed_are_made(monkeypatch: pytest.MonkeyPatch):
    made: set[int] = set()
    make = federation._made

    def counted(splitter, maker, number: int, name: str):
        made.add(number)
        return make(splitter, maker, number, name)

    monkeypatch.setattr(federation, "_made", counted)
    scenario = many("partition.sites=301")  # a federation that no other test has made
    done = run_job(scenario, Job("federated", False, 0), lambda number: None)
    assert len(sites_in(done.scores)) == 10
    assert len(made) <= 10 + 4 + 1  # those tested, those of the round, and the first, which shows the shape


@pytest.fixture(scope="module")
def finished(charts_undrawn: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    arms = "arms=['federated', 'local']"
    scenario = many(arms, "partition.sites=12", "seeds=2", "strategy.name=ditto", most=5)
    return execute(scenario, tmp_path_factory.mktemp("runs") / "run")


@pytest.mark.whole
def test_a_run_tests_those_in_each_arm_and_seed_and_says_so(finished: Run):
    for _, scores in finished.sites.groupby(["arm", "seed"]):
        assert sites_in(scores) == sites_in(finished.sites)
    assert len(sites_in(finished.sites)) == 5
    assert finished.manifest["sites"] == 12
    said = "All figures, the base rate included, are those of 5 of the 12 sites, drawn at random"
    assert any(text.startswith(said) for text in cautions(finished))
    page = (finished.path / "report.html").read_text("utf-8")
    assert said in page
    assert "· 12 sites ·" in page
    assert "the 12 sites together reach" in page


@pytest.mark.whole
def test_the_base_rate_is_of_the_same_rows(finished: Run):
    rows = finished.sites.groupby("site")["rows"].first()
    base = finished.measured.base_rates
    assert set(base["rows"]) == {rows[sites_in(finished.sites)].sum()}
