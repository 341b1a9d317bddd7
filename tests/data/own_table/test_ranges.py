"""Entries of columns: what they may say of a number's scale, and what is fitted to rows."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedsim.data.own_table.ranges import as_entry, column_of, fitted
from fedsim.data.tables import Number
from fedsim.mistakes import Mistake

PRICE = {"low": 0, "high": 1e7, "mean": 4e5, "spread": 2e5}
TSH = {"low": 0.001, "high": 1000, "scale": "log", "mean": 1.5, "spread": 3}


@pytest.mark.parametrize(
    ("entry", "column"),
    [
        (PRICE, Number("x", 0, 1e7, "", True, 4e5, 2e5)),
        (TSH, Number("x", 0.001, 1000, "", True, 1.5, 3, log=True)),
        ({"low": 1, "high": 9, "scale": "linear"}, Number("x", 1, 9, "", True)),
    ],
)
def test_an_entry_may_declare_a_public_scale(entry: dict[str, Any], column: Number):
    assert column_of("x", entry, "data.ranges") == column
    assert column_of("x", as_entry(column), "data.ranges") == column


@pytest.mark.parametrize(
    "change", [{"scale": "cubic"}, {"mean": "high"}, {"spread": True}, {"mean": float("nan")}, {"scale": 3}]
)
def test_an_entry_with_another_scale_is_refused(change: dict[str, Any]):
    with pytest.raises(Mistake, match=r"data.ranges: x: expected a range or levels"):
        column_of("x", PRICE | change, "data.ranges")


def test_a_value_far_away_does_not_stretch_a_fitted_scale():
    values = pd.Series([*np.linspace(1, 5, 401), 530.0])
    column = fitted("tsh", values)
    assert isinstance(column, Number)
    assert (column.low, column.high) == (1, 530)
    assert column.mean == pytest.approx(3, abs=0.02)
    assert column.spread == pytest.approx(2 / 1.349, rel=0.02)


def test_a_column_that_mostly_has_one_value_still_has_a_fitted_spread():
    values = pd.Series([0.0] * 90 + [10.0] * 10)
    column = fitted("x", values)
    assert isinstance(column, Number)
    assert (column.mean, column.spread) == (0, pytest.approx(3))


def test_an_outcome_has_no_logarithmic_scale(tmp_path):
    from fedsim.data.own_table.prepared import prepare
    from fedsim.scenario.schema import Data

    path = tmp_path / "t.csv"
    path.write_text("site,age,tsh\n" + "".join(f"a,{30 + number},{number / 4 + 1}\n" for number in range(20)))
    data = Data(path=str(path), target="tsh", site="site", ranges={"age": [0, 120], "tsh": TSH})
    with pytest.raises(Mistake, match="expected an outcome on its own scale, and log for features only"):
        prepare(data)
