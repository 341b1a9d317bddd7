"""Count the messages that pass a grid: what is in them, how large it is, and how many there are.

Sizes are those that Flower gives: names and encoded values of each record. What the wire adds around them, and what
encryption adds on it, is not counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord

from fedsim.flower.records import Flat, vector_in

DOWN, UP = "to a site", "from a site"
ERROR = "error"
"""Stands for the record of a reply without content: the kind of an error."""

_MOST_FIELDS = 12
_SITES = "one for each site"

_Record = ArrayRecord | ConfigRecord | MetricRecord

Key = tuple[str, str, str]
"""Direction, message type, and the record's name."""


@dataclass
class Counted:
    """The records of one kind that passed.

    Attributes:
        fields: What they hold; the numbers of sites are put together.
        messages: How many messages had one.
        rounds: How many times the grid was handed messages with one.
        bytes: Their size in all.
        most: The size of the largest.
    """

    fields: str
    messages: int = 0
    rounds: int = 0
    bytes: int = 0
    most: int = 0


class Traffic:
    """The records that passed so far, by direction, message type and name."""

    def __init__(self) -> None:
        self._counted: dict[Key, Counted] = {}
        self._of_layouts: dict[int, tuple[object, int]] = {}  # {id of a layout: (the layout, its size)}

    def count(self, direction: str, messages: Sequence[Message]) -> None:
        """Count messages that were handed over together."""
        seen: set[Key] = set()
        of_content: dict[int, list[tuple[str, _Record | None, int]]] = {}  # Flower's strategies share one content
        for message in messages:
            message_type = message.metadata.message_type
            if message.has_content():
                content = message.content
                place = id(content)
                if place not in of_content:
                    of_content[place] = [(name, record, self._size(record)) for name, record in content.items()]
                records = of_content[place]
            else:
                records = [(ERROR, None, 8 + len((message.error.reason or "").encode()))]
            for name, record, size in records:
                key = (direction, message_type, name)
                counted = self._counted.get(key)
                if counted is None:
                    counted = self._counted[key] = Counted(_fields(record))
                counted.messages += 1
                counted.bytes += size
                counted.most = max(counted.most, size)
                seen.add(key)
        for key in seen:
            self._counted[key].rounds += 1

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each kind of record, in the order in which they passed first."""
        rows = []
        for (direction, message, record), counted in self._counted.items():
            rows.append({"direction": direction, "message": message, "record": record, **counted.__dict__})
        return rows

    def restore(self, rows: Sequence[dict[str, Any]]) -> None:
        """Go on from what ``rows`` returned."""
        self._counted = {}
        for row in rows:
            values = dict(row)
            key = (str(values.pop("direction")), str(values.pop("message")), str(values.pop("record")))
            self._counted[key] = Counted(**values)

    def _size(self, record: _Record) -> int:
        if isinstance(record, Flat) and vector_in(record) is not None:
            # All vectors of a layout are of one size, so that one of them is encoded and no other.
            layout = record.layout
            if id(layout) not in self._of_layouts:
                self._of_layouts[id(layout)] = (layout, record.count_bytes())
            return self._of_layouts[id(layout)][1]
        if isinstance(record, ConfigRecord):
            return _size_of_config(record)
        return record.count_bytes()


def _size_of_config(record: ConfigRecord) -> int:
    """Return the size of a record as Flower counts it, which has none for an empty text."""
    size = 0
    for key, value in record.items():
        values = value if isinstance(value, list) else [value]
        size += len(key)
        for one in values:
            size += len(one) if isinstance(one, str | bytes) else 1 if isinstance(one, bool) else 8
    return size


def _fields(record: _Record | None) -> str:
    """Say what a record holds, or what stands for the one of a reply without content."""
    if record is None:
        return "code, reason"
    if isinstance(record, Flat) and vector_in(record) is not None:
        names = list(record.layout.shapes)
    else:
        names = [str(name) for name in record]
    named = list(dict.fromkeys(_SITES if name.isdecimal() else name for name in names))
    more = len(named) - _MOST_FIELDS
    return ", ".join(named[:_MOST_FIELDS]) + (f" and {more} more" if more > 0 else "")
