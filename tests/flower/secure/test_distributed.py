"""Whole sites protected by shares of the noise under secure aggregation, from the scenario to the statement."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedsim.data.federation import federate
from fedsim.experiments import experiment
from fedsim.experiments.arms import GLOBAL, Job, jobs, run_job
from fedsim.flower.secure import server
from fedsim.mistakes import Mistake
from fedsim.planning import misbehaviour
from fedsim.planning.noise import noise_for
from fedsim.planning.trial import Trial
from fedsim.privacy.accounting import Segment, epsilon
from fedsim.privacy.noise_shares import NoiseShare, clipped
from fedsim.privacy.units import distributed
from fedsim.report.statement import statement
from fedsim.scenario.files import read
from fedsim.scenario.schema import Scenario

PRIVATE = Job("federated", True, 0)
SMALL = ("partition.sites=7", "training.rounds=2", "training.local_steps=2", "seeds=1", "privacy.unit=distributed")
HALVES = (slice(0, 5), slice(5, 10))
SHARED = ("secure_aggregation={drop_outs=2, colluding=1}", "privacy.epsilon=20", "faults.drop_out=0")


def scenario(*overrides: str) -> Scenario:
    return read("synthetic-untrusted-server", [*SMALL, *SHARED, *overrides])


def trained(chosen: Scenario):
    return run_job(chosen, PRIVATE, lambda number: None)


@pytest.fixture
def some_drop_out(monkeypatch: pytest.MonkeyPatch):
    """Return what lets the first sites drop out of the second round."""

    def let(count: int) -> str:
        monkeypatch.setattr(misbehaviour, "_drops_out", lambda seed, number, site, share: number == 2 and site < count)
        return "faults.drop_out=0.1"

    return let


def test_a_training_spends_its_epsilon_at_every_site_and_says_what_was_done():
    chosen = scenario()
    ledger = trained(chosen).ledger
    assert ledger is not None
    noise = noise_for(chosen, 0, "federated")
    assert {entry.mechanism for entry in ledger.entries} == {NoiseShare(noise, 0.5, 6274, 7, 2, 1)}
    assert len(ledger.entries) == 14
    for site in {entry.site for entry in ledger.entries}:
        assert ledger.epsilon(site) == epsilon([Segment(1.0, noise, 2)], 1e-4)
        assert 19.9 < ledger.epsilon(site) <= 20
        assert ledger.record_epsilon(site) > ledger.epsilon(site)


def test_only_the_federated_arm_is_private():
    keys = [job.key for job in jobs(scenario("arms=['federated', 'local']"))]
    assert keys == ["federated-plain-0", "local-plain-0", "federated-private-0"]


@pytest.mark.whole
def test_both_engines_agree():
    one, other = (trained(scenario(f"engine={name}")) for name in ("serial", "cohort"))
    step = NoiseShare(noise_for(scenario(), 0, "federated"), 0.5, 6274, 7, 2, 1).grid.resolution
    for name, model in one.models[GLOBAL].items():
        torch.testing.assert_close(other.models[GLOBAL][name], model, rtol=1e-4, atol=1e-5 + 2 * step)


def tapped(monkeypatch: pytest.MonkeyPatch, chosen: Scenario):
    """Train; return what trained, all calls of ``noisy`` with what they returned, and the server's sums."""
    calls, sums = [], []
    noisy, total = distributed.noisy, server.unmasked_sum
    monkeypatch.setattr(distributed, "noisy", lambda *args: calls.append((args, noisy(*args))) or calls[-1][1])
    monkeypatch.setattr(server, "unmasked_sum", lambda *args: sums.append(total(*args)) or sums[-1])
    return trained(chosen), calls, sums


def test_the_server_learns_the_sum_of_noisy_updates_and_divides_by_a_public_number(monkeypatch, some_drop_out):
    """An oracle: with two of seven gone in round 2, the model moves by the sum of the rest over the weight of all."""
    done, calls, sums = tapped(monkeypatch, scenario(some_drop_out(2), "training.expected_batch=30"))
    assert len(calls) == 14  # who dropped out had trained
    assert len(sums) == 2
    share = calls[0][0][2]
    rounds = [[sent for _, sent in calls[:7]], [sent for _, sent in calls[9:]]]
    for total, sent in zip(sums, rounds, strict=True):
        found, weight = share.grid.decode(total)
        np.testing.assert_allclose(found, np.sum(sent, axis=0), rtol=0, atol=1e-12)
        assert weight == len(sent)
    moved = (np.sum(rounds[0], axis=0) + np.sum(rounds[1], axis=0)) / 7
    before = Trial(scenario(), 0, "federated").start.numpy()
    after = np.concatenate([value.flatten().numpy() for value in done.models[GLOBAL].values()])
    np.testing.assert_allclose(after - before, moved, atol=1e-5)


def test_every_site_and_round_has_noise_of_its_own_and_nothing_beyond_the_public_is_used(monkeypatch):
    _, calls, _ = tapped(monkeypatch, scenario())
    assert len({words.key for (_, _, _, words), _ in calls}) == 14
    assert len({share for (_, _, share, _), _ in calls}) == 1
    assert {weight for (_, weight, _, _), _ in calls} == {1.0}


