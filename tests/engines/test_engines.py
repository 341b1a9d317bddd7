"""The contract of engines: the same scenario and seed give the same result on each."""

import logging
from dataclasses import replace

import pytest
import torch
from flwr.clientapp import ClientApp

import fedsim.site.app
from fedsim.engines import cohort, serial
from fedsim.experiments.arms import GLOBAL, Job, run_job
from fedsim.scenario import catalog
from fedsim.scenario.schema import Optimizer
from fedsim.training.work import Noise, Plan
from tests.cases import others_whole
from tests.nodes import nodes_for
from tests.works import examples, streams, work

# The engine superlink is the engine ray with other nodes.
ENGINES = others_whole(catalog.titles("engines"), "cohort", "ray")


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("arm", others_whole(["federated", "centralized", "local"], "federated"))
@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_gives_what_serial_gives(scenario, engine: str, arm, private: bool):
    job = Job(arm, private, 0)
    one = run_job(scenario("training.rounds=5", "engine=serial"), job, lambda number: None)
    asked = scenario("training.rounds=5", f"engine={engine}")
    with nodes_for(asked):
        other = run_job(asked, job, lambda number: None)
    for name, model in one.models.items():
        torch.testing.assert_close(other.models[name]["weight"], model["weight"], rtol=1e-4, atol=1e-6)
    assert (other.ledger and other.ledger.entries) == (one.ledger and one.ledger.entries)
    assert other.notes == one.notes == []


@pytest.mark.whole
def test_the_stack_is_cut_to_fit_into_memory(scenario, monkeypatch: pytest.MonkeyPatch):
    sizes = []
    whole = cohort.train_together
    monkeypatch.setattr(cohort, "train_together", lambda works, stack: sizes.append(len(works)) or whole(works, stack))
    first = run_job(scenario("engine=cohort"), Job("federated", True, 0), lambda number: None).models[GLOBAL]["weight"]
    assert set(sizes) == {4}
    monkeypatch.setattr(cohort, "_MEMORY", 1)
    second = run_job(scenario("engine=cohort"), Job("federated", True, 0), lambda number: None).models[GLOBAL]["weight"]
    assert set(sizes) == {4, 1}
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


@pytest.mark.whole
@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize(("error", "sizes"), [(torch.OutOfMemoryError, [4, 2, 1, 1, 2, 1, 1]), (RuntimeError, [4])])
def test_a_stack_that_fails_half_way_is_trained_again_from_its_start(
    scenario, error: type[Exception], sizes: list[int], private: bool, monkeypatch: pytest.MonkeyPatch
):
    """Steps that were taken before are neither in the model nor in the ledger, and their noise is not drawn anew."""
    job, chosen, whole, tried = Job("federated", private, 0), scenario("training.rounds=1"), cohort.train_together, []
    expected = run_job(chosen, job, lambda number: None)

    def failing(works, stack):
        tried.append(len(works))
        done = whole(works, stack)
        if len(works) > 1:
            raise error("no room for the last step")
        return done

    monkeypatch.setattr(cohort, "train_together", failing)
    monkeypatch.setattr(cohort, "cores", lambda: 1)
    found = run_job(chosen, job, lambda number: None)
    assert tried == sizes
    torch.testing.assert_close(found.models[GLOBAL]["weight"], expected.models[GLOBAL]["weight"], rtol=1e-4, atol=1e-6)
    assert (found.ledger and found.ledger.entries) == (expected.ledger and expected.ledger.entries)


@pytest.mark.parametrize(
    "change",
    [
        {"noise": None},
        {"noise": Noise(1.0, 3.0)},
        {"noise": Noise(0.1, 1.0)},
        {"steps": 5},
        {"sampling_rate": 0.9},
        {"optimizer": Optimizer(name="sgd", lr=0.01)},
    ],
    ids=str,
)
def test_works_that_differ_in_what_is_done_to_rows_are_not_trained_as_one(change: dict):
    """Each gets its own noise, clip, rate and steps, and says so, whichever comes first."""
    usual = Plan(2, 0.5, 8.0, Optimizer(name="sgd", lr=0.5), Noise(1.0, 1.0))
    net = torch.nn.Linear(4, 1)
    works = [
        work(net, examples(12, seed=site), plan, streams(0, "federated", str(site), 1))
        for site, plan in enumerate([usual, replace(usual, **change), usual, replace(usual, **change)])
    ]
    together = cohort.train_all([one.again() for one in works])
    alone = serial.train_all([one.again() for one in works])
    for found, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(found.parameters, expected.parameters, rtol=1e-4, atol=1e-5)
        assert found.mechanism == expected.mechanism


def test_a_site_that_fails_to_start_does_not_stop_the_others(scenario, monkeypatch: pytest.MonkeyPatch):
    honest = fedsim.site.app.SiteApp.prepare

    def failing(self, message, context):
        if context.node_config["partition-id"] == 2:
            raise RuntimeError("power cut")
        return honest(self, message, context)

    monkeypatch.setattr(fedsim.site.app.SiteApp, "prepare", failing)
    notes = run_job(scenario("engine=cohort"), Job("federated", False, 0), lambda number: None).notes
    assert [note.partition(" was")[0] for note in notes] == ["round 1: switzerland", "round 2: switzerland"]


@pytest.mark.whole
def test_what_can_not_be_stacked_is_trained_one_by_one_and_said_once(scenario, monkeypatch, caplog):
    def broken(works, stack):
        raise RuntimeError("Batching rule not implemented\nfor this layer")

    monkeypatch.setattr(cohort, "train_together", broken)
    monkeypatch.setattr(cohort, "_told", set())
    with caplog.at_level(logging.WARNING, "fedsim"):
        found = run_job(scenario("engine=cohort"), Job("federated", True, 0), lambda number: None)
    expected = run_job(scenario("engine=serial"), Job("federated", True, 0), lambda number: None)
    assert torch.equal(found.models[GLOBAL]["weight"], expected.models[GLOBAL]["weight"])
    assert caplog.messages == ["cohort: Batching rule not implemented; these sites are trained one after another"]


def test_a_client_app_of_somebody_else_is_run_one_by_one(caplog, monkeypatch):
    monkeypatch.setattr(cohort, "_told", set())
    with caplog.at_level(logging.WARNING, "fedsim"):
        cohort.execute(ClientApp())
    assert caplog.messages == ["cohort: this ClientApp can't be stacked; these sites are trained one after another"]


def test_a_site_that_fails_in_training_does_not_stop_the_others(scenario, monkeypatch: pytest.MonkeyPatch):
    whole, alone = cohort.train_together, fedsim.site.app.train_site

    def failing(works, stack=None):
        if any(work.plan.expected_batch == 36 for work in works):
            raise ZeroDivisionError("broken")
        return stack is None or whole(works, stack)

    monkeypatch.setattr(cohort, "train_together", failing)
    monkeypatch.setattr(fedsim.site.app, "train_site", lambda work: failing([work]) and alone(work))
    notes = run_job(
        scenario("engine=cohort", "training.rounds=1"), Job("federated", False, 0), lambda number: None
    ).notes
    assert [note.partition(" (")[0] for note in notes] == [
        "round 1: switzerland was left out: failed: ZeroDivisionError: broken"
    ]
