"""Screening of replies: what is malformed is set aside and named, and the round goes on with the rest.

Flower's FedAvg would take a NaN, broadcast a wrong shape, count a reply twice or end the run (measured on 1.41).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, Message

from fedsim.records import ARRAYS, METRICS, WEIGHT, Flat, stacked, vector_in


@dataclass(frozen=True)
class Rejected:
    """A reply that was set aside, and why."""

    node: int
    reason: str


def screen(replies: Iterable[Message], sent: ArrayRecord, asked: Iterable[int]) -> tuple[list[Message], list[Rejected]]:
    """Split replies to train messages into usable ones and others.

    Args:
        replies: In any order.
        sent: The model that was sent out: a reply must have its keys, shapes and types.
        asked: The nodes that were asked.

    Returns:
        The usable replies, sorted by node, so that sums don't depend on who came first; and the rejected ones.
    """
    usable: dict[int, Message] = {}
    rejected = []
    waiting = set(asked)
    replies = sorted(replies, key=lambda reply: reply.metadata.src_node_id)
    faults = _flat_faults(replies, sent)
    for reply in replies:
        node = reply.metadata.src_node_id
        if node in usable:
            reason = "replied twice"
        elif node not in waiting:
            reason = "was not asked"
        else:
            reason = _fault(reply, sent, faults)
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
    spoiled = (~stacked([*vectors.values()]).isfinite()).sum(1).tolist()
    return {
        number: f"expected finite numbers, got {count} NaN or Inf" if count else ""
        for number, count in zip(vectors, spoiled, strict=True)
    }


def _fault(reply: Message, sent: ArrayRecord, faults: dict[int, str]) -> str:
    """Return what is wrong with a reply, or nothing."""
    if reply.has_error():
        return f"failed: {reply.error.reason}"
    arrays = reply.content.array_records
    metrics = reply.content.metric_records
    if list(arrays) != [ARRAYS]:
        return f"expected one ArrayRecord {ARRAYS!r}, got {list(arrays)}"
    if list(metrics) != [METRICS]:
        return f"expected one MetricRecord {METRICS!r}, got {list(metrics)}"
    weight = metrics[METRICS].get(WEIGHT)
    if not isinstance(weight, int | float) or not 0 < weight < math.inf:
        return f"{WEIGHT}: expected a finite number > 0, got {weight}"
    found = faults.get(id(arrays[ARRAYS]))
    return _array_fault(arrays[ARRAYS], sent) if found is None else found


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
        if not np.isfinite(values).all():
            return f"{name}: expected finite numbers, got {int((~np.isfinite(values)).sum())} NaN or Inf"
    return ""
