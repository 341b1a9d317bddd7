"""Reach real sites by a grid of Flower's: who is which node, messages that were lost, answers under a wrong id.

The server counts its sites as in a simulation, ``node_of(number)``. The ids of Flower's nodes are random, and another
one after a SuperNode registered anew; so each node is asked which site it is. Each message also says what is asked for:
the scenario, the seed, the noise.
"""

import copy
import itertools
import logging
import time
from collections.abc import Iterable, Mapping, Sequence

from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedsim.flower.grid import CLIENT_APP_NOT_LOADED, CLIENT_APP_RAISED, OF_A_SIMULATION, Identity, node_of, sent
from fedsim.mistakes import RunFailed

TRAINING = "training"
"""The record that says what a message asks for."""

WHO, SITE = "who", "site"
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_TO_SAY_WHO = 60.0
_log = logging.getLogger("fedsim")


class RealGrid(Grid):
    """A grid whose nodes are real sites, under the numbers of a simulation's.

    Args:
        grid: Flower's grid.
        identity: Under which messages are made for it.
        sites: The names of the sites, in their order.
        told: What each message says beside its content.
        seconds: How long an answer may take; None for any time.
        tries: How often a message is sent that is not answered.
        fewest: The least number of sites that have to answer to a training message.
    """

    def __init__(
        self,
        grid: Grid,
        identity: Identity,
        sites: Sequence[str],
        told: Mapping[str, str | int | float | bool],
        seconds: float | None,
        tries: int,
        fewest: int,
    ) -> None:
        self._grid = grid
        self._identity = identity
        self._sites = list(sites)
        self._told = dict(told)
        self._seconds = seconds
        self._tries = tries
        self._fewest = fewest
        self._numbers = itertools.count(1)
        self._said: dict[int, str] = {}  # {real node: the site that it says it is}

    def set_run(self, run: Run) -> None:
        """Leave the run to Flower's grid."""

    @property
    def run(self) -> Run:
        """The run."""
        return copy.copy(self._grid.run)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message to a site."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> range:
        """Return the nodes of all sites, ascending, whether they are there now or not."""
        return range(node_of(0), node_of(len(self._sites)))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refuse: only whole rounds are sent."""
        raise NotImplementedError("expected send_and_receive: lost messages are sent again")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refuse, likewise."""
        raise NotImplementedError("expected send_and_receive: lost messages are sent again")

    def wait(self, seconds: float) -> None:
        """Wait until every site is there.

        Raises:
            RunFailed: They did not all come, or two nodes say that they are the same site.
        """
        until = time.monotonic() + seconds
        while missing := sorted(set(self._sites) - set(self._places())):
            if time.monotonic() > until:
                raise RunFailed(f"expected all sites within {seconds:g} seconds, missing: {', '.join(missing)}")
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages to sites and return their replies; what is lost is sent again, what is refused is not.

        Raises:
            RunFailed: Too few sites answered to a training message.
        """
        asked = [sent(message, next(self._numbers)) for message in messages]
        replies: dict[int, Message] = {}
        for tried in range(self._tries):
            waiting = [place for place in range(len(asked)) if place not in replies]
            if not waiting:
                break
            if tried:
                _log.warning("%s of %s messages were not answered and are sent again", len(waiting), len(asked))
            replies |= self._sent_once({place: asked[place] for place in waiting})

        answered = sum(reply.has_content() for reply in replies.values())
        if asked and asked[0].metadata.message_type == "train" and answered < min(self._fewest, len(asked)):
            said = "".join(f"\n  {self._name(reply)}: {reply.error.reason}" for reply in replies.values()
                           if reply.has_error())  # fmt: skip
            raise RunFailed(f"{answered} of {len(asked)} sites answered, expected at least {self._fewest} "
                            f"(deployment.fewest_answers); the same command goes on from here{said}")  # fmt: skip
        return list(replies.values())

    def _sent_once(self, asked: Mapping[int, Message]) -> dict[int, Message]:
        """Send messages, by their places; return the replies that came, by the same."""
        places = self._places()
        pushed: dict[int, tuple[int, int]] = {}  # {number of what is sent: (place, real node)}
        with self._identity.taken():
            outgoing = []
            for place, message in asked.items():
                name = self._sites[message.metadata.dst_node_id - node_of(0)]
                if name not in places:
                    continue  # it is not there now
                content = RecordDict({**message.content, TRAINING: ConfigRecord({**self._told})})
                outgoing.append(Message(content, places[name], message.metadata.message_type))
                pushed[len(outgoing) - 1] = (place, places[name])
            came = list(self._grid.send_and_receive(outgoing, timeout=self._seconds)) if outgoing else []

        by_id = {message.metadata.message_id: pushed[number] for number, message in enumerate(outgoing)}
        replies = {}
        for reply in came:
            if reply.metadata.reply_to_message_id not in by_id:
                continue  # it answers nothing that was asked
            place, node = by_id[reply.metadata.reply_to_message_id]
            if reply.metadata.src_node_id != node or place in replies:
                continue  # it is another node's, or a second one
            if reply.has_error() and reply.error.code not in (CLIENT_APP_NOT_LOADED, CLIENT_APP_RAISED):
                continue  # it was lost on its way
            with OF_A_SIMULATION.taken():
                content_or_error = Error(reply.error.code, reply.error.reason) if reply.has_error() else reply.content
                answer = Message(content_or_error, reply_to=asked[place])
            replies[place] = sent(answer, next(self._numbers))
        return replies

    def _places(self) -> dict[str, int]:
        """Return {site: the node that it is now} of the sites that are there.

        Raises:
            RunFailed: Two nodes say that they are the same site.
        """
        there = list(self._grid.get_node_ids())
        unknown = [node for node in there if node not in self._said]
        if unknown:
            with self._identity.taken():
                content = RecordDict({WHO: ConfigRecord({})})
                questions = [Message(content, node, f"query.{WHO}") for node in unknown]
                for reply in self._grid.send_and_receive(questions, timeout=_SECONDS_TO_SAY_WHO):
                    record = reply.content.get(SITE) if reply.has_content() else None
                    name = record.get(SITE) if isinstance(record, ConfigRecord) else None
                    self._said[reply.metadata.src_node_id] = str(name or "")
        places: dict[str, int] = {}
        for node in there:
            name = self._said.get(node, "")
            if name not in self._sites:
                continue
            if name in places:
                raise RunFailed(f"two nodes say that they are {name}: {places[name]} and {node}; who is right, the "
                                "server can't tell")  # fmt: skip
            places[name] = node
        return places

    def _name(self, reply: Message) -> str:
        return self._sites[reply.metadata.src_node_id - node_of(0)]
