"""A Flower Grid inside this process: no Ray, no server, no sockets.

The only module that touches what Flower does not make public (checked on flwr 1.41.0, see tests/flower/test_grid.py):
``TaskIdentity``, without which no Message can be made, ``Run``, and a message's id, which is read-only.
"""

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedsim.flower.traffic import DOWN, UP, Traffic
from fedsim.of_sites import Alike

FIRST_NODE = 2  # node 1 is the server's; sites follow in the order of their numbers
_RUN, _SERVER_NODE, _TASK = 1, 1, 1

CLIENT_APP_NOT_LOADED, CLIENT_APP_RAISED = 1, 2
"""Codes of error replies, as ``flwr.common.constant.ErrorCode`` has them."""

Execute = Callable[[Sequence[Message], Sequence[Context]], list[Message]]


def node_of(site_number: int) -> int:
    """Return the node id of a site. Flower's own are random, which makes runs irreproducible."""
    return FIRST_NODE + site_number


def nodes_of(names: Sequence[str]) -> range:
    """Return the nodes of all sites, ascending, which is the order of their names."""
    return range(FIRST_NODE, FIRST_NODE + len(names))


def by_node(numbers: Mapping[str, float], names: Sequence[str]) -> Mapping[int, float]:
    """Return {node: the number of its site} from {site: its number}."""
    nodes = nodes_of(names)
    if isinstance(numbers, Alike):
        return Alike(nodes, numbers.number)
    return dict(zip(nodes, numbers.values(), strict=True))


def sent(message: Message, number: int) -> Message:
    """Give a message its id, as a grid does when it sends it, and return it.

    Args:
        message: The message.
        number: Which one of its run it is; a number of the process would tell what else ran in it.
    """
    message.metadata.__dict__["_message_id"] = f"m{number}"
    return message


@dataclass(frozen=True)
class Identity:
    """Under which run, node and task this process makes messages; without one, Flower makes none."""

    run: int | None
    node: int | None
    task: int | None

    @classmethod
    def now(cls) -> "Identity":
        """Return the one that this process has."""
        return cls(TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Make messages under this identity in the body of a ``with``."""
        before = Identity.now()
        self._set()
        try:
            yield
        finally:
            before._set()

    def _set(self) -> None:
        for name, value in (("_run_id", self.run), ("_node_id", self.node), ("_task_id", self.task)):
            setattr(TaskIdentity, name, value)


OF_A_SIMULATION = Identity(_RUN, _SERVER_NODE, _TASK)
"""Of all messages between a server and sites that are simulated, in whichever process."""


class InProcessGrid(Grid):
    """Hands a round's messages to an engine and returns its replies.

    Args:
        execute: The engine: takes the messages and the receivers' contexts, returns a reply to each, in order.
        sites: How many sites there are.
        run_config: What every ClientApp finds in ``context.run_config``.

    Attributes:
        traffic: What passed so far.
    """

    def __init__(self, execute: Execute, sites: int, run_config: Mapping[str, Any]) -> None:
        self._execute = execute
        self.traffic = Traffic()
        self._numbers = itertools.count(1)
        self._replies: dict[str, Message] = {}
        self._sites, self._run_config = sites, dict(run_config)
        self._contexts: dict[int, Context] = {}
        self.set_run(Run.create_empty(_RUN))

    def set_run(self, run: Run) -> None:
        """Set the run, as Flower's own grids do."""
        self._run = run
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run.run_id, _SERVER_NODE, _TASK

    @property
    def run(self) -> Run:
        """The run."""
        return copy.copy(self._run)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> range:
        """Return the nodes, ascending; what Flower declares is an Iterable, and a range is no work for 100 000."""
        return range(FIRST_NODE, FIRST_NODE + self._sites)

    @property
    def contexts(self) -> Mapping[int, Context]:
        """The contexts of the nodes that were asked so far and remember something."""
        return self._contexts

    def context(self, node: int) -> Context:
        """Return what a node's ClientApp is given in every round; made anew where it remembers nothing."""
        if node not in self._contexts:
            self._contexts[node] = Context(
                run_id=_RUN,
                node_id=node,
                node_config={"partition-id": node - FIRST_NODE, "num-partitions": self._sites},
                state=RecordDict(),
                run_config=dict(self._run_config),
            )
        return self._contexts[node]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Execute messages; return their ids, under which the replies wait."""
        pushed = list(messages)
        for message in pushed:
            if message.metadata.dst_node_id not in self.get_node_ids():
                raise ValueError(f"expected a node in {self.get_node_ids()}, got {message.metadata.dst_node_id}")
            sent(message, next(self._numbers))
        contexts = [self.context(message.metadata.dst_node_id) for message in pushed]
        self.traffic.count(DOWN, pushed)
        replies = self._execute(pushed, contexts) if pushed else []
        for context in contexts:  # of a million sites most are asked once
            if not context.state:
                self._contexts.pop(context.node_id, None)
        self.traffic.count(UP, [reply for reply in replies if isinstance(reply, Message)])
        for message, reply in zip(pushed, replies, strict=True):
            if not isinstance(reply, Message):
                continue  # a ClientApp that gives nothing, or something else, has not answered
            self._replies[message.metadata.message_id] = sent(reply, next(self._numbers))
        return [message.metadata.message_id for message in pushed]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to some messages, each once."""
        return [self._replies.pop(key) for key in message_ids if key in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Execute messages and return the replies; everything runs to its end, so ``timeout`` has no meaning."""
        return self.pull_messages(self.push_messages(messages))


def own_copy(content: RecordDict) -> RecordDict:
    """Copy the records, not the arrays: Flower's strategies put one RecordDict into all messages of a round."""
    return RecordDict({name: record.copy() for name, record in content.items()})
