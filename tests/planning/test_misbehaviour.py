"""Attackers and faults: who they are, what they are charged, and that the others' answers are left alone."""

import numpy as np
import pytest

from fedsim.experiments.arms import Job, run_job
from fedsim.mistakes import Mistake
from fedsim.planning.misbehaviour import attack_of, attackers_of
from fedsim.scenario.files import read
from tests.clients.attacks.running import run, weights

SITES = [f"site{number}" for number in range(20)]


def attack(*overrides: str):
    return read("hospital-heart", ["attack.name=sign-flip", *overrides])


def test_a_larger_share_of_attackers_holds_a_smaller_one():
    few, many = (attackers_of(attack(f"attack.share={share}"), 3, SITES) for share in (0.2, 0.5))
    assert (len(few), len(many)) == (4, 10)
    assert few < many
    assert few != attackers_of(attack("attack.share=0.2"), 4, SITES)
    assert attackers_of(attack('attack.sites=["site3", "site1"]'), 0, SITES) == {1, 3}
    assert attackers_of(read("hospital-heart"), 0, SITES) == frozenset()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "expected either sites or share beside name"),
        (["attack.share=0.2", 'attack.sites=["site1"]'], "expected either sites or share beside name"),
        (["attack.share=1.5"], "attack.share: expected a number <= 1, got 1.5"),
        (
            ["attack.name=sign-flop", "attack.share=0.1"],
            "expected the name of an attack, got 'sign-flop'; did you mean",
        ),
        (
            ["attack.share=0.1", "attack.factr=2"],
            "attack.factr: sign-flip has no such hyperparameter; did you mean 'factor'",
        ),
        (["attack.share=0.1", "attack.factor=-2"], r"attack: factor: expected a number in \(0, inf\), got -2"),
        (['attack.sites=["site"]'], "expected sites of this federation, got 'site'"),
    ],
)
def test_a_wrong_attack_is_explained(overrides: list[str], message: str):
    with pytest.raises(Mistake, match=message):
        attack_of(attack(*overrides))
        attackers_of(attack(*overrides), 0, SITES)


def test_an_attack_under_privacy_is_charged_like_an_honest_site(scenario):
    clean = run(scenario, private=True).ledger
    found = run(scenario, "attack.name=sign-flip", "attack.share=0.5", private=True).ledger
    assert found.entries == clean.entries


def test_dropping_out_is_drawn_for_each_site_and_round(scenario):
    notes = run_job(
        scenario("training.rounds=50", "faults.drop_out=0.3"), Job("federated", False, 0), lambda number: None
    ).notes
    assert all(note.endswith("was left out: failed: dropped out") for note in notes)
    assert 40 <= len(notes) <= 80  # 200 draws at 0.3: 60, standard deviation 6.5
    assert len({note.split(" was")[0].split(": ")[1] for note in notes}) == 4


def test_a_crashed_site_does_not_come_back(scenario):
    notes = run_job(
        scenario("training.rounds=5", "faults.crash=0.25", "faults.crash_round=3"),
        Job("federated", False, 0),
        lambda number: None,
    ).notes
    assert [note[:8] for note in notes] == ["round 3:", "round 4:", "round 5:"]
    assert len({note[8:] for note in notes}) == 1


def test_nan_is_set_aside_and_named(scenario):
    found = run(scenario, "faults.spoiled=0.25", "training.rounds=1")
    assert len(found.notes) == 1
    assert "expected finite numbers, got 31 NaN or Inf" in found.notes[0]
    assert weights(found).isfinite().all()


@pytest.mark.parametrize("engine", ["serial", "cohort"])
def test_a_straggler_takes_fewer_steps_and_is_charged_for_those(scenario, engine: str):
    found = run(scenario, "faults.straggler=0.5", f"engine={engine}", private=True)
    by_site: dict[str, set[int]] = {}
    for entry in found.ledger.entries:
        by_site.setdefault(entry.site, set()).add(entry.mechanism.steps)
    assert sorted(map(sorted, by_site.values())) == [[1], [1], [2], [2]]


def test_faults_and_attacks_shape_what_is_released():
    """They are in the name of the noise, so that two variants share none."""
    assert attack("attack.share=0.2").release != read("hospital-heart").release
    assert read("hospital-heart", ["faults.spoiled=0.1"]).release != read("hospital-heart").release
    np.testing.assert_equal(read("hospital-heart").release, read("hospital-heart").release)
