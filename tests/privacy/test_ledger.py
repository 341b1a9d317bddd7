import itertools
import json
from dataclasses import replace

import pytest

from fedsim.mistakes import Mistake
from fedsim.privacy.ledger import Entry, Ledger, Mechanism

ROUND = Mechanism(sampling_rate=1 / 19, noise_multiplier=1.1, clip=1.0, expected_batch=16, steps=19)


def ledger_of(rounds: int, site: str = "a") -> Ledger:
    ledger = Ledger(1e-4, "add-or-remove-one")
    for number in range(1, rounds + 1):
        ledger.charge(site, number, ROUND)
    return ledger


@pytest.mark.whole
def test_twenty_rounds_cost_what_their_steps_cost_together():
    """A7, M7: an epsilon per round would be 1.247."""
    assert ledger_of(20).epsilon("a") == pytest.approx(4.936016, abs=1e-3)


@pytest.mark.whole
def test_restarts_and_rounds_without_a_site_change_nothing():
    """A7: a ledger written down and read again after each of 20 rounds, among 10 others that a site was not in."""
    ledger = Ledger(1e-4, "add-or-remove-one")
    for number in range(1, 31):
        ledger.charge("a" if number % 3 else "b", number, ROUND)
        written = json.loads(json.dumps(ledger.as_json()))["entries"]
        entries = tuple(Entry(e["site"], e["round"], Mechanism(**e["mechanism"])) for e in written)
        ledger = Ledger(1e-4, "add-or-remove-one", entries)
    assert len(ledger.entries) == 30
    assert ledger.epsilon("a") == pytest.approx(4.936016, abs=1e-3)
    assert ledger.epsilon("b") == ledger_of(10).epsilon("a")


@pytest.mark.whole
def test_epsilon_grows_with_every_round():
    spent = [ledger_of(rounds).epsilon("a") for rounds in range(4)]
    assert spent[0] == 0
    assert all(later > earlier for earlier, later in itertools.pairwise(spent))


@pytest.mark.whole
def test_what_is_planned_is_counted_before_it_happens():
    ledger = ledger_of(1)
    assert ledger.epsilon_of(ledger.spent("a"), ROUND) == ledger_of(2).epsilon("a")
    assert len(ledger.entries) == 1


def test_each_site_has_an_epsilon_of_its_own():
    ledger = ledger_of(2)
    ledger.charge("b", 1, replace(ROUND, noise_multiplier=4.0))
    assert ledger.epsilon("b") < ledger.epsilon("a") == ledger_of(2).epsilon("a")


@pytest.mark.whole
def test_the_relation_decides():
    ledger = Ledger(1e-4, "replace-one", ledger_of(20).entries)
    assert ledger.epsilon("a") == pytest.approx(8.409, abs=1e-3)


def test_a_mechanism_without_noise_can_not_be_written_down():
    with pytest.raises(Mistake, match="noise_multiplier"):
        replace(ROUND, noise_multiplier=0.0)
