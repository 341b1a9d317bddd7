"""Screening of replies: what is malformed is set aside and named, and the round goes on with the rest.

Flower's FedAvg would take a NaN, broadcast a wrong shape, count a reply twice or end the run (measured on 1.41).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from flwr.app import ArrayRecord, Message, MetricRecord

from fedsim.flower.records import ARRAYS, METRICS, WEIGHT, Flat, stacked, vector_in


@dataclass(frozen=True)
class Rejected:
    """A reply that was set aside, and why."""

    node: int
    reason: str


def match(
    messages: Sequence[Message], replies: Iterable[Message], names: Mapping[int, str] | None = None
) -> tuple[list[Message | None], list[Rejected]]:
    """Match replies with the messages they answer.

    A reply is a site's by the message it answers, whose id the grid has given, not by the sender that it names: else a
    site could answer, and be charged, in another's place.

    Args:
        messages: What was sent, as it is after the grid has sent it.
        replies: In any order.
        names: {node: name of its site}, to say whose id was taken; without it, it is said by its number.

    Returns:
        The answer to each message, in their order, None where there is none; and the replies that are set aside, by
        the site that was asked. They name another sender, are a site's second, or answer nothing that was sent. A site
        that did not answer at all is among them.
    """
    place_of = {message.metadata.message_id: place for place, message in enumerate(messages)}
    answers: list[Message | None] = [None] * len(messages)
    rejected = []
    for reply in replies:
        sender = reply.metadata.src_node_id
        place = place_of.get(reply.metadata.reply_to_message_id)
        if place is None:
            rejected.append(Rejected(sender, "was not asked"))
            continue
        asked = messages[place].metadata.dst_node_id
        if sender != asked:
            claimed = (names or {}).get(sender, f"node {sender}")
            rejected.append(Rejected(asked, f"answered under another site's id, that of {claimed}"))
        elif answers[place] is not None:
            rejected.append(Rejected(asked, "replied twice"))
        else:
            answers[place] = reply

    named = {one.node for one in rejected}
    for message, answer in zip(messages, answers, strict=True):
        node = message.metadata.dst_node_id
        if answer is None and node not in named:
            rejected.append(Rejected(node, "did not answer"))
    return answers, rejected


def screen(replies: Iterable[Message], sent: ArrayRecord, asked: Iterable[int]) -> tuple[list[Message], list[Rejected]]:
    """Split replies to train messages into usable ones and others.

    Args:
        replies: In any order.
        sent: The model that was sent out: a reply must have its keys, shapes and types.
        asked: The nodes that were asked.

    Returns:
        The usable replies, sorted by node, so that sums don't depend on who came first; and the rejected ones.
    """
    replies = list(replies)
    faults = _flat_faults(replies, sent)
    return sort_out(replies, asked, lambda reply: _fault(reply, sent, faults))


def sort_out(
    replies: Iterable[Message], asked: Iterable[int], fault: Callable[[Message], str]
) -> tuple[list[Message], list[Rejected]]:
    """Split replies to any messages; ``fault`` returns what is wrong with one that is no error, or nothing."""
    usable: dict[int, Message] = {}
    rejected = []
    waiting = set(asked)
    for reply in sorted(replies, key=lambda reply: reply.metadata.src_node_id):
        node = reply.metadata.src_node_id
        if node in usable:
            reason = "replied twice"
        elif node not in waiting:
            reason = "was not asked"
        elif reply.has_error():
            reason = f"failed: {reply.error.reason}"
        else:
            reason = fault(reply)
        if reason:
            rejected.append(Rejected(node, reason))
        else:
            usable[node] = reply
    return list(usable.values()), rejected


def _flat_faults(replies: list[Message], sent: ArrayRecord) -> dict[int, str]:
    """Return what is wrong with all vectors in one go: {id of a Flat record laid out as the sent one: fault or ""}."""
    if not isinstance(sent, Flat):
        return {}
    records = [record for reply in replies if reply.has_content() for record in reply.content.values()]
    alike = [one for one in records if isinstance(one, Flat) and one.layout is sent.layout]
    vectors = {id(one): vector for one in alike if (vector := vector_in(one)) is not None}
    if not vectors:
        return {}
    fine = stacked([*vectors.values()]).sum(1).isfinite().tolist()  # no sum with a NaN or Inf in it is finite
    return {
        number: "" if sure else _not_finite(vector)
        for (number, vector), sure in zip(vectors.items(), fine, strict=True)
    }


def _not_finite(values: torch.Tensor) -> str:
    count = int((~values.isfinite()).sum())
    return f"expected finite numbers, got {count} NaN or Inf" if count else ""


def _fault(reply: Message, sent: ArrayRecord, faults: dict[int, str]) -> str:
    """Return what is wrong with a reply, or nothing."""
    for kind, expected in ((ArrayRecord, ARRAYS), (MetricRecord, METRICS)):
        names = [name for name, record in reply.content.items() if _is_a(type(record), kind)]
        if names != [expected]:
            return f"expected one {kind.__name__} {expected!r}, got {names}"
    weight = reply.content[METRICS].get(WEIGHT)
    if not isinstance(weight, int | float) or not 0 < weight < math.inf:
        return f"{WEIGHT}: expected a finite number > 0, got {weight}"
    arrays: ArrayRecord = reply.content[ARRAYS]  # type: ignore[assignment]
    found = faults.get(id(arrays))
    return _array_fault(arrays, sent) if found is None else found


_is_a = cache(issubclass)  # Flower's records are abstract mappings, of which Python asks slowly what they are


def _array_fault(got: ArrayRecord, sent: ArrayRecord) -> str:
    if set(got) != set(sent):
        return f"expected the keys {sorted(sent)}, got {sorted(got)}"
    for name, expected in sent.items():
        array = got[name]
        if tuple(array.shape) != tuple(expected.shape) or array.dtype != expected.dtype:
            return f"{name}: expected {expected.dtype} {tuple(expected.shape)}, got {array.dtype} {tuple(array.shape)}"
        try:
            values = array.numpy()
        except ValueError as error:
            return f"{name}: expected an array, got {error}"
        if values.shape != tuple(expected.shape):
            return f"{name}: expected {tuple(expected.shape)}, got {values.shape}"
        if fault := _not_finite(torch.from_numpy(values)):
            return f"{name}: {fault}"
    return ""
