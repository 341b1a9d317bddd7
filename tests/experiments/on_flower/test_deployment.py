"""The plan of a deployment, and the whole of it on one machine: processes, TLS, keys, kills."""

import os
import signal
import stat
import time
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clients.hospital import heart_tables
from fedsim.experiments.arms import GLOBAL, Job, run_job
from fedsim.experiments.on_flower import deployed, deployment_demo
from fedsim.experiments.on_flower.deployment_demo import federation, rounds_of, submit, superlink_of, wait_for_end
from fedsim.experiments.on_flower.deployment_plan import Plan, write_plan
from fedsim.experiments.on_flower.programs import HOST, free_ports
from fedsim.mistakes import Mistake, RunFailed
from fedsim.scenario.changes import with_strategy
from fedsim.scenario.files import read
from fedsim.site import own_ledger
from fedsim.site.policy import read_policy
from tests.real_sites import PLAIN, PRIVATE, ROUNDS, SITES, Hospitals, scenario, train


def planned(folder: Path, *changes: str, port: int = 9092) -> Plan:
    plan = write_plan(scenario(*changes), folder / "plan", HOST, port)
    for site, table in heart_tables().items():
        table.to_csv(plan.site(site) / "rows.csv", index=False)
    return plan


@pytest.mark.whole
@pytest.mark.parametrize("changes", [pytest.param(PRIVATE, id="private"), pytest.param(PLAIN, id="plain")])
def test_what_is_planned_allows_what_is_asked_for_once(tmp_path: Path, changes: tuple[str, ...]):
    """The policies that a plan writes are no wider than its scenario: a second training is beyond them."""
    spent = "privacy.epsilon=1.6" if changes is PRIVATE else "privacy.epsilon=8"
    plan = planned(tmp_path, *changes, spent)
    told = scenario(*changes, spent)
    train(told, Hospitals(plan.folder / "sites"), tmp_path / "first")
    if changes is PRIVATE:
        with pytest.raises(RunFailed, match="its 3 rounds would take this site's epsilon to"):
            train(told, Hospitals(plan.folder / "sites"), tmp_path / "second")


def test_a_plan_has_all_that_each_needs_and_keeps_keys_apart(tmp_path: Path):
    plan = planned(tmp_path, *PRIVATE)
    assert {path.name for path in plan.server.iterdir()} == {
        *("app", "ca.crt", "fedsim-superlink.service", "flower", "keys", "server.crt", "server.key"),
    }
    for site in SITES:
        own = plan.site(site)
        assert {path.name for path in own.iterdir()} == {
            *("ca.crt", "fedsim-ledger", "fedsim-supernode.service", "node.key", "rows.csv", "site-policy.toml"),
        }
        assert stat.S_IMODE((own / "node.key").stat().st_mode) == 0o600
        assert stat.S_IMODE((own / "fedsim-ledger").stat().st_mode) == 0o700
        assert read_policy(own / "site-policy.toml").smallest_noise == 3.0
        assert (plan.server / "keys" / f"{site}.pub").read_text().startswith("ecdsa-sha2-nistp384 ")
    keys = [path.read_bytes() for path in plan.folder.rglob("*.key")]
    assert len(set(keys)) == len(keys) == len(SITES) + 1
    text = (plan.folder / "README.md").read_text()
    for command in ("flower-superlink --host 0.0.0.0", "flwr supernode register 'keys/cleveland.pub'", "flwr run app"):
        assert command in text


def test_the_app_of_a_plan_is_for_real_sites(tmp_path: Path):
    plan = planned(tmp_path, *PRIVATE)
    project = tomllib.loads((plan.app / "pyproject.toml").read_text())
    assert project["tool"]["flwr"]["app"]["config"] == {"out": ""}
    assert "fedsim.site.real import app" in (plan.app / "fedsim_exported" / "client.py").read_text()
    assert "on_flower.deployed import app_for" in (plan.app / "fedsim_exported" / "server.py").read_text()
    told = read(str(plan.app / "fedsim_exported" / "scenario.toml"))
    assert told.deployment.sites == SITES


