"""Of very many sites some judge the models: they are drawn at random, and the run says so."""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from fedsim.data import federation
from fedsim.experiments.arms import Job, run_job
from fedsim.experiments.experiment import execute
from fedsim.experiments.server_side import adapted, names_of_nodes, plans_of
from fedsim.flower.grid import node_of
from fedsim.flower.rounds import Budget
from fedsim.planning.budgets import Spending
from fedsim.planning.checks import check
from fedsim.planning.noise import cost_of
from fedsim.planning.trial import Trial
from fedsim.privacy.ledger import EACH_SITE, SiteUpdate
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


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Note the numbers of the sites whose rows are made."""
    numbers: set[int] = set()
    make = federation._made

    def counted(splitter, maker, number: int, name: str):
        numbers.add(number)
        return make(splitter, maker, number, name)

    monkeypatch.setattr(federation, "_made", counted)
    return numbers


def test_only_sites_that_are_needed_are_made(made: set[int]):
    scenario = many("partition.sites=301")  # a federation that no other test has made
    done = run_job(scenario, Job("federated", False, 0), lambda number: None)
    assert len(sites_in(done.scores)) == 10
    assert len(made) <= 10 + 4 + 1  # those tested, those of the round, and the first, which shows the shape


@pytest.fixture
def a_million() -> Callable[..., Trial]:
    """Plan private trainings of which each round has 1000 of a million sites."""

    def trial(scenario: str, *changes: str) -> Trial:
        private = ("privacy.epsilon=8", "privacy.delta=1e-7", "privacy.noise_multiplier=1")
        rounds = ("partition.sites=1000000", "training.rounds=20")
        return Trial(read(scenario, [*rounds, *private, *changes]), 0, "federated")

    return trial


def test_a_private_scenario_is_checked_by_the_first_site_alone(made: set[int]):
    """Delta is below one over its rows, and so bounds something."""
    private = ("privacy.unit=record", "privacy.epsilon=8", "privacy.delta=1e-3", "privacy.noise_multiplier=1")
    check(many("partition.sites=302", *private))
    assert made == {0}


def test_what_a_million_sites_have_in_common_takes_no_memory_for_each(a_million: Callable[..., Trial]):
    trial = a_million("synthetic-label-skew", "privacy.unit=record", "training.sites_per_round=1000")
    assert trial.federation.sites[0].name == "site-000000"
    spending = Spending.of(trial)
    tracemalloc.start()
    try:
        plans = plans_of(trial)
        budget = spending.federated(plans)
        adapted(trial, spending, budget)
        names = names_of_nodes(trial)
        asked = [node_of(site) for site in trial.sites_of(1)]
        assert isinstance(budget, Budget)
        releases = {budget.planned[node] for node in asked}
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(asked) == len(set(asked)) == 1000
    assert [len(plans), len(names), len(trial.names), len(trial.weights)] == [1_000_000] * 4
    assert names[asked[5]] == plans[asked[5]][0] == trial.names[asked[5] - node_of(0)]
    assert len(releases) == 1000  # each with its site
    assert most < 4 * 2**20  # a list of a million has 8 MB


def test_of_a_million_sites_those_are_charged_that_were_asked(a_million: Callable[..., Trial]):
    """No privacy is claimed from a public draw: a row's rate is that of its steps."""
    trial = a_million("synthetic-label-skew", "privacy.unit=record", "training.sites_per_round=1000")
    rate = trial.scenario.training.sampling_rate
    steps = trial.scenario.training.local_steps
    cost = cost_of(trial.scenario, 0, "federated", trial.names)
    assert (cost.sampling_rate, cost.releases) == (rate, steps * trial.most_rounds)
    assert 1 <= trial.most_rounds <= 3  # of 20 rounds, each with one site in a thousand

    spending = Spending.of(trial)
    budget = spending.federated(plans_of(trial))
    asked = [node_of(site) for site in trial.sites_of(1)]
    budget.charge_unseen(1, asked)
    charged = [entry.site for entry in spending.ledger.entries]
    assert charged == [trial.names[site] for site in trial.sites_of(1)]


def test_a_million_sites_that_join_on_their_own_are_charged_by_one_entry_a_round(a_million: Callable[..., Trial]):
    """Amplification is by the rate with which each site joins: one in a thousand."""
    trial = a_million("synthetic-whole-sites", "training.site_sampling_rate=0.001")
    cost = cost_of(trial.scenario, 0, "federated", trial.names)
    assert (cost.sampling_rate, cost.releases) == (0.001, 20)
    joined = trial.sites_of(1)
    assert abs(len(joined) - 1000) < 6 * 1000**0.5

    spending = Spending.of(trial)
    budget = spending.federated(plans_of(trial))
    for number in (1, 2, 3):
        budget.charge_unseen(number, [node_of(site) for site in trial.sites_of(number)])
    entries = spending.ledger.entries
    assert [(entry.site, entry.round) for entry in entries] == [(EACH_SITE, 1), (EACH_SITE, 2), (EACH_SITE, 3)]
    for entry in entries:
        assert isinstance(entry.mechanism, SiteUpdate)
        assert entry.mechanism.sampling_rate == 0.001
        assert entry.mechanism.denominator == pytest.approx(1000)


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
