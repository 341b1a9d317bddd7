"""No site exceeds its budget, whichever of them is nearest to it: every unit and arm, by whole trainings."""

import pytest

from fedsim.experiments.arms import Job, Trained, run_job
from fedsim.planning.budgets import Spending
from fedsim.planning.trial import Trial
from fedsim.privacy.ledger import Entry, Ledger
from fedsim.scenario.schema import Scenario
from tests.cases import others_whole

NAMES = ["cleveland", "hungarian", "switzerland", "va_long_beach"]
KINDS = {
    "own, of records": ("federated", []),
    "own, of whole sites": ("federated", ["privacy.unit=local"]),
    "central": ("federated", ["privacy.unit=client", "training.sites_per_round=4"]),
    "distributed": ("federated", ["privacy.unit=distributed", "secure_aggregation={drop_outs=1, colluding=0}"]),
    "local arm": ("local", []),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def of_kind(scenario, kind: str, limit: float, *overrides: str) -> Scenario:
    """Return a scenario of this kind whose noise does not follow from its budget."""
    small = ["privacy.noise_multiplier=4", f"privacy.epsilon={limit}", "privacy.loose_delta=true", "training.rounds=6"]
    return scenario(*KINDS[kind][1], *small, *overrides)


def trained(chosen: Scenario, kind: str) -> Trained:
    return run_job(chosen, Job(KINDS[kind][0], True, 0), lambda number: None)  # type: ignore[arg-type]


def one_round(scenario, kind: str) -> dict[str, Entry]:
    """Return {site: what it releases in a round}."""
    ledger = trained(of_kind(scenario, kind, 900, "training.rounds=1"), kind).ledger
    assert ledger is not None
    return {entry.site: entry for entry in ledger.entries}


def limit_of(rounds: int, entry: Entry, chosen: Scenario) -> float:
    """Return a budget for so many rounds and not one more."""
    delta = chosen.privacy.delta
    assert delta is not None
    ledger = Ledger(delta, chosen.privacy.relation, (entry,) * rounds)
    return ledger.epsilon(entry.site) + 1e-6


@pytest.mark.whole
@each_kind
@pytest.mark.parametrize("nearest", range(4))
def test_the_site_that_has_spent_most_ends_the_training(scenario, kind: str, nearest: int, monkeypatch):
    """A8: one site of four has spent two of its three rounds before; there is one more for all of them."""
    released = one_round(scenario, kind)
    past = released[NAMES[nearest]]
    limit = limit_of(3, past, of_kind(scenario, kind, 900))
    honest = Spending.of

    def with_a_past(*args) -> Spending:
        spending = honest(*args)
        for number in (-1, 0):
            spending.ledger.charge(past.site, number, past.mechanism)
        return spending

    monkeypatch.setattr(Spending, "of", with_a_past)
    done = trained(of_kind(scenario, kind, limit), kind)
    assert done.ledger is not None
    assert [note for note in done.notes if note.startswith("stopped after 1 of 6 rounds")]
    for site in NAMES:
        rounds = [entry.round for entry in done.ledger.entries if entry.site == site]
        assert rounds == ([-1, 0, 1] if site == past.site else [1])
        assert done.ledger.epsilon(site) <= limit


@pytest.mark.parametrize("kind", others_whole([kind for kind in KINDS if kind != "central"], "distributed"))
@pytest.mark.parametrize("late", NAMES[:2])
def test_sites_that_joined_earlier_end_the_training(scenario, kind: str, late: str):
    """A8: a site that joins in the third round has spent less than the others, also where it is the first of all."""
    (limit,) = {limit_of(3, entry, of_kind(scenario, kind, 900)) for entry in one_round(scenario, kind).values()}
    done = trained(of_kind(scenario, kind, limit, f"faults.joins_late={{{late}=3}}"), kind)
    assert done.ledger is not None
    spent = {site: done.ledger.rounds(site) for site in NAMES}
    assert spent == {site: 1 if site == late else 3 for site in NAMES}
    assert max(done.ledger.epsilon(site) for site in NAMES) <= limit


@pytest.mark.parametrize("engine", others_whole(["cohort", "serial"]))
def test_a_second_training_in_each_round_is_planned_for(scenario, engine: str):
    """A8: a budget for five trainings of a site holds two rounds of two."""
    (limit,) = {limit_of(5, entry, of_kind(scenario, "own, of records", 900))
                for entry in one_round(scenario, "own, of records").values()}  # fmt: skip
    chosen = of_kind(scenario, "own, of records", limit, "strategy.name=apfl", f"engine={engine}")
    done = trained(chosen, "own, of records")
    assert done.ledger is not None
    assert {site: done.ledger.rounds(site) for site in NAMES} == dict.fromkeys(NAMES, 2)
    assert max(done.ledger.epsilon(site) for site in NAMES) <= limit


def test_the_server_expects_the_share_of_sites_that_joins(scenario):
    """What the bits of an adaptive clip and the noisy sum are divided by: public, and that of a round."""
    chosen = scenario("privacy.unit=client", "training.site_sampling_rate=0.25", "partition={by='iid', sites=40}",
                      "training.expected_batch=5", "privacy.noise_multiplier=4", "privacy.epsilon=900")  # fmt: skip
    trial = Trial(chosen, 0, "federated")
    assert len(trial.names) == 40
    noise = Spending.of(trial).central().noise
    assert noise.sites.expected(1) == (10, 50)
    assert noise.planned(1).denominator == 10
