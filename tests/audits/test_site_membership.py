"""Which sites took part? The attack on whole federations."""

from dataclasses import replace

import numpy as np
import pytest

from fedsim.audits import site_membership
from fedsim.audits.bounds import ceiling
from fedsim.audits.claims import SiteClaim, claim_of
from fedsim.audits.site_membership import Attacked, attack
from fedsim.audits.target import Effort, Target
from fedsim.experiments.arms import GLOBAL, Job, run_job
from fedsim.scenario.files import read
from fedsim.scenario.schema import Scenario

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


def attacked(scenario: Scenario) -> tuple[Attacked, SiteClaim]:
    claim, target = claim_of(scenario), Target.of(scenario, None, Effort(), lambda attack: None)
    assert isinstance(claim, SiteClaim)
    return Attacked(scenario, target.federation, target.start, target.model, target.losses, target.train_all), claim


@pytest.mark.parametrize("unit", UNITS)
def test_hospitals_that_took_part_are_told_unless_there_is_noise(unit: str):
    """A standard error of about 0.05 for 4 hospitals in 32 federations; the four are far from alike."""
    one, claim = attacked(heart(unit, "privacy.epsilon=1"))
    plain, private = (attack(one, claim, kind, 32, 0)["lira"].auc for kind in ("plain", "private"))
    assert plain > 0.9
    assert private <= ceiling(claim.epsilon, claim.delta) + 0.05


@pytest.mark.parametrize("unit", UNITS)
def test_noise_that_is_missing_is_noticed(unit: str):
    one, claim = attacked(heart(unit, "privacy.epsilon=1", "privacy.clip=10"))
    quiet = replace(claim, release=replace(claim.release, noise_multiplier=1e-3))
    assert attack(one, quiet, "private", 32, 0)["lira"].auc > ceiling(claim.epsilon, claim.delta) + 0.1


@pytest.mark.parametrize("unit", [None, *UNITS])
def test_a_federation_of_all_sites_is_trained_as_in_a_run(unit: str | None):
    """The oracle: the run's own code, with steps on all rows, so that nothing is drawn; noise is next to none."""
    all_rows = ["training.sampling_rate=1", "training.expected_batch=100"]
    one, claim = attacked(heart(unit or "client", *all_rows, "privacy.clip=10"))
    quiet = replace(claim, release=replace(claim.release, noise_multiplier=1e-6)) if unit else None
    members = np.ones((1, len(one.federation.sites)), bool)
    (found,) = site_membership._federate(one, members, [site_membership._round(one, quiet, 0, 0)], 0)
    run = run_job(one.scenario, Job("federated", False, 0), lambda: None).models[GLOBAL]
    expected = np.concatenate([value.numpy().ravel() for value in run.values()])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)
    assert np.abs(expected - one.start.numpy()).max() > 0.1


def test_three_sites_are_too_few():
    scenario = read("hospital-heart", ["privacy.unit=local", "privacy.delta=1e-5", "partition={by='iid',sites=3}",
                                       "training.expected_batch=25"])  # fmt: skip
    one, claim = attacked(scenario)
    assert attack(one, claim, "plain", 8, 0) == {}
