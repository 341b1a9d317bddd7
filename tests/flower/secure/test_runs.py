"""Secure aggregation in whole runs: the ClientApp of the sites, both engines, faults and privacy."""

import dataclasses
import hashlib
import itertools

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict

import fedsim.site.app
from fedsim import engines
from fedsim.data import federation
from fedsim.data.federation import Examples, Federation
from fedsim.experiments.arms import GLOBAL, Job, run_job
from fedsim.flower.grid import InProcessGrid
from fedsim.flower.records import ARRAYS, CONFIG, MECHANISM, ROUND, STAGES
from fedsim.flower.secure import site
from fedsim.flower.secure.messages import KEYS, MASKED, OWN_MASKS, SHARES, SITES
from fedsim.planning import misbehaviour, trial
from fedsim.training.model import new_model
from tests.cases import others_whole
from tests.nodes import nodes_for

ON = "secure_aggregation.threshold=0.51"
PLAIN, PRIVATE = Job("federated", False, 0), Job("federated", True, 0)
MECHANISM_FIELDS = ["clip", "expected_batch", "noise_multiplier", "rng", "sampling_rate", "steps"]


@pytest.fixture
def one_drops_out(monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the second site drop out of the second round, whatever the seed."""
    monkeypatch.setattr(misbehaviour, "_drops_out", lambda seed, number, site, share: (number, site) == (2, 1))
    return "faults.drop_out=0.1"


def weights(scenario, job: Job = PLAIN) -> torch.Tensor:
    return run_job(scenario, job, lambda number: None).models[GLOBAL]["weight"]


@pytest.mark.parametrize("engine", others_whole(["serial", "cohort", "ray", "superlink"], "serial", "cohort"))
@pytest.mark.parametrize("strategy", others_whole(["fedavg", "fedadam"], "fedavg"))
def test_a_run_gives_what_it_gives_without_masks(scenario, engine: str, strategy: str):
    same = (f"engine={engine}", f"strategy.name={strategy}")
    with nodes_for(scenario(*same)):
        masked, plain = weights(scenario(*same, ON)), weights(scenario(*same))
    torch.testing.assert_close(masked, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("step", ["keys", "shares", "train"])
def test_a_run_with_drop_outs_gives_what_it_gives_without_masks(scenario, one_drops_out: str, step: str):
    masked = run_job(scenario(one_drops_out, ON, f"secure_aggregation.drop_out_at={step}"), PLAIN, lambda number: None)
    plain = run_job(scenario(one_drops_out), PLAIN, lambda number: None)
    assert masked.notes == plain.notes != []
    torch.testing.assert_close(masked.models[GLOBAL]["weight"], plain.models[GLOBAL]["weight"], rtol=1e-5, atol=1e-6)


def test_who_drops_out_at_the_last_step_counts(scenario, one_drops_out: str):
    masked = run_job(scenario(one_drops_out, ON, "secure_aggregation.drop_out_at=unmask"), PLAIN, lambda number: None)
    assert masked.notes == ["round 2: hungarian was left out: failed: dropped out"]
    torch.testing.assert_close(masked.models[GLOBAL]["weight"], weights(scenario()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fault", ["crash", "spoiled"])
def test_a_run_with_broken_sites_goes_on_without_them(scenario, fault: str):
    masked = run_job(scenario(f"faults.{fault}=0.25", ON), PLAIN, lambda number: None)
    plain = run_job(scenario(f"faults.{fault}=0.25"), PLAIN, lambda number: None)
    assert [note.partition(" was")[0] for note in masked.notes] == [note.partition(" was")[0] for note in plain.notes]
    assert len(masked.notes) == 2
    torch.testing.assert_close(masked.models[GLOBAL]["weight"], plain.models[GLOBAL]["weight"], rtol=1e-5, atol=1e-6)


def test_a_refused_round_is_noted_and_charged(scenario, one_drops_out: str):
    """What a site sent is charged, whether or not the masks came off."""
    done = run_job(scenario(one_drops_out, "secure_aggregation.threshold=1.0"), PRIVATE, lambda number: None)
    assert done.notes == [
        "round 2: hungarian was left out: failed: dropped out",
        "round 2 was refused: 3 of 4 sites sent a vector, and 4 must; nothing was revealed",
    ]
    assert done.ledger is not None
    assert len(done.ledger.entries) == 8


def test_a_result_does_not_depend_on_the_keys(scenario):
    """They come from the operating system; masks cancel to the last bit."""
    private = scenario(ON)
    for job in (PLAIN, PRIVATE):
        first, second = weights(private, job), weights(private, job)
        assert torch.equal(first, second)


def test_both_engines_agree_under_privacy(scenario):
    one, other = (
        run_job(scenario(ON, f"engine={name}"), PRIVATE, lambda number: None) for name in ("serial", "cohort")
    )
    torch.testing.assert_close(one.models[GLOBAL]["weight"], other.models[GLOBAL]["weight"], rtol=1e-4, atol=1e-6)
    assert one.ledger is not None
    assert other.ledger is not None
    assert one.ledger.entries == other.ledger.entries


def tapped(monkeypatch: pytest.MonkeyPatch, scenario, job: Job) -> list[Message]:
    """Run a job with keys from a fixed stream; return all that arrives at the server."""
    counter = itertools.count()

    def stream(size: int) -> bytes:
        return hashlib.shake_256(str(next(counter)).encode()).digest(size)

    seen: list[Message] = []
    send = InProcessGrid.send_and_receive

    def tap(self, messages, *, timeout=None):
        seen.extend(replies := list(send(self, messages)))
        return replies

    with monkeypatch.context() as patch:
        patch.setattr(InProcessGrid, "send_and_receive", tap)
        patch.setattr(site, "urandom", stream)
        run_job(scenario, job, lambda number: None)
    return seen


@pytest.mark.whole
@pytest.mark.parametrize("job", [PLAIN, PRIVATE], ids=["plain", "private"])
def test_no_field_but_the_masked_vector_depends_on_the_rows(scenario, monkeypatch: pytest.MonkeyPatch, job: Job):
    """With the same keys, what the server gets of other rows is byte for byte the same, but for what is masked."""
    chosen = scenario(ON, "training.rounds=1", "engine=serial")
    before = tapped(monkeypatch, chosen, job)
    whole = federation.federate(chosen, 0)
    other = dataclasses.replace(whole.sites[0], train=Examples(torch.ones(1, 30), torch.ones(1)))
    monkeypatch.setattr(trial, "federate", lambda *args, **alone: Federation((other, *whole.sites[1:])))
    after = tapped(monkeypatch, chosen, job)
    assert len(before) == len(after) == 16
    for old, new in zip(before, after, strict=True):
        assert old.content.config_records == new.content.config_records
        assert old.content.metric_records == new.content.metric_records == {}
        assert old.content.array_records.keys() == new.content.array_records.keys()
    vectors = [[m.content[MASKED][MASKED].data for m in seen if MASKED in m.content] for seen in (before, after)]  # type: ignore
    assert [old == new for old, new in zip(*vectors, strict=True)] == [False, True, True, True]


def test_the_server_gets_the_listed_fields_and_nothing_else(scenario, monkeypatch: pytest.MonkeyPatch):
    """The allow-list of what leaves a site, private or not: no weight, no loss, no count."""
    seen = tapped(monkeypatch, scenario(ON, "training.rounds=1"), PRIVATE)
    assert [set(message.content) for message in seen] == [
        *[{KEYS}] * 4, *[{SHARES}] * 4, *[{MASKED, MECHANISM}] * 4, *[{OWN_MASKS, KEYS}] * 4,
    ]  # fmt: skip
    assert [sorted(message.content[MECHANISM]) for message in seen[8:12]] == [MECHANISM_FIELDS] * 4
    plain = tapped(monkeypatch, scenario(ON, "training.rounds=1"), PLAIN)
    assert [set(message.content) for message in plain[8:12]] == [{MASKED}] * 4


def asked(scenario, kind: str, config: dict) -> list[Message]:
    """Send all sites a message of a kind without the steps before it."""
    run_config = {"scenario": scenario.model_dump_json(), "seed": 0, "arm": "federated", **config}
    grid = InProcessGrid(engines.load("serial").execute(fedsim.site.app.SiteApp()), 4, run_config)
    model = new_model(scenario, federation.federate(scenario, 0).sites[0], 0, "cpu")
    content = RecordDict({ARRAYS: ArrayRecord(model.state_dict()), CONFIG: ConfigRecord({ROUND: 1, SITES: 4})})
    return list(grid.send_and_receive([Message(content, node, kind) for node in grid.get_node_ids()]))


@pytest.mark.parametrize("config", [{"secure-aggregation": True}, {}], ids=["asked for masks", "not asked for masks"])
def test_a_site_does_not_train_without_masks_what_promises_them(scenario, config: dict, monkeypatch):
    """A server that leaves the first steps out, or the whole of it, gets no model, and no row is read for it."""
    trained = []
    monkeypatch.setattr(fedsim.site.app, "train_site", trained.append)
    chosen = scenario(ON, "privacy.unit=none")
    replies = asked(chosen, MessageType.TRAIN, config)
    kinds = {"Refused"} if config else {"PermissionError"}
    assert {reply.error.reason.partition(" ")[0].partition(":")[0] for reply in replies} == kinds
    assert not trained


def test_a_site_does_not_answer_with_metrics(scenario):
    for reply in asked(scenario(ON, "privacy.unit=none"), MessageType.EVALUATE, {"secure-aggregation": True}):
        assert reply.error.reason.startswith("PermissionError")


def test_a_site_gives_no_keys_where_none_are_asked_for(scenario):
    for reply in asked(scenario("privacy.unit=none"), STAGES[0], {}):
        assert reply.error.reason.startswith("PermissionError")


def test_an_error_says_nothing_of_the_rows(scenario, monkeypatch: pytest.MonkeyPatch):
    def leak(*args):
        raise ValueError(f"bad value {np.pi}")

    monkeypatch.setattr(fedsim.site.app, "mask", leak)
    with pytest.raises(Exception, match="every round was refused") as raised:
        run_job(scenario(ON, "training.rounds=1"), PLAIN, lambda number: None)
    assert "ValueError (test_runs.py" in str(raised.value)
    assert "3.14" not in str(raised.value)
