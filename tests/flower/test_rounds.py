from dataclasses import asdict, replace

import pytest
from flwr.app import RecordDict

from fedsim.flower.adapter import Adapter
from fedsim.flower.grid import node_of
from fedsim.flower.rounds import Budget, run_rounds
from fedsim.mistakes import RunFailed
from fedsim.privacy.ledger import Ledger, Mechanism
from strategies.fedavg import FedAvg
from tests.nodes import arrays, good, grid_of

STEP = Mechanism(sampling_rate=1.0, noise_multiplier=2.0, clip=1.0, expected_batch=8.0, steps=1)


def budget(epsilon: float) -> Budget:
    planned = {node_of(site): (f"site{site}", STEP) for site in range(4)}
    return Budget(Ledger(1e-5, "add-or-remove-one"), epsilon, planned, rounds=6)


def run(answer, spend: Budget | None, rounds: int = 6):
    """Run rounds; return what finished and how often any site was asked."""
    asked = []

    def counting(site: int) -> RecordDict:
        asked.append(site)
        return answer(site)

    finished = run_rounds(Adapter(FedAvg()), grid_of(counting), arrays(), rounds, spend, lambda number, model: None)
    return finished, len(asked)


def private(site: int) -> RecordDict:
    return good(site, mechanism=asdict(STEP))


def test_a_run_stops_before_it_exceeds_the_budget_and_asks_nobody_any_more():
    """A8."""
    limit = Ledger(1e-5, "add-or-remove-one")
    for number in range(3):
        limit.charge("site0", number, STEP)
    spend = budget(limit.epsilon("site0") + 1e-6)
    finished, asked = run(private, spend)
    assert finished.rounds == 3
    assert asked == 3 * 4
    ledger = spend.ledger
    assert ledger.epsilon("site0") <= spend.epsilon < ledger.epsilon_of(ledger.spent("site0"), STEP)


def test_a_restart_does_not_refund():
    """A8: with the ledger of what was spent, not one more site is asked; half of it leaves half."""
    limit = Ledger(1e-5, "add-or-remove-one")
    for number in range(4):
        limit.charge("site0", number, STEP)
    spend = budget(limit.epsilon("site0") + 1e-6)
    run(private, spend)
    for rounds, left in ((4, 0), (2, 2), (0, 4)):
        again = budget(spend.epsilon)
        for entry in spend.ledger.entries[: 4 * rounds]:
            again.ledger.charge(entry.site, entry.round, entry.mechanism)
        finished, asked = run(private, again)
        assert (finished.rounds, asked) == (left, 4 * left)


def test_no_site_is_asked_when_not_even_one_round_is_affordable():
    finished, asked = run(private, budget(0.01))
    assert (finished.rounds, asked) == (0, 0)


def spent_by(rounds: dict[str, int], step: Mechanism = STEP) -> Ledger:
    """Return a ledger in which sites have made so many releases."""
    ledger = Ledger(1e-5, "add-or-remove-one")
    for site, times in rounds.items():
        for number in range(times):
            ledger.charge(site, number, step)
    return ledger


def limit_of(rounds: int) -> float:
    """Return a budget for so many rounds and not one more."""
    return spent_by({"a": rounds}).epsilon("a") + 1e-6


@pytest.mark.parametrize("nearest", range(4))
@pytest.mark.parametrize("others", [0, 1, 2])
def test_the_site_that_is_nearest_to_its_budget_decides_whoever_is_asked_first(nearest: int, others: int):
    """A8: the others have spent less, and each of the four is the nearest once."""
    spend = replace(
        budget(limit_of(3)), ledger=spent_by({f"site{site}": 3 if site == nearest else others for site in range(4)})
    )
    nodes = [node_of(site) for site in range(4)]
    assert not spend.allows(nodes)
    assert not spend.allows(nodes[::-1])
    assert spend.allows(node for node in nodes if node != node_of(nearest))
    assert not spend.allows([node_of(nearest)])
    assert run(private, spend)[1] == 0


