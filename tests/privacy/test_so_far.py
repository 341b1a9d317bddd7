"""The epsilon so far: that of the ledger at each moment, computed for the costliest sites only."""

import pytest

from fedsim.privacy import so_far
from fedsim.privacy.ledger import Entry, Ledger, Mechanism
from fedsim.privacy.so_far import SpentSoFar, round_by_round


def mechanism(noise: float, steps: int = 2, rate: float = 1.0) -> Mechanism:
    return Mechanism(rate, noise, 1.0, 60.0, steps)


def largest_of(ledger: Ledger) -> float:
    return max(ledger.epsilon(site) for site in {entry.site for entry in ledger.entries})


ENTRIES = [
    Entry("a", 1, mechanism(2.0)),
    Entry("b", 1, mechanism(2.0, steps=1)),
    Entry("a", 2, mechanism(2.0)),
    Entry("c", 2, mechanism(1.5)),
    Entry("b", 4, mechanism(1.0)),
]


@pytest.mark.parametrize("trainings", [1, 7])
def test_it_is_the_largest_epsilon_of_the_ledger_after_each_round(trainings: int):
    found = list(round_by_round(Ledger(1e-4, "add-or-remove-one", trainings=trainings), ENTRIES, 4))
    for number, one in enumerate(found, 1):
        entries = tuple(entry for entry in ENTRIES if entry.round <= number)
        assert one.epsilon == largest_of(Ledger(1e-4, "add-or-remove-one", entries, trainings))
    assert found[1].epsilon == found[2].epsilon < found[3].epsilon
    assert SpentSoFar.of(Ledger(1e-4, "add-or-remove-one")).epsilon == 0.0


def test_the_accountant_is_asked_once_for_sites_that_released_alike_or_less(monkeypatch: pytest.MonkeyPatch):
    ledger = Ledger(1e-4, "replace-one")
    for number in range(1, 6):
        for site in range(100):
            if site % number == 0:  # some take part less often
                ledger.charge(f"site {site}", number, mechanism(2.0, steps=1 + site % 2))
    asked = []
    epsilon = so_far.epsilon
    monkeypatch.setattr(so_far, "epsilon", lambda *what: asked.append(what) or epsilon(*what))
    assert SpentSoFar.of(ledger).epsilon == largest_of(ledger)
    assert len(asked) == 1


def test_another_relation_and_another_noise_count():
    ledger = Ledger(1e-4, "replace-one", (Entry("a", 1, mechanism(2.0, steps=9)), Entry("b", 1, mechanism(0.9))))
    assert len(SpentSoFar.of(ledger).largest) == 2
    assert SpentSoFar.of(ledger).epsilon == largest_of(ledger)
