"""Reach the nodes of a SuperLink from this process, through a ServerApp that hands bundles on.

A SuperLink starts the ServerApp of a run in a process of its own, and lets nobody else send messages. The ServerApp
here connects back to the process that submitted the run, by a socket in a folder that only its user can enter, and
sends on what comes. So the trainings run where they always run. What goes through the socket are values and tensors,
never code.
"""

import socket
from collections.abc import Callable, Mapping
from multiprocessing.connection import Client, Connection
from typing import Any

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedsim.flower.grid import Identity
from fedsim.flower.nodes import Ask, Told, by_grid, wait_for
from fedsim.flower.packed import pack, unpack
from fedsim.mistakes import RunFailed

SECONDS_TO_COME = 120.0
"""How long the SuperNodes may take until they are there."""

_SECONDS_BETWEEN_LOOKS = 1.0

app = ServerApp()


@app.main()
def hand_on(grid: Grid, context: Context) -> None:
    """Hand bundles on until the other side closes the connection."""
    identity = Identity.now()
    with Client(str(context.run_config["relay"])) as connection:
        try:
            ids = wait_for(grid, int(context.run_config["nodes"]), SECONDS_TO_COME)
        except RunFailed as error:
            connection.send_bytes(pack({"failed": str(error)}))
            return
        connection.send_bytes(pack({"nodes": ids}))
        while True:
            try:
                asked = unpack(connection.recv_bytes())
                connection.send_bytes(pack(_answered(grid, identity, asked)))
            except (EOFError, ConnectionError):  # the other side is over
                return


def _answered(grid: Grid, identity: Identity, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Send what is asked for to the nodes; return what came."""
    bundles = {node: bundle.tobytes() for node, bundle in asked["bundles"].items()}
    try:
        came = by_grid(grid, identity, asked["told"], asked["seconds"])(bundles)
    except RunFailed as error:
        return {"failed": str(error)}
    return {"came": {node: _array(answer) if isinstance(answer, bytes) else answer for node, answer in came.items()}}


def _array(bundle: bytes) -> np.ndarray:
    return np.frombuffer(bundle, np.uint8)


class Relayed:
    """The other side: the nodes, as the process that submitted the run reaches them.

    Args:
        listener: The socket that the ServerApp connects to; it has connected when this is made.
        is_alive: Whether the SuperLink is there, as far as this process knows: a ServerApp waits for one that is gone.

    Raises:
        RunFailed: The nodes did not come.
        TimeoutError: The ServerApp did not.
    """

    def __init__(self, listener: socket.socket, is_alive: Callable[[], bool] = lambda: True) -> None:
        self._is_alive = is_alive
        accepted, _ = listener.accept()
        accepted.setblocking(True)
        self._connection = Connection(accepted.detach())
        self.nodes: list[int] = self._received()["nodes"]

    def ask(self, told: Told, seconds: float | None) -> Ask:
        """Return what sends bundles through the ServerApp; see ``fedsim.flower.nodes.by_grid``."""

        def ask(bundles: Mapping[int, bytes]) -> Mapping[int, bytes | str]:
            arrays = {node: _array(bundle) for node, bundle in bundles.items()}
            self._connection.send_bytes(pack({"told": dict(told), "seconds": seconds, "bundles": arrays}))
            came = self._received()["came"]
            return {node: answer if isinstance(answer, str) else answer.tobytes() for node, answer in came.items()}

        return ask

    def close(self) -> None:
        """Let the ServerApp end."""
        self._connection.close()

    def _received(self) -> dict[str, Any]:
        gone = RunFailed("the ServerApp is gone: the SuperLink ended it, or was ended itself")
        try:
            while not self._connection.poll(_SECONDS_BETWEEN_LOOKS):
                if not self._is_alive():
                    raise gone
            came = unpack(self._connection.recv_bytes())
        except (EOFError, ConnectionError):
            raise gone from None
        if "failed" in came:
            raise RunFailed(came["failed"])
        return came
