"""The nodes of a federation of Flower's that simulated sites are shared out among: Ray's actors, or SuperNodes.

The rounds, the strategies, the faults and the ledger stay with the server of this process, as in every simulation. The
nodes get the sites' messages in bundles (see ``fedsim.flower.bundles``), train, and send the replies back.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid

from fedsim.flower.bundles import pack_messages, unpack_replies
from fedsim.flower.grid import CLIENT_APP_NOT_LOADED, CLIENT_APP_RAISED, OF_A_SIMULATION, Execute, Identity
from fedsim.mistakes import RunFailed

BUNDLE = "bundle"
"""The record of a message to a node, and of its reply."""

MESSAGE_TYPE = f"query.{BUNDLE}"
_SECONDS_BETWEEN_LOOKS = 0.05
_log = logging.getLogger("fedsim")

Told = Mapping[str, str | int | list[str]]
"""What a node is told with every bundle: the engine, for how many cores it cuts stacks, which code it may load."""

Ask = Callable[[Mapping[int, bytes]], Mapping[int, bytes | str]]
"""Sends each node its bundle; returns the bundle of replies of each node, or how it was lost.

It raises RunFailed where a node is there, but could not do what it was asked for: another one could not, either.
"""


@dataclass
class Nodes:
    """Nodes that are there and answer.

    Attributes:
        ids: Their ids, ascending; a node that gave no answer is no longer among them.
        ask: Sends them bundles.
        engine: The engine by which they train.
    """

    ids: list[int]
    ask: Ask
    engine: str

    def execute(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message | None]:
        """Let the nodes answer the messages to some sites, as an engine does; see ``fedsim.flower.grid.Execute``.

        Sites are shared out in their order, as evenly as may be. What a node gives for a site does not depend on which
        node it is, nor, with the serial engine, on what other sites it has. So what a node that is lost was asked for
        is shared out among the others, and the result is the same.

        Raises:
            RunFailed: No node is left, or one could not do what it was asked for.
        """
        replies: dict[int, Message | None] = {}
        waiting = list(range(len(messages)))
        while waiting:
            shares = {
                node: share for node, share in zip(self.ids, _shares(waiting, len(self.ids)), strict=True) if share
            }
            bundles = {}
            for node, share in shares.items():
                bundles[node] = pack_messages([messages[site] for site in share], [contexts[site] for site in share])
            came = self.ask(bundles)
            reasons = {node: str(came.get(node, "it gave no answer")) for node in shares if not _is_there(came, node)}
            waiting = []
            for node, share in shares.items():
                if node in reasons:
                    self._lose(node, reasons[node])
                    waiting += share
                    continue
                asked, memories = [messages[site] for site in share], [contexts[site] for site in share]
                with OF_A_SIMULATION.taken():
                    replies |= zip(share, unpack_replies(bytes(came[node]), asked, memories), strict=True)  # type: ignore[arg-type]
        return [replies[site] for site in range(len(messages))]

    def _lose(self, node: int, reason: str) -> None:
        """Do without a node from now on.

        Raises:
            RunFailed: It was the last one.
        """
        self.ids.remove(node)
        if not self.ids:
            raise RunFailed(f"node {node} is lost, and no other is left: {reason}")
        _log.warning("node %s is lost, the others take its sites over: %s", node, reason)


def _is_there(came: Mapping[int, bytes | str], node: int) -> bool:
    return isinstance(came.get(node), bytes)


def _shares(things: Sequence[int], parts: int) -> Iterator[Sequence[int]]:
    """Yield the parts of a row of things, as even as may be."""
    for part in range(parts):
        yield things[part * len(things) // parts : (part + 1) * len(things) // parts]


def by_grid(grid: Grid, identity: Identity, told: Told, seconds: float | None) -> Ask:
    """Return what sends bundles by a grid of Flower's.

    Args:
        grid: The grid.
        identity: Under which messages are made for it.
        told: What each node is told with its bundle.
        seconds: How long the nodes may take; None for any time.
    """

    def ask(bundles: Mapping[int, bytes]) -> Mapping[int, bytes | str]:
        with identity.taken():
            messages = []
            for node, bundle in bundles.items():
                content = RecordDict({BUNDLE: ConfigRecord({**told, "bundle": bundle})})
                messages.append(Message(content, node, MESSAGE_TYPE))
            came = list(grid.send_and_receive(messages, timeout=seconds))
        within = "" if seconds is None else f" within {seconds:g} seconds"
        answers: dict[int, bytes | str] = dict.fromkeys(bundles, f"it gave no answer{within}")
        for reply in came:
            answers[reply.metadata.src_node_id] = _answer_in(reply)
        return answers

    return ask


def _answer_in(reply: Message) -> bytes | str:
    """Return the bundle in the reply of a node, or how it was lost.

    Raises:
        RunFailed: The code of the node failed.
    """
    if reply.has_error():
        if reply.error.code in (CLIENT_APP_NOT_LOADED, CLIENT_APP_RAISED):
            raise RunFailed(f"a node failed: {reply.error.reason}")
        return reply.error.reason or f"error {reply.error.code}"
    record = reply.content.get(BUNDLE)
    bundle = record.get("bundle") if isinstance(record, ConfigRecord) else None
    return bundle if isinstance(bundle, bytes) else "it sent no bundle"


_at_hand: list[Nodes] = []  # the last ones count


@contextmanager
def at_hand(nodes: Nodes) -> Iterator[None]:
    """Let engines that share sites out among nodes find these in the body of a ``with``."""
    _at_hand.append(nodes)
    try:
        yield
    finally:
        _at_hand.pop()


def execute() -> Execute:
    """Return the function that lets the nodes at hand answer.

    Raises:
        RunFailed: There are none.
    """
    if not _at_hand:
        raise RunFailed("expected nodes of a federation of Flower's, none are at hand")
    return _at_hand[-1].execute  # type: ignore[return-value]  a grid leaves out what is no reply


def are_at_hand() -> bool:
    """Return whether there are nodes at hand."""
    return bool(_at_hand)


def inside() -> str:
    """Return the engine of the nodes at hand; the serial one where there are none."""
    return _at_hand[-1].engine if _at_hand else "serial"


def wait_for(grid: Grid, count: int, seconds: float) -> list[int]:
    """Wait until so many nodes are there; return their ids, ascending.

    Raises:
        RunFailed: They did not come in time.
    """
    until = time.monotonic() + seconds
    while True:
        ids = sorted(grid.get_node_ids())
        if len(ids) >= count:
            return ids[:count]
        if time.monotonic() > until:
            raise RunFailed(f"expected {count} nodes within {seconds:g} seconds, {len(ids)} came")
        time.sleep(_SECONDS_BETWEEN_LOOKS)
