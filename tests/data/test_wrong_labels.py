import numpy as np
import pytest
import torch

from fedsim.data.federation import federate
from fedsim.data.wrong_labels import mislabel
from fedsim.experiments.arms import Job, run_job
from fedsim.mistakes import Mistake
from fedsim.planning.participation import joined
from fedsim.privacy.ledger import Ledger

LATE = "faults.joins_late={switzerland=3}"


def test_all_training_labels_of_one_site_are_wrong_and_no_others(scenario):
    honest, faulty = (federate(scenario(*extra), 0) for extra in ([], ["faults.wrong_labels={hungarian=1.0}"]))
    for before, after in zip(honest.sites, faulty.sites, strict=True):
        wrong = before.name == "hungarian"
        assert torch.equal(after.train.target, 1 - before.train.target if wrong else before.train.target)
        assert torch.equal(after.train.inputs, before.train.inputs)
        for part in ("validation", "test"):
            assert torch.equal(getattr(after, part).target, getattr(before, part).target)


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        ("binary", np.tile(np.float32([0, 1]), 50)),
        ("classes", np.tile([0, 2, 5, 7], 25)),
        ("number", np.linspace(0.1, 1, 100, dtype=np.float32)),
    ],
)
def test_a_share_of_the_labels_is_wrong_whatever_they_are(kind, target: np.ndarray):
    changed = mislabel(target, kind, 0.3, 0, "north")
    assert (changed != target).sum() == 30
    assert changed.dtype == target.dtype
    if kind != "number":
        assert set(changed) <= set(target)
    np.testing.assert_array_equal(changed, mislabel(target, kind, 0.3, 0, "north"))
    assert (changed != mislabel(target, kind, 0.3, 1, "north")).any()
    assert (changed != mislabel(target, kind, 0.3, 0, "south")).any()


def test_a_late_site_is_there_from_its_round_on(scenario):
    names = ["cleveland", "hungarian", "switzerland", "va_long_beach"]
    late = scenario(LATE, "training.rounds=4")
    assert list(joined(late, names, 2)) == [0, 1, 3]
    assert list(joined(late, names, 3)) == [0, 1, 2, 3]


@pytest.mark.whole
@pytest.mark.parametrize("arm", ["federated", "local"])
def test_the_ledger_charges_a_late_site_for_the_rounds_it_was_in(scenario, arm):
    private = scenario(LATE, "privacy.epsilon=8", "training.rounds=4")
    done = run_job(private, Job(arm, True, 0), lambda number: None)
    assert done.ledger is not None
    rounds = {
        site: [entry.round for entry in done.ledger.entries if entry.site == site]
        for site in private_sites(done.ledger)
    }
    assert rounds.pop("switzerland") == [3, 4]
    assert all(found == [1, 2, 3, 4] for found in rounds.values())
    assert done.ledger.epsilon("switzerland") < done.ledger.epsilon("cleveland") <= 8


def private_sites(ledger: Ledger) -> set[str]:
    return {entry.site for entry in ledger.entries}


@pytest.mark.whole
def test_the_centralized_arm_waits_for_the_rows_of_a_late_site(scenario):
    """Its denominators are those of the sites that are there; before that, their rows are all it trains on."""
    sizes = {"cleveland": 90.0, "hungarian": 90.0, "switzerland": 36.0, "va_long_beach": 60.0}
    batches = ", ".join(f"{site}={size}" for site, size in sizes.items())
    private = scenario(LATE, f"training.expected_batch={{{batches}}}", "training.rounds=3")
    done = run_job(private, Job("centralized", True, 0), lambda number: None)
    assert done.ledger is not None
    assert [entry.mechanism.expected_batch for entry in done.ledger.entries] == [240, 240, 276]
    never = scenario("faults.joins_late={switzerland=3}", "training.rounds=3", "privacy.unit='none'")
    wrong = scenario(LATE, "faults.wrong_labels={switzerland=1.0}", "training.rounds=3", "privacy.unit='none'")
    curves = [
        run_job(one, Job("centralized", False, 0), lambda number: None).curve["log_loss"] for one in (never, wrong)
    ]
    assert (curves[0][:2] == curves[1][:2]).all()
    assert curves[0][2] != curves[1][2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("faults.wrong_labels={geneva=0.5}", "faults.wrong_labels: expected the name of a site, got 'geneva'"),
        ("faults.wrong_labels={cleveland=1.5}", "faults.wrong_labels.cleveland: expected a number <= 1, got 1.5"),
        (
            "faults.joins_late={clevelan=2}",
            "faults.joins_late: expected the name of a site, .* did you mean 'cleveland'",
        ),
        ("faults.joins_late={cleveland=1}", "faults.joins_late.cleveland: expected a number >= 2, got 1"),
        ("faults.joins_late={cleveland=99}", "faults.joins_late: expected rounds up to 20, the last, got 99"),
        (
            "faults.joins_late={cleveland=2, hungarian=2, switzerland=2, va_long_beach=2}",
            "faults.joins_late: expected a site that is there from the first round",
        ),
    ],
)
def test_a_fault_that_can_t_be_is_a_mistake(scenario, change: str, message: str):
    with pytest.raises(Mistake, match=message):
        federate(scenario("training.rounds=20", change), 0)


def test_who_joins_late_is_not_drawn(scenario):
    with pytest.raises(Mistake, match=r"faults.joins_late: expected no training.sites_per_round beside it"):
        scenario(LATE, "training.sites_per_round=2")
