"""Bundles that a ServerApp hands on arrive as if they had been sent from here."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict

from fedsim.experiments.on_flower.ray_actors import told
from fedsim.flower import relay
from fedsim.flower.grid import OF_A_SIMULATION
from fedsim.flower.nodes import Nodes, at_hand
from fedsim.flower.relay import Relayed
from fedsim.mistakes import RunFailed
from fedsim.scenario.files import read
from tests.flower.test_nodes import CASES, trained
from tests.nodes import Wires


@contextmanager
def relayed(folder: Path, wires: Any, count: int) -> Iterator[Relayed]:
    """Run the ServerApp in a thread, as a SuperLink runs it in a process."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "relay"))
    listener.listen(1)
    listener.settimeout(10)
    context = Context(1, 1, {}, RecordDict(), {"relay": str(folder / "relay"), "nodes": count})
    with OF_A_SIMULATION.taken():
        thread = threading.Thread(target=relay.hand_on, args=(wires, context))
        thread.start()
        reached = None
        try:
            reached = Relayed(listener)
            yield reached
        finally:
            if reached is not None:
                reached.close()
            listener.close()
            thread.join(10)
    assert not thread.is_alive()


def test_what_is_handed_on_gives_the_bytes_of_the_serial_engine(tmp_path: Path):
    alone = trained(read("hospital-heart", [*CASES["scaffold"], "engine=serial"]))
    scenario = read("hospital-heart", [*CASES["scaffold"], "engine=superlink"])
    with relayed(tmp_path, Wires(2), 2) as reached:
        assert reached.nodes == [2, 3]
        with at_hand(Nodes(reached.nodes, reached.ask(told(scenario, "serial"), 60.0), "serial")):
            assert trained(scenario) == alone


def test_a_lost_node_is_handed_on_as_well(tmp_path: Path):
    alone = trained(read("hospital-heart", [*CASES["fedavg"], "engine=serial"]))
    scenario = read("hospital-heart", [*CASES["fedavg"], "engine=superlink"])
    with relayed(tmp_path, Wires(2, cut={2: 0}), 2) as reached:
        nodes = Nodes(reached.nodes, reached.ask(told(scenario, "serial"), 60.0), "serial")
        with at_hand(nodes):
            assert trained(scenario) == alone
        assert nodes.ids == [3]


def test_nodes_that_do_not_come_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(relay, "SECONDS_TO_COME", 0.1)
    with (
        pytest.raises(RunFailed, match=r"expected 3 nodes within 0\.1 seconds, 2 came"),
        relayed(tmp_path, Wires(2), 3),
    ):
        pass


def test_a_superlink_that_is_gone_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(relay, "_SECONDS_BETWEEN_LOOKS", 0.01)
    scenario = read("hospital-heart", [*CASES["fedavg"], "engine=superlink"])
    over = threading.Event()

    class Waiting(Wires):
        def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
            over.wait(10)
            return []

    with relayed(tmp_path, Waiting(2), 2) as reached:
        reached._is_alive = lambda: False
        with pytest.raises(RunFailed, match="the ServerApp is gone: the SuperLink ended it, or was ended itself"):
            reached.ask(told(scenario, "serial"), None)({2: b"", 3: b""})
        over.set()
