"""``fedsim deploy`` as it is typed: a plan, a site's ledger, and what is said of mistakes."""

import json
from pathlib import Path

import pytest

from tests.real_sites import PRIVATE, SITES, Hospitals, scenario, settle, train

NAMED = [word for site in SITES for word in ("--site", site)]
QUICK = ["--set", "privacy.noise_multiplier=3.0", "--set", "privacy.epsilon=900"]


def test_a_plan_is_written_and_says_where_to_read_on(fedsim):
    ran = fedsim("deploy", "plan", "hospital-heart", "plan", *NAMED, *QUICK, "--server", "fl.example.org")
    assert ran.code == 0, ran.err
    assert [line.split(":")[0] for line in ran.out.splitlines()] == ["what to do", "server", "sites"]
    assert "fl.example.org:9092" in Path("plan/README.md").read_text()
    assert 'rng = "secure"' in Path("plan/server/app/fedsim_exported/scenario.toml").read_text()


def test_a_plan_without_privacy_asks_for_no_noise(fedsim):
    ran = fedsim("deploy", "plan", "hospital-heart", "plan", *NAMED, "--epsilon", "none")
    assert ran.code == 0, ran.err
    assert "plain = true" in Path("plan/sites/cleveland/site-policy.toml").read_text()


def test_sites_that_the_scenario_has_no_batch_for_are_named(fedsim):
    ran = fedsim("deploy", "plan", "hospital-heart", "plan", "--site", "north", "--site", "south")
    assert ran.code == 2
    assert "training.expected_batch: expected one number for each of north, south" in ran.err
    assert not Path("plan").exists()


def test_a_name_that_is_no_site_is_refused(fedsim):
    ran = fedsim("deploy", "plan", "hospital-heart", "plan", "--site", "../north", "--site", "south")
    assert ran.code == 2
    assert "deployment.sites" in ran.err
    assert "Traceback" not in ran.err


def test_a_ledger_is_begun_once(fedsim):
    assert fedsim("deploy", "ledger", "own", "--site", "north").code == 0
    again = fedsim("deploy", "ledger", "own", "--site", "north")
    assert again.code == 2
    assert "what was spent stays spent" in again.err


@pytest.mark.whole
def test_the_status_of_a_site_is_what_left_it(fedsim, tmp_path: Path):
    folder = settle(tmp_path / "sites")
    nothing = fedsim("deploy", "status", str(folder / SITES[0]))
    assert nothing.out.splitlines() == [
        "cleveland has spent epsilon 0.00 of 100, at delta 0.0001, in all private trainings together.",
        "Nothing has left yet.",
    ]
    train(scenario(*PRIVATE), Hospitals(folder), tmp_path / "out")
    told = fedsim("deploy", "status", str(folder / SITES[0]))
    assert "cleveland has spent epsilon 1.52 of 100" in told.out
    assert "Four hospitals learn to predict heart disease: 3 noisy models (training " in told.out
    document = json.loads(fedsim("deploy", "status", str(folder / SITES[0]), "--json").out)
    assert document["trainings"][0]["noisy"] == 3
    assert 1.51 < document["epsilon"] < 1.52


def test_a_folder_that_is_no_sites_is_a_line(fedsim, tmp_path: Path):
    ran = fedsim("deploy", "status", str(tmp_path))
    assert ran.code == 2
    assert "site-policy.toml: expected the site's policy" in ran.err
