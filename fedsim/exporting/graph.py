"""Build an ONNX graph by computing with values that stand for its tensors.

A value takes part in NumPy's arithmetic: ``np.log10(value + 1)`` adds the nodes for it to the graph. So the functions
that compute a task's columns from its file are those that training calls, and no second description of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.lib.mixins import NDArrayOperatorsMixin
from onnx import TensorProto, helper, numpy_helper

from fedsim.mistakes import Mistake

OPSET = 21
_IR_VERSION = 10  # read by onnxruntime from 1.18 on
ROWS = "rows"
"""The name of the first dimension, which may have any size."""

FLOAT = TensorProto.FLOAT
DOUBLE = TensorProto.DOUBLE
STRING = TensorProto.STRING
UINT8 = TensorProto.UINT8

_OPERATORS = {
    "add": "Add",
    "subtract": "Sub",
    "multiply": "Mul",
    "divide": "Div",
    "negative": "Neg",
    "absolute": "Abs",
    "minimum": "Min",
    "maximum": "Max",
    "log": "Log",
    "exp": "Exp",
    "sqrt": "Sqrt",
    "matmul": "MatMul",
}
"""{NumPy's function: ONNX's operator}."""


class Value(NDArrayOperatorsMixin):
    """A tensor of a graph.

    Attributes:
        graph: The graph.
        name: The tensor's name in it.
        dtype: NumPy's type, that numbers in arithmetic with it are given.
    """

    def __init__(self, graph: Graph, name: str, dtype: np.dtype[Any]) -> None:
        self.graph = graph
        self.name = name
        self.dtype = dtype

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *operands: Any, **options: Any) -> Value:  # noqa: ANN401
        """Add the node of one of NumPy's functions.

        Raises:
            Mistake: There is none for it.
        """
        if method != "__call__" or options or ufunc.__name__ not in {*_OPERATORS, "log10"}:
            raise Mistake(f"export: expected arithmetic that ONNX has, got np.{ufunc.__name__} ({method})")
        values = [self.graph.constant(each, self.dtype) if not isinstance(each, Value) else each for each in operands]
        if ufunc.__name__ == "log10":
            return self.graph.node("Log", *values) / math.log(10)
        return self.graph.node(_OPERATORS[ufunc.__name__], *values)

    def __getitem__(self, places: tuple[slice, ...]) -> Value:
        """Add the node that takes a part: a slice for each of the first axes."""
        cut = [(axis, place) for axis, place in enumerate(places) if place != slice(None)]
        if not cut:
            return self
        starts = [place.start or 0 for _, place in cut]
        stops = [np.iinfo(np.int64).max if place.stop is None else place.stop for _, place in cut]
        axes = [axis for axis, _ in cut]
        numbers = [self.graph.constant(each, np.dtype(np.int64)) for each in (starts, stops, axes)]
        return self.graph.node("Slice", self, *numbers)

    def cast(self, to: int) -> Value:
        """Add the node that converts it to a type of ONNX."""
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(to))
        return self.graph.node("Cast", self, dtype=dtype, to=to)

    def unless_nan(self, other: Value) -> Value:
        """Return another value, and NaN where this one is: limits must not turn what is unknown into a number."""
        return self.graph.node("Where", self.graph.node("IsNaN", self), self, other, dtype=self.dtype)

    def between(self, low: float, high: float) -> Value:
        """Add the nodes that cut it to a range; NaN stays."""
        return self.unless_nan(np.minimum(np.maximum(self, low), high))  # type: ignore[call-overload]


class Graph:
    """A graph under construction."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, kind: int, shape: Sequence[int], meaning: str) -> Value:
        """Add an input of some rows.

        Args:
            name: Its name.
            kind: Its type in ONNX.
            shape: The shape of a row; empty for a single value.
            meaning: A description for people.
        """
        self._inputs.append(helper.make_tensor_value_info(name, kind, [ROWS, *shape], meaning))
        return Value(self, name, np.dtype(helper.tensor_dtype_to_np_dtype(kind)))

    def output(self, value: Value, name: str, kind: int, shape: Sequence[int], meaning: str) -> None:
        """Make a value an output; arguments are as of ``input``."""
        self._nodes.append(helper.make_node("Identity", [value.name], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, kind, [ROWS, *shape], meaning))

    def constant(self, value: Any, dtype: np.dtype[Any] | None = None) -> Value:  # noqa: ANN401  an array or a number
        """Add a constant; of texts where ``dtype`` is object."""
        array = np.asarray(value, dtype=dtype)
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(array, name))
        return Value(self, name, array.dtype)

    def node(self, operator: str, *values: Value, dtype: np.dtype[Any] | None = None, **attributes: Any) -> Value:  # noqa: ANN401
        """Add a node with one output.

        Args:
            operator: ONNX's operator.
            values: Its inputs.
            dtype: The type of its output; by default that of its first input.
            attributes: Its attributes.
        """
        name = f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, [value.name for value in values], [name], **attributes))
        return Value(self, name, dtype or values[0].dtype)

    def axes(self, *numbers: int) -> Value:
        """Return axes as operators take them."""
        return self.constant(numbers, np.dtype(np.int64))

    def finished(self, about: Mapping[str, str]) -> onnx.ModelProto:
        """Return the checked model, with facts about it as metadata."""
        graph = helper.make_graph(self._nodes, "fedsim", self._inputs, self._outputs, self._constants)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="fedsim", ir_version=_IR_VERSION
        )
        helper.set_model_props(model, dict(about))
        onnx.checker.check_model(model, full_check=True)
        return model
