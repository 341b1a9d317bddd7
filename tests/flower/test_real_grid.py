"""What a grid of real sites makes of replies that are late, doubled, foreign or broken."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict

from fedsim.flower.grid import CLIENT_APP_RAISED, OF_A_SIMULATION, InProcessGrid, node_of
from fedsim.flower.real_grid import SITE, TRAINING, WHO, RealGrid
from fedsim.mistakes import RunFailed

SITES = ["north", "south", "west"]
Replies = Callable[[list[Message]], Iterable[Message | None]]


class Nodes(InProcessGrid):
    """Three nodes that say who they are, and answer as is told.

    Args:
        answers: From the messages of a round to what arrives in answer to it, in whichever order.
        gone: The nodes that are not there.
    """

    def __init__(self, answers: Replies, gone: Iterable[int] = ()) -> None:
        super().__init__(lambda messages, contexts: [], len(SITES), {})
        self.answers = answers
        self.gone = set(gone)
        self.sent: list[list[Message]] = []

    def get_node_ids(self) -> list[int]:  # type: ignore[override]
        return [node for node in super().get_node_ids() if node not in self.gone]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        asked = list(messages)
        for number, message in enumerate(asked):
            message.metadata.__dict__["_message_id"] = f"{len(self.sent)}-{number}"
        if asked and asked[0].metadata.message_type == f"query.{WHO}":
            return [reply_to(message, RecordDict({SITE: ConfigRecord({SITE: SITES[message.metadata.dst_node_id - 2]})}))
                    for message in asked]  # fmt: skip
        self.sent.append(asked)
        return [reply for reply in self.answers(asked) if reply is not None]


def reply_to(message: Message, content: RecordDict | Error | None = None) -> Message:
    with OF_A_SIMULATION.taken():
        found: Any = RecordDict({"metrics": MetricRecord({"a": 1})}) if content is None else content
        return Message(found, reply_to=message)


def asked(nodes: Nodes, tries: int = 1, fewest: int = 1, what: str = "train") -> list[Message]:
    """Ask all three sites; return the replies as the server gets them."""
    grid = RealGrid(nodes, OF_A_SIMULATION, SITES, {"training": "x"}, None, tries, fewest)
    with OF_A_SIMULATION.taken():
        messages = [
            Message(RecordDict({"n": ConfigRecord({"n": number})}), node_of(number), what) for number in range(3)
        ]
        return list(grid.send_and_receive(messages))


def from_whom(replies: Iterable[Message]) -> list[int]:
    return [reply.metadata.src_node_id - node_of(0) for reply in replies]


def changed(message: Message, **metadata: object) -> Message:
    for name, value in metadata.items():
        message.metadata.__dict__[f"_{name}"] = value
    return message


def test_each_message_says_what_is_asked_for():
    nodes = Nodes(lambda messages: map(reply_to, messages))
    assert from_whom(asked(nodes)) == [0, 1, 2]
    assert [message.content[TRAINING]["training"] for message in nodes.sent[0]] == ["x"] * 3


BROKEN: dict[str, tuple[Replies, list[int]]] = {
    "nothing": (lambda messages: [], []),
    "one is lost": (lambda messages: map(reply_to, messages[1:]), [1, 2]),
    "another order": (lambda messages: map(reply_to, reversed(messages)), [2, 1, 0]),
    "twice": (lambda messages: [*map(reply_to, messages), reply_to(messages[0])], [0, 1, 2]),
    "under another site's id": (
        lambda messages: [*map(reply_to, messages[1:]), changed(reply_to(messages[0]), src_node_id=3)],
        [1, 2],
    ),
    "under an unknown id": (
        lambda messages: [*map(reply_to, messages[1:]), changed(reply_to(messages[0]), src_node_id=99)],
        [1, 2],
    ),
    "to nothing that was asked": (
        lambda messages: [*map(reply_to, messages[1:]), changed(reply_to(messages[0]), reply_to_message_id="old")],
        [1, 2],
    ),
    "an error of the way": (
        lambda messages: [*map(reply_to, messages[1:]), reply_to(messages[0], Error(3, "no such node"))],
        [1, 2],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_reply_counts_once_and_for_the_site_that_was_asked(name: str):
    answers, counted = BROKEN[name]
    nodes = Nodes(answers)
    if counted:
        assert from_whom(asked(nodes)) == counted
    else:
        with pytest.raises(RunFailed, match="0 of 3 sites answered, expected at least 1"):
            asked(nodes)


def test_what_is_lost_is_asked_again_and_nothing_else():
    rounds: list[int] = []

    def late(messages: list[Message]) -> Iterable[Message]:
        rounds.append(len(messages))
        return map(reply_to, messages[: len(rounds)])

    assert sorted(from_whom(asked(Nodes(late), tries=5))) == [0, 1, 2]
    assert rounds == [3, 2]


def test_what_a_site_refuses_is_not_asked_again():
    nodes = Nodes(lambda messages: [reply_to(message, Error(CLIENT_APP_RAISED, "no")) for message in messages])
    with pytest.raises(RunFailed) as caught:
        asked(nodes, tries=3)
    assert len(nodes.sent) == 1
    assert str(caught.value).splitlines()[1:] == ["  north: no", "  south: no", "  west: no"]


def test_figures_may_come_from_none():
    assert asked(Nodes(lambda messages: []), what="evaluate") == []


def test_a_site_that_is_away_is_asked_when_it_is_back():
    nodes = Nodes(lambda messages: map(reply_to, messages), gone=[3])
    assert from_whom(asked(nodes, tries=2)) == [0, 2]
    assert [message.metadata.dst_node_id for message in nodes.sent[0]] == [2, 4]
    nodes.gone.clear()
    assert from_whom(asked(nodes)) == [0, 1, 2]
