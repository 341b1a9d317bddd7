"""Write as ONNX what becomes of raw columns before the model, and of the model's outputs after it."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fedsim.data.form import Derive
from fedsim.data.scale import Scale
from fedsim.data.tables import Column, Levels, Number
from fedsim.exporting.graph import DOUBLE, FLOAT, STRING, Graph, Value
from fedsim.scenario.kinds import Kind

_FLOAT = np.dtype(np.float32)


def is_text(column: Column) -> bool:
    """Return whether the values of a column are texts, and not numbers."""
    return isinstance(column, Levels) and any(isinstance(level, str) for level in column.levels)


def raw_inputs(graph: Graph, columns: Sequence[Column], shape: Sequence[int]) -> dict[str, Value]:
    """Add an input for each column of a file: float64, NaN where missing; or text, empty where missing.

    Args:
        graph: The graph.
        columns: The columns.
        shape: The shape of a row's values in each; empty for one value.
    """
    values = {}
    for column in columns:
        kind = STRING if is_text(column) else DOUBLE
        values[column.name] = graph.input(column.name, kind, shape, described(column))
    return values


def described(column: Column) -> str:
    """Describe a column in a line: its levels, or its range and unit, and whether it may be missing."""
    if isinstance(column, Levels):
        levels = ", ".join(level if isinstance(level, str) else f"{level:g}" for level in column.levels)
        parts = [f"one of {levels}", column.meaning]
    elif math.isinf(column.low):
        parts = ["a number", column.unit]
    else:
        parts = [f"{column.low:g} to {column.high:g}", column.unit]
    parts.append("may be missing" if column.missing else "")
    return "; ".join(part for part in parts if part)


def encoded(graph: Graph, raw: Mapping[str, Value], columns: Sequence[Column], derive: Derive | None) -> Value:
    """Add the encoding of a task's columns, as ``fedsim.data.tables.encode`` does it: float32 (rows, ..., inputs)."""
    values = derive(raw) if derive else raw
    parts = [_encoded_column(graph, values[column.name], column) for column in columns]
    return parts[0] if len(parts) == 1 else graph.node("Concat", *parts, axis=-1)


def _encoded_column(graph: Graph, value: Value, column: Column) -> Value:
    last_axis = graph.axes(-1)
    if isinstance(column, Levels):
        with_axis = graph.node("Unsqueeze", value, last_axis)
        levels = graph.constant(list(column.levels), value.dtype)
        return graph.node("Equal", with_axis, levels).cast(FLOAT)  # (rows, ..., levels)

    cut = value.between(column.low, column.high)
    if column.log:
        scaled = np.log(cut / column.low) / (math.log(column.high / column.low) / 2) - 1
    else:
        scaled = (cut - column.low) / column.scale - 1
    scaled = scaled.cast(FLOAT)
    inputs = [scaled]
    if column.missing:
        is_missing = graph.node("IsNaN", value)
        known = graph.node("Where", is_missing, graph.constant(0.0, _FLOAT), scaled, dtype=_FLOAT)
        inputs = [known, is_missing.cast(FLOAT)]
    with_axis = [graph.node("Unsqueeze", each, last_axis) for each in inputs]
    return with_axis[0] if len(with_axis) == 1 else graph.node("Concat", *with_axis, axis=-1)


def standardized(graph: Graph, value: Value, scale: Scale | None) -> Value:
    """Add what ``Scale.inputs`` does to encoded inputs, float32 (rows, inputs)."""
    if scale is None:
        return value
    bound = scale.as_json()["input_bound"]
    centred = (value - scale.means.astype(np.float32)) / scale.spreads.astype(np.float32)
    cut = centred.between(-bound, bound)

    has_flag = scale.flags >= 0
    if not has_flag.any():
        return cut
    places = graph.constant(np.maximum(scale.flags, 0), np.dtype(np.int64))
    flags = graph.node("Gather", value, places, axis=1)
    is_flagged = graph.node("Equal", flags, graph.constant(1.0, _FLOAT))
    is_missing = graph.node("And", is_flagged, graph.constant(has_flag))
    return graph.node("Where", is_missing, graph.constant(0.0, _FLOAT), cut, dtype=_FLOAT)


def brightness(graph: Graph, pixels: Value, has_channels: bool) -> Value:
    """Add the scaling of brightness 0 to 255 to inputs in [-1, 1], float32 (rows, channels, height, width)."""
    scaled = pixels.cast(FLOAT) / 127.5 - 1
    return scaled if has_channels else graph.node("Unsqueeze", scaled, graph.axes(1))


def predictions(
    graph: Graph,
    outputs: Value,
    kind: Kind,
    outcome: str,
    classes: Sequence[str],
    range: Number | None,
    scale: Scale | None,
) -> None:
    """Add the outputs of the graph, of a model's outputs (rows, outputs).

    Args:
        graph: The graph.
        outputs: The model's outputs.
        kind: The kind of the outcome.
        outcome: Its meaning.
        classes: The names of the classes.
        range: The range of a number.
        scale: The scale by which a number was standardized.
    """
    if kind == "classes":
        probabilities = graph.node("Softmax", outputs, axis=1)
        likeliest = graph.node("ArgMax", probabilities, axis=1, keepdims=0)
        names = graph.constant(list(classes), np.dtype(object))
        graph.output(
            graph.node("Gather", names, likeliest, axis=0), "class", STRING, [], f"the likeliest class of: {outcome}"
        )
        listed = ", ".join(classes)
        graph.output(probabilities, "probabilities", FLOAT, [len(classes)], f"the probability of each of {listed}")
        return

    single = graph.node("Squeeze", outputs, graph.axes(1))
    if range is None:
        graph.output(graph.node("Sigmoid", single), "probability", FLOAT, [], f"the probability of: {outcome}")
        return
    number = single.cast(DOUBLE)
    if scale is not None:
        number = number * scale.target_spread + scale.target_mean
    in_units = range.low + (number + 1) * range.scale
    graph.output(in_units, "prediction", DOUBLE, [], f"{outcome}; {range.unit}" if range.unit else outcome)
