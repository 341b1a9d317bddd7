"""What passes a grid is counted as it is."""

from collections.abc import Sequence

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from fedsim.flower.grid import FIRST_NODE, InProcessGrid
from fedsim.flower.records import Flat, Layout
from fedsim.flower.traffic import DOWN, UP, Traffic

SHAPES = {"weight": (2, 3), "bias": (2,)}


def passed() -> tuple[InProcessGrid, list[Message]]:
    """Return a grid that a round of three sites has passed, one of which answers with an error, and all messages."""
    vector = torch.arange(8.0)
    seen: list[Message] = []

    def execute(messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        replies = []
        for number, message in enumerate(messages):
            content = RecordDict({
                "arrays": Flat(vector + number, Layout.made(SHAPES)),
                "metrics": MetricRecord({"num-examples": 3}),
                "keys": ConfigRecord({"2": b"abcd", "3": b"efgh"}),
            })  # fmt: skip
            replies.append(Message(content, reply_to=message))
        seen.extend([*messages, *replies])
        return replies

    grid = InProcessGrid(execute, 3, {})
    sent = RecordDict({"arrays": Flat(vector, Layout.made(SHAPES)), "config": ConfigRecord({"server-round": 1})})
    messages = [grid.create_message(sent, "train", FIRST_NODE + site, "1") for site in range(3)]
    list(grid.send_and_receive(messages))
    return grid, seen


def test_the_sizes_are_those_of_the_real_messages():
    grid, messages = passed()
    ordinary = 0
    for message in messages:
        for record in message.content.values():
            if isinstance(record, Flat):
                record = ArrayRecord(dict(record.items()))  # encoded, each on its own
            ordinary += record.count_bytes()
    assert sum(row["bytes"] for row in grid.traffic.rows()) == ordinary
    assert sum(row["messages"] for row in grid.traffic.rows() if row["record"] == "arrays") == len(messages)


def test_each_kind_has_a_row_with_its_fields():
    grid, _ = passed()
    rows = {(row["direction"], row["record"]): row for row in grid.traffic.rows()}
    assert set(rows) == {(DOWN, "arrays"), (DOWN, "config"), (UP, "arrays"), (UP, "metrics"), (UP, "keys")}
    assert rows[UP, "arrays"]["fields"] == "weight, bias"
    assert rows[UP, "keys"]["fields"] == "one for each site"
    assert rows[UP, "metrics"]["rounds"] == 1
    assert rows[UP, "arrays"]["most"] * 3 == rows[UP, "arrays"]["bytes"]


def test_a_count_goes_on_from_what_was_kept():
    grid, messages = passed()
    again = Traffic()
    again.restore(grid.traffic.rows())
    assert again.rows() == grid.traffic.rows()
    again.count(UP, messages[3:])
    doubled = {row["record"]: row for row in again.rows() if row["direction"] == UP}
    assert doubled["keys"]["rounds"] == 2
    assert doubled["keys"]["messages"] == 6
