"""SuperNodes for the trainings of a run: a whole federation of Flower's on this machine, or one that is there already.

It is a rehearsal: SuperLink and SuperNodes are processes of their own, with TLS, and the SuperLink knows the key of
each SuperNode. They end with the run. The sites are simulated, as with every other engine.
"""

import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fedsim.experiments.on_flower.programs import (
    HOST,
    flwr,
    free_ports,
    last_lines,
    started,
    superlink_words,
    supernode_words,
    wait_until_it_listens,
)
from fedsim.experiments.on_flower.ray_actors import told
from fedsim.flower.certificates import make_certificates, make_node_key
from fedsim.flower.nodes import Nodes, at_hand
from fedsim.flower.relay import SECONDS_TO_COME, Relayed
from fedsim.mistakes import RunFailed
from fedsim.scenario.schema import Scenario

CONNECTION = "rehearsal"

APP = """\
[project]
name = "fedsim-rehearsal"
version = "1.0.0"
description = "Hands bundles of messages on between fedsim and SuperNodes"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fedsim"

[tool.flwr.app.components]
serverapp = "fedsim.flower.relay:app"
clientapp = "fedsim.site.node:app"

[tool.flwr.app.config]
relay = ""
nodes = 1
"""


@contextmanager
def supernodes_for(scenario: Scenario) -> Iterator[None]:
    """Have the SuperNodes that a scenario asks for at hand in the body of a ``with``.

    Raises:
        RunFailed: The SuperLink can't be started or reached, or its SuperNodes don't come.
    """
    wanted = scenario.superlink
    with tempfile.TemporaryDirectory(prefix="fedsim-") as folder, ExitStack() as running:
        work = Path(folder)
        connection = wanted.connection
        home = None
        superlink = None
        if connection is None:
            connection, home = CONNECTION, work / "home"
            superlink = running.enter_context(_federation(work, home, wanted.nodes))

        relay = socket.socket(socket.AF_UNIX)
        running.callback(relay.close)
        relay.bind(str(work / "relay"))
        relay.listen(1)
        relay.settimeout(SECONDS_TO_COME)
        _submit(work, connection, home, wanted.nodes)
        try:
            relayed = Relayed(relay, lambda: superlink is None or superlink.poll() is None)
        except TimeoutError:
            raise RunFailed(
                f"engine superlink: no ServerApp came within {SECONDS_TO_COME:g} seconds; it has to run on this machine"
                + last_lines(work / "superlink.log")
            ) from None
        running.callback(relayed.close)
        ask = relayed.ask(told(scenario, wanted.inside), scenario.limits.round_seconds)
        with at_hand(Nodes(relayed.nodes, ask, wanted.inside)):
            yield


@contextmanager
def _federation(work: Path, home: Path, nodes: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start a SuperLink with its SuperNodes, and end them with the body of a ``with``; yield the SuperLink."""
    home.mkdir()
    port, *own_ports = free_ports(1 + nodes)
    address = f"{HOST}:{port}"
    files = make_certificates(work, [HOST, "localhost"])
    (home / "config.toml").write_text(
        f'[superlink.{CONNECTION}]\naddress = "{address}"\nroot-certificates = "{files.authority}"\n'
    )
    with ExitStack() as running:
        superlink = running.enter_context(started(work, home, "superlink", superlink_words(port, files)))
        wait_until_it_listens(port, superlink, work)
        for number, own_port in enumerate(own_ports):
            private, public = make_node_key(work, f"node-{number}")
            flwr(home, ["supernode", "register", str(public), CONNECTION])
            words = supernode_words(address, own_port, files.authority, private)
            running.enter_context(started(work, home, f"supernode-{number}", words))
        yield superlink


def _submit(work: Path, connection: str, home: Path | None, nodes: int) -> None:
    """Submit the app that hands bundles on."""
    folder = work / "app"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(APP)
    flwr(home, ["run", str(folder), connection, "--run-config", f'relay="{work / "relay"}" nodes={nodes}'])
