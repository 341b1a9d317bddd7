import pytest
import torch
from torch import nn
from torch.nn import functional

from fedsim.data.federation import federate
from fedsim.experiments import arms
from fedsim.experiments.arms import GLOBAL, Job, jobs, run_job
from fedsim.mistakes import Mistake
from fedsim.planning import trial
from fedsim.planning.noise import noise_for
from fedsim.privacy.accounting import Segment, epsilon
from fedsim.training.losses import binary
from fedsim.training.steps import poisson_batches
from fedsim.training.work import Plan, Work
from tests.works import streams


def trained(scenario, arm: str, private: bool = False):
    return run_job(scenario, Job(arm, private, 0), lambda number: None)  # type: ignore[arg-type]


def test_federated_is_fedavg_written_out_naively(scenario):
    """Oracle: the whole path, messages and all, against a loop over sites in numpy's and torch's plain words."""
    chosen = scenario("training.rounds=3")
    sites = federate(chosen, 0).sites
    declared = chosen.training.expected_batch
    weight, bias = torch.zeros(1, 30), torch.zeros(1)
    for number in (1, 2, 3):
        models = []
        for site in sites:
            w, b = weight.clone().requires_grad_(), bias.clone().requires_grad_()
            drawn = streams(0, "federated", site.name, number, "privacy.unit=none")
            todo = Plan(2, 0.5, declared[site.name], chosen.training.optimizer, None)
            for batch in poisson_batches(Work(torch.nn.Linear(1, 1), weight, site.train, todo, drawn, binary)):
                logits = (batch.inputs @ w.T + b)[:, 0]
                loss = functional.binary_cross_entropy_with_logits(logits, batch.target, reduction="sum")
                gw, gb = torch.autograd.grad(loss / declared[site.name], [w, b])
                w, b = (w - 0.5 * gw).detach().requires_grad_(), (b - 0.5 * gb).detach().requires_grad_()
            models.append((declared[site.name], w.detach(), b.detach()))
        total = sum(size for size, _, _ in models)
        weight = sum(size / total * w for size, w, _ in models)
        bias = sum(size / total * b for size, _, b in models)
    found = trained(chosen, "federated").models[GLOBAL]
    torch.testing.assert_close(found["weight"], weight)
    torch.testing.assert_close(found["bias"], bias)


def test_with_one_local_step_on_all_rows_federated_is_centralized(scenario):
    """FedAvg of one full step is one full step on the pooled rows: every row counts the same."""
    chosen = scenario("training.local_steps=1", "training.sampling_rate=1.0", "training.rounds=4")
    one, other = (trained(chosen, arm).models[GLOBAL] for arm in ("federated", "centralized"))
    torch.testing.assert_close(one["weight"], other["weight"], rtol=1e-4, atol=1e-6)


def test_arms_differ_by_who_trains_not_by_what_is_measured(scenario):
    scores = [trained(scenario(), arm).scores for arm in ("federated", "centralized", "local")]
    for column in ("site", "rows", "positives"):
        assert scores[0][column].equals(scores[1][column])
        assert scores[0][column].equals(scores[2][column])


@pytest.mark.whole
@pytest.mark.parametrize("arm", ["federated", "centralized", "local"])
def test_private_arms_spend_the_same_epsilon_within_the_budget(scenario, arm: str):
    chosen = scenario()
    ledger = trained(chosen, arm, private=True).ledger
    assert ledger is not None
    spent = {ledger.epsilon(entry.site) for entry in ledger.entries}
    expected = epsilon((Segment(0.5, noise_for(chosen, 0, arm), 4),), 1e-4)
    assert spent == {expected}
    assert 0.98 < expected <= 1


@pytest.mark.whole
@pytest.mark.parametrize("arm", ["federated", "centralized", "local"])
def test_an_arm_stops_when_its_budget_is_spent(scenario, arm: str):
    chosen = scenario("privacy.noise_multiplier=2.5", "privacy.epsilon=2.5", "training.rounds=9")
    done = trained(chosen, arm, private=True)
    rounds = len(done.curve)
    assert 0 < rounds < 9
    assert done.notes == [f"stopped after {rounds} of 9 rounds: the next would exceed epsilon 2.5"]
    assert done.ledger is not None
    assert all(done.ledger.epsilon(entry.site) <= 2.5 for entry in done.ledger.entries)


def test_a_site_that_fails_is_named_in_the_notes(scenario, monkeypatch: pytest.MonkeyPatch):
    import fedsim.site.app

    honest = fedsim.site.app.train_site

    def failing(work):
        if work.plan.expected_batch == 36:
            raise RuntimeError("power cut")
        return honest(work)

    monkeypatch.setattr(fedsim.site.app, "train_site", failing)
    notes = trained(scenario("engine=serial"), "federated").notes
    assert len(notes) == 2
    assert notes[0].startswith("round 1: switzerland was left out: failed: RuntimeError: power cut (test_arms.py")


@pytest.mark.whole
def test_under_privacy_a_site_that_fails_does_not_raise_the_others_share(scenario, monkeypatch: pytest.MonkeyPatch):
    """M5 on the whole path: the model of all sites is the sum of what each part of them gives alone."""
    import fedsim.site.app

    chosen, honest = scenario("training.rounds=1", "engine=serial"), fedsim.site.app.train_site
    switzerland = 36
    models = {}
    for part, fails in (
        ("all", lambda b: False),
        ("rest", lambda b: b == switzerland),
        ("one", lambda b: b != switzerland),
    ):

        def training(work, fails=fails):
            if fails(work.plan.expected_batch):
                raise RuntimeError("power cut")
            return honest(work)

        monkeypatch.setattr(fedsim.site.app, "train_site", training)
        models[part] = trained(chosen, "federated", private=True).models[GLOBAL]["weight"]
    torch.testing.assert_close(models["all"], models["rest"] + models["one"])


@pytest.mark.parametrize("arm", ["federated", "centralized", "local"])
def test_under_privacy_no_arm_trains_a_model_that_mixes_rows(scenario, monkeypatch: pytest.MonkeyPatch, arm: str):
    """M10: also where no ClientApp looks at the model."""

    class Centering(nn.Module):
        def __init__(self, inputs: int) -> None:
            super().__init__()
            self.layer = nn.Linear(inputs, 1)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.layer(inputs - inputs.mean(0) if self.training and len(inputs) else inputs)

    monkeypatch.setattr(trial, "new_model", lambda scenario, site, *_: Centering(site.train.inputs.shape[1]))
    with pytest.raises(Mistake, match="mixes rows in training mode"):
        run_job(scenario(), Job(arm, True, 0), lambda number: None)  # type: ignore[arg-type]


def test_jobs_come_seed_by_seed(scenario):
    found = jobs(scenario("seeds=2"))
    assert len(found) == len({job.key for job in found}) == 12
    assert [job.seed for job in found] == [0] * 6 + [1] * 6
    assert {job.private for job in jobs(scenario("privacy.unit=none"))} == {False}


def test_without_validation_rows_there_is_no_curve(scenario):
    assert trained(scenario("split.validation=0.0"), "local").curve.empty


def test_importing_flower_leaves_its_logger_quiet():
    import logging

    assert arms
    assert logging.getLogger("flwr").level == logging.WARNING
