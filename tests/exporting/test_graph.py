"""Computing with values of a graph gives what NumPy gives."""

import numpy as np
import pandas as pd
import pytest
import torch

from clients import bank, prices
from fedsim.data.scale import Scale
from fedsim.data.tables import Column, Levels, Number, encode
from fedsim.exporting import preprocessing
from fedsim.exporting.graph import DOUBLE, FLOAT, Graph
from fedsim.exporting.predict import outputs_of
from fedsim.mistakes import Mistake

COLUMNS: tuple[Column, ...] = (
    Number("age", 20, 100),
    Number("pressure", 80, 220, missing=True),
    Number("income", 10, 1e6, missing=True, log=True),
    Levels("stage", (1, 2, 3), missing=True),
    Levels("ward", ("east", "west"), missing=True),
)
FRAME = pd.DataFrame({
    "age": [50.0, 5.0, 130.0, 99.9],
    "pressure": [120.5, np.nan, 300.0, -1.0],
    "income": [np.nan, 5.0, 1e9, 1234.5],
    "stage": [1.0, np.nan, 3.0, 2.0],
    "ward": ["west", None, "east", "east"],
})  # fmt: skip


def raw(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    numbers = {name: frame[name].to_numpy(float) for name in frame if name != "ward"}
    return numbers | {"ward": frame["ward"].fillna("").to_numpy(object)}


def test_columns_are_encoded_as_in_training():
    graph = Graph()
    value = preprocessing.encoded(graph, preprocessing.raw_inputs(graph, COLUMNS, []), COLUMNS, None)
    graph.output(value, "encoded", FLOAT, [10], "inputs")
    got = outputs_of(graph.finished({}).SerializeToString(), raw(FRAME))["encoded"]
    assert np.array_equal(got, encode(FRAME, COLUMNS))


def test_what_is_unknown_stays_unknown():
    graph = Graph()
    column = (Number("age", 20, 100),)
    value = preprocessing.encoded(graph, preprocessing.raw_inputs(graph, column, []), column, None)
    value = preprocessing.standardized(graph, value, Scale(np.array([0.1]), np.array([0.5]), np.array([-1])))
    graph.output(value, "encoded", FLOAT, [1], "inputs")
    got = outputs_of(graph.finished({}).SerializeToString(), {"age": np.array([np.nan, 60.0])})["encoded"]
    assert np.isnan(got[0])
    assert np.isfinite(got[1])


def test_inputs_are_standardized_as_in_training():
    encoded = encode(FRAME, COLUMNS)
    scale = Scale(
        means=np.linspace(-0.5, 0.5, 10),
        spreads=np.array([0.01, 0.5, 1.0, 0.3, 1.0, 0.2, 0.4, 0.5, 0.3, 0.7]),
        flags=np.array([-1, 2, -1, 4, -1, -1, -1, -1, -1, -1]),
    )
    graph = Graph()
    value = preprocessing.standardized(graph, graph.input("encoded", FLOAT, [10], ""), scale)
    graph.output(value, "inputs", FLOAT, [10], "")
    got = outputs_of(graph.finished({}).SerializeToString(), {"encoded": encoded})["inputs"]
    wanted = scale.inputs(torch.from_numpy(encoded)).numpy()
    assert np.array_equal(got, wanted)
    assert (np.abs(wanted) == 10).any()  # one was cut


@pytest.mark.parametrize(
    ("derive", "columns", "length"),
    [
        (bank.lending_columns, bank.LENDING_FILE, []),
        (bank.credit_columns, bank._credit_file(), []),
        (prices.describe_windows, bank.STOCKS_FILE, [40]),
    ],
)
def test_a_tasks_own_columns_are_computed_as_by_numpy(derive, columns, length):
    random = np.random.default_rng(0)
    arrays = {column.name: random.uniform(1, 900, (50, *length)) for column in columns}
    graph = Graph()
    wanted = derive(arrays)
    for name, value in derive(preprocessing.raw_inputs(graph, columns, length)).items():
        graph.output(value, f"own {name}", DOUBLE, [20] if length else [], "")
    got = outputs_of(graph.finished({}).SerializeToString(), arrays)
    for name, values in wanted.items():
        assert np.allclose(got[f"own {name}"], values, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_windows_have_the_inputs_of_the_days():
    """The description of a window is that of its days in the whole series."""
    days = bank.read_stocks()
    own = days[days["Ticker"] == days["Ticker"].iloc[0]].sort_values("Date").reset_index(drop=True)[:100]
    described = prices.describe(own)
    of_window = prices.describe_windows({c.name: own[c.name].to_numpy(float)[None, 30:70] for c in bank.STOCKS_FILE})
    for name, values in of_window.items():
        assert np.allclose(values[0], described[name][50:70], rtol=1e-9), name


def test_arithmetic_that_onnx_lacks_is_refused():
    value = Graph().input("age", DOUBLE, [], "")
    with pytest.raises(Mistake, match=r"expected arithmetic that ONNX has, got np\.arctan"):
        np.arctan(value)  # type: ignore[call-overload]