@pytest.mark.parametrize("costly", range(4))
def test_the_site_whose_next_round_costs_most_decides(costly: int):
    """A8: all have spent alike, and one of them is to do more in a round than the others."""
    planned = {node_of(site): (f"site{site}", replace(STEP, steps=2) if site == costly else STEP) for site in range(4)}
    spend = Budget(spent_by({f"site{site}": 2 for site in range(4)}), limit_of(3), planned, rounds=6)
    assert not spend.allows(planned)
    assert spend.allows(node for node in planned if node != node_of(costly))


@pytest.mark.parametrize("first", range(4))
def test_rounds_end_when_sites_that_joined_earlier_have_spent_their_budget(first: int):
    """A8: one site joins in the third round only; the run ends with the budget of the others, who were in all."""
    asked = []

    def schedule(number: int) -> list[int]:
        return [node_of(site) for site in range(4) if number >= 3 or site != first]

    def answer(site: int) -> RecordDict:
        asked.append(site)
        return private(site)

    spend = budget(limit_of(4))
    adapter = Adapter(FedAvg(), schedule=schedule)
    finished = run_rounds(adapter, grid_of(answer), arrays(), 8, spend, lambda number, model: None)
    assert finished.rounds == 4
    assert [asked.count(site) for site in range(4)] == [2 if site == first else 4 for site in range(4)]
    assert all(spend.ledger.epsilon(f"site{site}") <= spend.epsilon for site in range(4))


@pytest.mark.parametrize("slow", range(4))
def test_rounds_end_when_the_sites_that_do_all_their_steps_have_spent_their_budget(slow: int):
    """A8: a straggler does, and reports, half of what is planned."""

    def answer(site: int) -> RecordDict:
        return good(site, mechanism=asdict(replace(STEP, steps=1 if site == slow else 2)))

    planned = {node_of(site): (f"site{site}", replace(STEP, steps=2)) for site in range(4)}
    spend = Budget(spent_by({}), limit_of(6), planned, rounds=9)
    finished, _ = run(answer, spend, rounds=9)
    assert finished.rounds == 3
    assert all(spend.ledger.epsilon(f"site{site}") <= spend.epsilon for site in range(4))


def test_every_release_is_charged_once():
    """A9."""
    spend = budget(100)
    run(private, spend, rounds=3)
    assert [(entry.round, entry.site) for entry in spend.ledger.entries] == [
        (number, f"site{site}") for number in (1, 2, 3) for site in range(4)
    ]


def test_what_the_site_says_it_did_is_charged():
    weaker = {**asdict(STEP), "noise_multiplier": 1.0}
    spend = budget(100)
    run(lambda site: good(site, mechanism=weaker if site == 2 else asdict(STEP)), spend, rounds=1)
    assert spend.ledger.epsilon("site2") > spend.ledger.epsilon("site1")


@pytest.mark.parametrize(
    "mechanism", [None, {"sigma": 1.0}, {**asdict(STEP), "steps": -1}, {**asdict(STEP), "noise_multiplier": 0.0}]
)
def test_a_site_that_does_not_say_is_charged_as_planned(mechanism: dict | None):
    spend = budget(100)
    run(lambda site: good(site, mechanism=mechanism), spend, rounds=1)
    assert {entry.mechanism for entry in spend.ledger.entries} == {STEP}


def test_a_malformed_update_is_charged_too():
    """It was seen, whether or not it could be used."""

    def answer(site: int) -> RecordDict:
        content = private(site)
        if site == 1:
            del content["arrays"]
        return content

    spend = budget(100)
    finished, _ = run(answer, spend, rounds=1)
    assert len(finished.rejected[1]) == 1
    assert len(spend.ledger.entries) == 4


def test_a_site_that_failed_is_charged_as_planned():
    """Whether it fails may depend on its rows."""

    def answer(site: int) -> RecordDict:
        if site == 1:
            raise ValueError("no")
        return private(site)

    spend = budget(100)
    run(answer, spend, rounds=1)
    assert [entry.site for entry in spend.ledger.entries] == ["site0", "site1", "site2", "site3"]
    assert {entry.mechanism for entry in spend.ledger.entries} == {STEP}


def test_a_round_without_any_usable_model_ends_the_run_and_says_why():
    def answer(site: int) -> RecordDict:
        raise ValueError(f"broken {site}")

    with pytest.raises(
        RunFailed, match=r"(?s)round 1: no site sent a usable model.*node 2: failed: ValueError: broken 0"
    ):
        run(answer, None)