def test_a_strategy_of_ones_own_goes_along_and_is_named_in_the_policies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "mine.py"
    path.write_text(
        "class Mine:\n    def aggregate(self, center, updates, weights, state):\n        return center, {}\n"
    )
    plan = planned(tmp_path, *PRIVATE, with_strategy(str(path)))
    named = "fedsim_exported.mine:Mine"
    assert read_policy(plan.site(SITES[0]) / "site-policy.toml").strategies == [named]
    in_app = tomllib.loads((plan.app / "fedsim_exported" / "scenario.toml").read_text())
    assert in_app["strategy"]["name"] == named


def test_a_directory_that_is_taken_and_a_scenario_for_simulations_are_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(Mistake, match="expected a new or empty directory, it is taken"):
        write_plan(scenario(*PRIVATE), tmp_path, HOST, 9092)
    with pytest.raises(Mistake, match=r"deployment\.sites: expected the names of the sites, got none"):
        write_plan(scenario(*PRIVATE, "deployment.sites=[]"), tmp_path / "plan", HOST, 9092)
    assert not (tmp_path / "plan").exists()


@pytest.mark.slow
def test_the_demonstration_kills_a_site_in_mid_round_and_ends_well(tmp_path: Path):
    said: list[str] = []
    rehearsed = deployment_demo.rehearse(tmp_path / "federation", said.append)
    assert "va_long_beach is killed in the middle of round 2" in said[-1]
    about = deployment_demo.about(rehearsed.run)
    assert about["notes"] == [f"round {number}: va_long_beach was left out: did not answer" for number in (2, 3, 4)]
    rounds = {site: rounds_of(folder, site) for site, folder in rehearsed.sites.items()}
    assert rounds == {**dict.fromkeys(SITES[:3], 4), "va_long_beach": 2}


@pytest.mark.slow
def test_a_superlink_that_is_killed_and_started_again_ends_where_it_would_have_ended(tmp_path: Path):
    """The app is submitted again; what sites had answered they answer again, and nothing is charged twice."""
    port, *own_ports = free_ports(1 + len(SITES))
    plan = planned(tmp_path, *PLAIN, "limits.round_seconds=120", port=port)
    run = tmp_path / "run"
    with federation(plan, port, own_ports, tmp_path) as (superlink, _):
        submit(plan, run)
        while rounds_of(plan.site(SITES[0]), SITES[0]) < 2:
            assert superlink.poll() is None
            time.sleep(0.2)
        os.killpg(superlink.pid, signal.SIGKILL)
        superlink.wait()
        assert not (run / deployed.ABOUT).exists()
        with superlink_of(plan, port, tmp_path) as again:
            submit(plan, run)
            wait_for_end(run, again, tmp_path)
    told = read("hospital-heart", [*ROUNDS, "privacy.unit=none"])
    simulated = run_job(told, Job("federated", False, 0), lambda number: None).models[GLOBAL]
    trained = load_file(run / "model.safetensors")
    assert all(torch.equal(trained[name], simulated[name]) for name in simulated)
    for site in SITES:
        with own_ledger.opened(plan.site(site) / "fedsim-ledger", site) as ledger:
            asked = [(entry.question.what, entry.question.round) for entry in ledger.entries]
        assert asked == [("train", 1), ("train", 2), ("train", 3), ("evaluate", 3)]


@pytest.mark.slow
def test_a_site_that_never_answers_is_done_without_after_the_time_of_a_round(tmp_path: Path):
    """Its SuperNode is stopped, not ended: it holds its connection and says nothing."""
    port, *own_ports = free_ports(1 + len(SITES))
    changes = ("limits.round_seconds=60", "deployment.tries=1", "training.rounds=2")
    plan = planned(tmp_path, *PRIVATE, *changes, port=port)
    run = tmp_path / "run"
    with federation(plan, port, own_ports, tmp_path) as (superlink, nodes):
        submit(plan, run)
        while rounds_of(plan.site(SITES[0]), SITES[0]) < 1:
            assert superlink.poll() is None
            time.sleep(0.2)
        os.killpg(nodes[SITES[1]].pid, signal.SIGSTOP)
        try:
            wait_for_end(run, superlink, tmp_path)
        finally:
            os.killpg(nodes[SITES[1]].pid, signal.SIGCONT)
    notes = deployment_demo.about(run)["notes"]
    assert f"round 2: {SITES[1]} was left out: did not answer" in notes
    assert all(SITES[1] in note for note in notes)