def test_each_share_is_for_those_who_were_asked_and_not_for_all_sites(monkeypatch):
    """Of seven sites five are in a round: each adds the noise that five of them need."""
    chosen = scenario("training.sites_per_round=5", "secure_aggregation={drop_outs=1, colluding=1}")
    done, calls, sums = tapped(monkeypatch, chosen)
    expected = NoiseShare(noise_for(chosen, 0, "federated"), 0.5, 6274, 5, 1, 1)
    assert {share for (_, _, share, _), _ in calls} == {expected}
    assert len(calls) == 10
    assert done.ledger is not None
    assert {entry.mechanism for entry in done.ledger.entries} == {expected}
    updates = [np.sum([clipped(args[0], 0.5).numpy() for args, _ in calls[part]], axis=0) for part in HALVES]
    for total, update in zip(sums, updates, strict=True):
        noise = expected.grid.decode(total)[0] - update
        found = noise.std() / (expected.noise_multiplier * expected.sensitivity)
        assert found == pytest.approx(math.sqrt(5 / 3), rel=5 / math.sqrt(2 * 6274))


def test_noise_is_not_shared_with_another_setting(monkeypatch):
    """Of two runs that differ in who may collude, the shares' sizes differ: the same noise would give all away."""
    keys = []
    for more in ("secure_aggregation.colluding=1", "secure_aggregation.colluding=0"):
        with monkeypatch.context() as patch:
            keys += [words.key for (_, _, _, words), _ in tapped(patch, scenario(more))[1]]
    assert len(set(keys)) == 28


def test_no_site_counts_for_more_than_its_clipped_update(monkeypatch):
    names = federate(scenario(), 0).names
    sizes = ", ".join(f"'{name}' = {number + 1}.0" for number, name in enumerate(names))
    _, calls, sums = tapped(monkeypatch, scenario(f"training.expected_batch={{{sizes}}}"))
    weights = [weight for (_, weight, _, _), _ in calls[:7]]
    assert weights == pytest.approx([number / 7 for number in range(1, 8)])
    assert calls[0][0][2].grid.decode(sums[0])[1] == pytest.approx(4)


def test_more_drop_outs_than_are_tolerated_refuse_the_round_and_are_charged(monkeypatch, some_drop_out):
    """Nothing is unmasked: the noise that is there would be too little."""
    done, _, sums = tapped(monkeypatch, scenario(some_drop_out(3)))
    assert done.notes[-1] == "round 2 was refused: 4 of 7 sites sent a vector, and 5 must; nothing was revealed"
    assert len(sums) == 1
    assert done.ledger is not None
    assert len(done.ledger.entries) == 14


def test_an_update_that_is_not_finite_counts_as_no_change():
    """Whether it is may depend on rows: the site answers like any other, with noise alone."""
    done = trained(scenario("faults.spoiled=0.3"))
    assert done.notes == []
    assert all(value.isfinite().all() for value in done.models[GLOBAL].values())


@pytest.mark.whole
def test_a_run_states_what_it_promises_against_whom(tmp_path: Path):
    run = experiment.execute(scenario("arms=['federated']"), tmp_path / "run")
    said: dict[str, str] = {}
    for term, text in statement(run):
        said[term] = f"{said[term]}\n{text}" if term in said else text
    assert "20.00 at every site" in said["Epsilon"]
    assert "need not be trusted with the updates" in said["Trust model"]
    assert "keep to the protocol" in said["Trust model"]
    assert said["Shares"].startswith("7 sites each add noise of standard deviation")
    assert said["Shares"].endswith("2 may be missing, 1 may tell theirs.")
    assert "All but 2 of a round's sites" in said["Secure aggregation"]
    assert "rounded Gaussian" in said["Not covered"]
    assert run.ledger["trainings"][0]["record_epsilon"]
    changed = [one | {"entries": [e | {"mechanism": e["mechanism"] | {"colluding": 0}} for e in one["entries"]]}
               for one in run.ledger["trainings"]]  # fmt: skip
    other = dict(statement(replace(run, ledger=run.ledger | {"trainings": changed})))
    assert other["Shares"] != said["Shares"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("secure_aggregation=true", 'privacy.unit: expected secure_aggregation.drop_outs beside "distributed"'),
        ("secure_aggregation=false", 'privacy.unit: expected secure_aggregation.drop_outs beside "distributed"'),
        ("privacy.unit=none", 'secure_aggregation.colluding: expected privacy.unit = "distributed" beside it'),
        ("secure_aggregation={drop_outs=2, colluding=5}", "secure_aggregation.colluding: expected sites whose noise"),
        ("secure_aggregation={drop_outs=4}", "secure_aggregation.drop_outs: expected fewer than half"),
        ("training.site_sampling_rate=0.5", "training.site_sampling_rate: expected none beside secure_aggregation"),
        ("strategy.name=median", "strategy.name: expected one that uses the mean of the updates alone"),
        ("arms=['local']", "arms: expected federated among them with privacy.unit = 'distributed'"),
    ],
)
def test_what_can_not_be_promised_is_a_mistake(override: str, message: str, tmp_path: Path):
    with pytest.raises(Mistake, match=message):
        experiment.execute(scenario(override), tmp_path / "run")
