"""Sites that are shared out among nodes: the same bytes as without, whichever node does what, and none is lost."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict

from fedsim.experiments.arms import Job, Trained, run_job
from fedsim.experiments.on_flower.ray_actors import told
from fedsim.flower.bundles import pack_messages, pack_replies, unpack_messages, unpack_replies
from fedsim.flower.grid import OF_A_SIMULATION, InProcessGrid, sent
from fedsim.flower.nodes import Nodes, at_hand, by_grid, execute, wait_for
from fedsim.flower.packed import pack
from fedsim.flower.records import Flat, Layout, flatten
from fedsim.mistakes import RunFailed
from fedsim.scenario.changes import with_strategy
from fedsim.scenario.files import read
from fedsim.scenario.schema import Scenario
from tests.cases import others_whole
from tests.experiments.test_under_way import bytes_of
from tests.nodes import Wires, nodes_of

HEART = ("training.rounds=2", "training.local_steps=2", "seeds=1", "privacy.unit=none")
CASES: dict[str, tuple[str, ...]] = {
    "fedavg": HEART,
    "scaffold": (*HEART, with_strategy("scaffold")),
    "ditto": (*HEART, with_strategy("ditto")),
    "trimmed": (*HEART, with_strategy("flwr.serverapp.strategy:FedTrimmedAvg")),
    "masked": (*HEART, "secure_aggregation.on=true"),
    "private": ("training.rounds=2", "seeds=1", "privacy.noise_multiplier=2", "privacy.epsilon=900"),
    "faulty": (*HEART, "faults.drop_out=0.2", "faults.straggler=0.5", "attack.name=sign-flip", "attack.share=0.3"),
}


def trained(scenario: Scenario) -> dict[str, Any]:
    return bytes_of(run_federated(scenario))


def run_federated(scenario: Scenario) -> Trained:
    return run_job(scenario, Job("federated", scenario.private, 0), lambda number: None)


@pytest.mark.parametrize("name", others_whole(CASES, "fedavg", "masked"))
def test_any_number_of_nodes_gives_the_bytes_of_the_serial_engine(name: str):
    alone = trained(read("hospital-heart", [*CASES[name], "engine=serial"]))
    beside = read("hospital-heart", [*CASES[name], "engine=ray", "ray.inside=serial"])
    for count in (1, 3) if name == "fedavg" else (2,):
        with nodes_of(beside, count):
            assert trained(beside) == alone


def test_nodes_with_stacks_give_the_same_up_to_rounding():
    alone = read("hospital-heart", [*HEART, "engine=serial"])
    beside = read("hospital-heart", [*HEART, "engine=ray"])
    expected = run_federated(alone)
    with nodes_of(beside, 2, "cohort"):
        got = run_federated(beside)
    for key, parts in expected.models.items():
        for name, value in parts.items():
            torch.testing.assert_close(got.models[key][name], value, rtol=1e-5, atol=1e-6)


def test_a_node_that_is_lost_in_mid_round_changes_no_bit(caplog: pytest.LogCaptureFixture):
    scenario = read("hospital-heart", [*CASES["scaffold"], "engine=ray", "ray.inside=serial"])
    alone = trained(read("hospital-heart", [*CASES["scaffold"], "engine=serial"]))
    with nodes_of(scenario, 3, cut={2: 0, 4: 1}) as wires:
        assert trained(scenario) == alone
    assert (wires.asked[2], wires.asked[4]) == (1, 2)
    assert "node 2 is lost, the others take its sites over: it gave no answer" in caplog.text


def test_without_any_node_left_the_training_fails_with_the_reason():
    scenario = read("hospital-heart", [*HEART, "engine=ray"])
    with (
        nodes_of(scenario, 2, cut={2: 0, 3: 0}),
        pytest.raises(RunFailed, match="node 3 is lost, and no other is left: it gave no answer"),
    ):
        trained(scenario)
    with pytest.raises(RunFailed, match="none are at hand"):
        execute()
    with pytest.raises(RunFailed, match=r"expected 3 nodes within 0\.1 seconds, 2 came"):
        wait_for(Wires(2), 3, 0.1)


@pytest.mark.parametrize(("code", "said"), [(2, "a node failed: no memory"), (7, "node 3 is lost, .*: no memory")])
def test_an_error_of_a_node_is_said(code: int, said: str):
    def broken(messages: Iterable[Message], contexts: Any) -> list[Message]:
        return [Message(Error(code=code, reason="no memory"), reply_to=message) for message in messages]

    scenario = read("hospital-heart", [*HEART, "engine=ray"])
    ask = by_grid(InProcessGrid(broken, 2, {}), OF_A_SIMULATION, told(scenario, "serial"), 5.0)
    with at_hand(Nodes([2, 3], ask, "serial")), pytest.raises(RunFailed, match=said):
        trained(scenario)


def test_messages_memories_and_replies_arrive_as_they_were_sent():
    InProcessGrid(lambda *_: [], 1, {})  # messages need a run
    layout = Layout.made({"weight": (2, 3), "bias": (2,)})
    vector = torch.arange(8.0)
    records = {
        "arrays": Flat(vector, layout),
        "told": ArrayRecord([np.ones(3)]),
        "metrics": MetricRecord({"n": 3, "loss": float("nan"), "list": [1.5, 2.5]}),
        "config": ConfigRecord({"key": b"\x00\xff", "keys": [b"a", b""], "name": "x", "on": True, "many": [1, 2]}),
    }
    messages = [sent(Message(RecordDict(dict(records)), number, "train"), number) for number in (2, 3)]
    contexts = [
        Context(run_id=1, node_id=n, node_config={"partition-id": n - 2}, state=RecordDict(), run_config={"seed": 1})
        for n in (2, 3)
    ]
    contexts[1].state["kept-c"] = Flat(torch.ones(8), layout)
    bundle = pack_messages(messages, contexts)
    assert len(bundle) < len(pack_messages(messages[:1], contexts[:1])) + 1500  # the model is in it once
    there, memories = unpack_messages(bundle)
    for message, before in zip(there, messages, strict=True):
        assert message.metadata.dst_node_id == before.metadata.dst_node_id
        assert message.metadata.message_type == "train"
        assert flatten(message.content["arrays"]).equal(vector)
        assert message.content["arrays"].layout is layout
        assert message.content["config"] == before.content["config"]
        assert message.content["told"]["0"].numpy().dtype == np.float64
        assert {**message.content["metrics"], "loss": 0} == {**before.content["metrics"], "loss": 0}
    assert flatten(memories[1].state["kept-c"]).equal(torch.ones(8))
    assert memories[0].run_config == {"seed": 1}

    memories[0].state["kept-new"] = Flat(torch.zeros(8), layout)
    replies = [Message(there[0].content, reply_to=there[0]), None]
    back = unpack_replies(pack_replies(replies, memories), messages, contexts)
    assert back[1] is None
    assert back[0] is not None
    assert back[0].metadata.src_node_id == 2
    assert flatten(contexts[0].state["kept-new"]).equal(torch.zeros(8))


@pytest.mark.parametrize("content", [b"", b"x" * 200, pack([1]), pack({"format": 9, "each": []})])
def test_what_is_no_bundle_is_refused(content: bytes):
    with pytest.raises(ValueError, match=r"SHA-256 differs|expected a bundle of format 1"):
        unpack_messages(content)
    with pytest.raises(ValueError, match="expected 1 replies, got 0"):
        unpack_replies(pack({"format": 1, "each": []}), [None], [None])  # type: ignore[list-item]
