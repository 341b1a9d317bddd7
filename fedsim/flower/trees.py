"""Flower's records as trees of values and tensors, which ``fedsim.flower.packed`` writes: nothing in them is code."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedsim.flower.records import Flat, Layout, vector_in


def tree_of(records: RecordDict) -> dict[str, Any]:
    """Return records as a tree."""
    return {name: _tree_of_record(record) for name, record in records.items()}


def _tree_of_record(record: object) -> tuple[str, Any]:
    if isinstance(record, ArrayRecord):
        vector = vector_in(record)
        if isinstance(record, Flat) and vector is not None:
            return "flat", (record.layout.shapes, vector)
        return "arrays", {name: array.numpy() for name, array in record.items()}
    if isinstance(record, MetricRecord):
        return "metrics", dict(record)
    if isinstance(record, ConfigRecord):
        return "config", {key: _without_bytes(value) for key, value in record.items()}
    raise TypeError(f"expected a record of Flower's, got a {type(record).__name__}")


def records_of(tree: Mapping[str, tuple[str, Any]]) -> RecordDict:
    """Return the records that ``tree_of`` was given."""
    return RecordDict({name: _record_of(*part) for name, part in tree.items()})


def _record_of(kind: str, content: Any) -> ArrayRecord | MetricRecord | ConfigRecord:  # noqa: ANN401  by its kind
    if kind == "flat":
        shapes, vector = content
        # A copy begins where the allocator begins, and products of the last bit depend on where numbers lie.
        return Flat(vector.clone(), Layout.made(shapes))
    if kind == "arrays":
        return ArrayRecord({name: Array(np.array(values)) for name, values in content.items()})
    if kind == "metrics":
        return MetricRecord(content)
    return ConfigRecord({key: _with_bytes(value) for key, value in content.items()})


def _without_bytes(value: Any) -> Any:  # noqa: ANN401  what a ConfigRecord holds
    """Return a value of a ConfigRecord as a pair of its kind and a value that can be packed."""
    if isinstance(value, bytes):
        return "bytes", np.frombuffer(value, np.uint8)
    if isinstance(value, list):
        return "list", [_without_bytes(part) for part in value]
    return "value", value


def _with_bytes(pair: tuple[str, Any]) -> Any:  # noqa: ANN401  what a ConfigRecord holds
    kind, value = pair
    if kind == "bytes":
        return value.tobytes()
    if kind == "list":
        return [_with_bytes(part) for part in value]
    return value
