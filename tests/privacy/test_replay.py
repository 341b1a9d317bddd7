"""Whole trainings watched from inside: what is drawn, what is accounted, and what changes with one record."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from fedsim.data import federation
from fedsim.data.federation import Examples, Federation
from fedsim.experiments import arms, trainings
from fedsim.experiments.arms import Job, jobs, run_job
from fedsim.experiments.experiment import execute, resume
from fedsim.mistakes import Interrupted
from fedsim.planning import trial
from fedsim.scenario.files import read
from fedsim.scenario.schema import Scenario
from tests.cases import others_whole
from tests.privacy.watching import Watch

NOISE = ["training.rounds=3", "seeds=1", "privacy.unit=record", "privacy.delta=1e-4", "privacy.epsilon=900",
         "privacy.noise_multiplier=2"]  # fmt: skip
SCENARIOS = {
    "cohort": ["hospital-heart"],
    "serial": ["hospital-heart", "engine=serial"],
    "drop-outs": ["hospital-heart", "faults.drop_out=0.3"],
    "crashes": ["hospital-heart", "faults.crash=0.5", "faults.crash_round=2"],
    "spoiled models": ["hospital-heart", "faults.spoiled=0.5"],
    "liars": ["hospital-heart", "attack.name=sign-flip", "attack.share=0.25"],
    "some sites a round": ["hospital-heart", "training.sites_per_round=2", "partition={by='iid',sites=5}",
                           "training.expected_batch=40"],
    "joins late": ["hospital-heart", "faults.joins_late={cleveland=2}"],
    "a second model": ["hospital-heart", "strategy.name=ditto"],
    "many schools": ["school-tiny"],
    "a budget that ends": ["hospital-heart", "privacy.epsilon=2.2"],
}  # fmt: skip


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    monkeypatch.setattr("fedsim.engines.cohort._in_threads", lambda tasks, device: iter([task() for task in tasks]))
    return Watch(monkeypatch)


@pytest.mark.parametrize("name", others_whole(SCENARIOS, "cohort", "joins late", "a second model"))
def test_every_noisy_step_is_accounted_and_nothing_else(watch: Watch, name: str):
    """A9: as many draws of noise as accounted steps, also in rounds in which sites fail."""
    start, *changes = SCENARIOS[name]
    chosen = read(start, [*NOISE, *changes])
    done = run_job(chosen, Job("federated", True, 0), lambda number: None)
    assert done.ledger is not None
    assert len(watch.digests) == sum(entry.mechanism.steps for entry in done.ledger.entries) > 0
    assert bool(done.notes) == (name in ("drop-outs", "crashes", "spoiled models", "a budget that ends"))


@pytest.mark.whole
def test_no_noise_is_ever_drawn_twice(watch: Watch, tmp_path: Path):
    """B3: sites, rounds, steps, arms, seeds; nor in a run that differs in epsilon alone."""
    for number, change in enumerate(([], ["privacy.epsilon=800"])):
        execute(read("hospital-heart", [*NOISE, "seeds=2", *change]), tmp_path / str(number))
    drawn = 2 * 2 * (4 + 1 + 4) * 3 * 2  # runs, seeds, sites of the three arms, rounds, steps
    assert len(watch.digests) == len(set(watch.digests)) == drawn


@pytest.mark.whole
def test_a_resumed_run_draws_no_noise_of_a_finished_training_again(watch: Watch, tmp_path: Path, monkeypatch):
    """B3: it draws again only what was not finished, which is the same release, and what it had not come to."""
    chosen, finished = read("hospital-heart", NOISE), []

    def stop_before_the_last(scenario: Scenario, job: Job, *more: Any) -> arms.Trained:
        if job == jobs(scenario)[-1]:
            raise KeyboardInterrupt
        finished.append(job)
        return run_job(scenario, job, *more)

    monkeypatch.setattr(trainings, "run_job", stop_before_the_last)
    with pytest.raises(Interrupted):
        execute(chosen, tmp_path / "run")
    before = len(watch.digests)
    monkeypatch.setattr(trainings, "run_job", run_job)
    resume(tmp_path / "run")
    assert len(finished) == 5
    assert len(watch.digests) - before == 4 * 3 * 2
    assert len(set(watch.digests)) == len(watch.digests)


def neighbour_of(whole: Federation, change: str) -> Federation:
    """Return a federation with one record of the first hospital replaced, added or taken away."""
    rows = whole.sites[0].train
    new = torch.ones(1, rows.inputs.shape[1])
    others, target = rows.inputs[1:], rows.target[1:]
    changed = {
        "replaced": Examples(torch.cat([new, others]), rows.target),
        "added": Examples(torch.cat([rows.inputs, new]), torch.cat([rows.target, rows.target[:1]])),
        "taken away": Examples(others, target),
    }[change]
    return Federation((dataclasses.replace(whole.sites[0], train=changed), *whole.sites[1:]))


@pytest.mark.whole
@pytest.mark.parametrize(
    ("engine", "change"), [("cohort", "replaced"), ("cohort", "added"), ("cohort", "taken away"), ("serial", "added")]
)
def test_one_record_changes_nothing_but_numbers(watch: Watch, tmp_path, monkeypatch, caplog, capsys, engine, change):
    """B6: the same draws of noise, shapes, scales, steps, ledger, notes, files, sizes of models, lines said."""
    chosen = read("hospital-heart", [*NOISE, f"engine={engine}", "arms=['federated']"])
    whole, seen = federation.federate(chosen, 0), []
    for number, own in enumerate((whole, neighbour_of(whole, change))):
        watch.shapes.clear()
        watch.digests.clear()
        caplog.clear()
        monkeypatch.setattr(trial, "federate", lambda *args, own=own, **alone: own)
        with caplog.at_level(logging.DEBUG, "fedsim"):
            run = execute(chosen, tmp_path / str(number))
        files = sorted(path.relative_to(run.path) for path in run.path.rglob("*"))
        models = [path.stat().st_size for path in sorted(run.path.rglob("*private*.safetensors"))]
        ledger = (run.path / "ledger.json").read_bytes()
        said = (caplog.messages, *capsys.readouterr())
        seen.append((watch.shapes[:], watch.digests[:], ledger, run.manifest["notes"], files, models, said))
    assert seen[0] == seen[1]
    assert seen[0][1]
    weights = [
        (tmp_path / str(number) / "checkpoints/federated-private-0.safetensors").read_bytes() for number in (0, 1)
    ]
    assert weights[0] != weights[1]  # the record was there
