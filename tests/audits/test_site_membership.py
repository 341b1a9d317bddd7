"""Which sites took part? The attack on whole federations."""

from dataclasses import replace

import numpy as np
import pytest

from fedsim.audits.attacks import site_membership
from fedsim.audits.attacks.site_membership import attack
from fedsim.audits.bounds import ceiling
from fedsim.audits.claims import SiteClaim, claim_of
from fedsim.audits.target import Effort, Target, Training, targets_of
from fedsim.experiments.arms import GLOBAL, Job, run_job
from fedsim.scenario.files import read
from fedsim.scenario.schema import Scenario
from tests.cases import others_whole

UNITS = {
    "client": ["privacy.unit=client"],
    "local": ["privacy.unit=local"],
    "distributed": ["privacy.unit=distributed", "secure_aggregation={drop_outs=0}"],
}


def heart(unit: str, *changes: str) -> Scenario:
    """Whole hospitals; all rows take part in every step, so that noise at the sites' updates is all there is."""
    return read(
        "hospital-heart", ["privacy.delta=1e-5", "arms=['federated']", "training.rounds=5", *UNITS[unit], *changes]
    )


def attacked(scenario: Scenario, shadows: int = 32) -> tuple[Target, SiteClaim]:
    """Return the plain target, and the claim."""
    claim = claim_of(scenario)
    assert isinstance(claim, SiteClaim)
    plain, private = targets_of(scenario, claim, Effort(shadows=shadows))
    assert [plain.training, private.training] == ["plain", "private"]
    return plain, claim


def at(target: Target, training: Training, claim: SiteClaim) -> Target:
    return replace(target, training=training, claim=claim)


@pytest.mark.parametrize("unit", others_whole(UNITS, "client"))
def test_hospitals_that_took_part_are_told_unless_there_is_noise(unit: str):
    """A standard error of about 0.05 for 4 hospitals in 32 federations; the four are far from alike."""
    target, claim = attacked(heart(unit, "privacy.epsilon=1"))
    plain = attack(at(target, "plain", claim))["lira"].auc
    private = attack(at(target, "private", claim))["lira"].auc
    assert plain > 0.9
    assert private <= ceiling(claim.epsilon, claim.delta) + 0.05


@pytest.mark.parametrize("unit", others_whole(UNITS, "client"))
def test_noise_that_is_missing_is_noticed(unit: str):
    target, claim = attacked(heart(unit, "privacy.epsilon=1", "privacy.clip=10"))
    quiet = replace(claim, release=replace(claim.release, noise_multiplier=1e-3))
    assert attack(at(target, "private", quiet))["lira"].auc > ceiling(claim.epsilon, claim.delta) + 0.1


@pytest.mark.parametrize("unit", others_whole([None, *UNITS], "client"))
def test_a_federation_of_all_sites_is_trained_as_in_a_run(unit: str | None):
    """The oracle: the run's own code, with steps on all rows, so that nothing is drawn; noise is next to none."""
    all_rows = ["training.sampling_rate=1", "training.expected_batch=100"]
    target, claim = attacked(heart(unit or "client", *all_rows, "privacy.clip=10"))
    quiet = replace(claim, release=replace(claim.release, noise_multiplier=1e-6))
    target = at(target, "private" if unit else "plain", quiet)
    members = np.ones((1, len(target.federation.sites)), bool)
    (found,) = site_membership.federate(target, members, [site_membership.round_of(target, 0)])
    run = run_job(target.scenario, Job("federated", False, 0), lambda number: None).models[GLOBAL]
    expected = np.concatenate([value.numpy().ravel() for value in run.values()])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)
    assert np.abs(expected - target.start.numpy()).max() > 0.1


@pytest.mark.whole
def test_three_sites_are_too_few():
    scenario = read("hospital-heart", ["privacy.unit=local", "privacy.delta=1e-5", "partition={by='iid',sites=3}",
                                       "training.expected_batch=25"])  # fmt: skip
    target, claim = attacked(scenario, shadows=8)
    assert attack(at(target, "plain", claim)) == {}
