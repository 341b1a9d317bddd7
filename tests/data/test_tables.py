import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.data.tables import Levels, Number, encode, input_names, inputs_of
from fedsim.mistakes import Mistake

AGE = Number("age", 20, 100)
CHOL = Number("chol", 80, 620, missing=True)
PAIN = Levels("cp", (1, 2, 3), missing=True)


def test_a_number_is_scaled_by_its_public_range_and_clipped_to_it():
    frame = pd.DataFrame({"age": [20, 60, 100, 7, 130]})
    np.testing.assert_allclose(encode(frame, (AGE,)), [[-1], [0], [1], [-1], [1]])


def test_a_missing_number_is_the_middle_and_a_flag():
    np.testing.assert_allclose(encode(pd.DataFrame({"chol": [np.nan, 620]}), (CHOL,)), [[0, 1], [1, 0]])


def test_a_missing_level_is_none_of_the_levels():
    np.testing.assert_allclose(encode(pd.DataFrame({"cp": [2, np.nan]}), (PAIN,)), [[0, 1, 0], [0, 0, 0]])


@pytest.mark.whole
@given(st.lists(st.floats(allow_nan=True, allow_infinity=False, width=32), min_size=2, max_size=20))
def test_a_row_is_encoded_without_a_look_at_the_others(values: list[float]):
    """M26: nothing is fitted. The encoding of the first rows is the first rows of the encoding."""
    frame = pd.DataFrame({"chol": values})
    np.testing.assert_array_equal(encode(frame, (CHOL,))[:1], encode(frame[:1], (CHOL,)))
    assert np.abs(encode(frame, (CHOL,))).max() <= 1


@pytest.mark.parametrize(
    ("frame", "column", "message"),
    [
        ({"age": [50, np.nan]}, AGE, "column age, row 1: expected 20 to 100, got nan"),
        ({"age": [50, np.inf]}, AGE, "column age, row 1: expected 20 to 100, got inf"),
        ({"chol": [-np.inf]}, CHOL, "column chol, row 0: expected 80 to 620, got -inf"),
        ({"cp": [1, 9]}, PAIN, r"column cp, row 1: expected one of \(1, 2, 3\), got 9"),
        ({"age": ["old"]}, AGE, "column age: expected numbers, got"),
        ({"height": [1]}, AGE, "expected the columns age, got only height"),
    ],
)
def test_a_bad_value_is_named_with_its_place(frame: dict, column: Number | Levels, message: str):
    with pytest.raises(Mistake, match=message):
        encode(pd.DataFrame(frame), (column,))


def test_every_input_has_a_name_in_the_order_of_the_encoding():
    """Each name stands for one input, and the input of a level is 1 in the rows that have it."""
    columns = (AGE, CHOL, PAIN, Levels("sex", ("f", "m")), Levels("icd", (1234567.0, 2.5)))
    names = input_names(columns)
    assert names == [
        *("age", "chol", "chol missing", "cp = 1", "cp = 2", "cp = 3"),
        *("sex = f", "sex = m", "icd = 1234567", "icd = 2.5"),
    ]
    frame = pd.DataFrame({"age": [60], "chol": [np.nan], "cp": [3], "sex": ["f"], "icd": [1234567.0]})
    encoded = dict(zip(names, encode(frame, columns)[0], strict=True))
    assert {name for name, value in encoded.items() if value} == {"chol missing", "cp = 3", "sex = f", "icd = 1234567"}


def test_the_scale_of_an_input_is_what_one_of_it_is_in_the_columns_unit():
    age, chol, missing, *levels = inputs_of((AGE, CHOL, PAIN))
    assert (age.scale, chol.scale, missing.scale) == (40, 270, None)
    assert [level.scale for level in levels] == [None] * 3
    one_more = encode(pd.DataFrame({"age": [60, 100]}), (AGE,))[:, 0]
    assert one_more[1] - one_more[0] == 1


TSH = Number("tsh", 0.01, 100, log=True, mean=1, spread=10)


def test_a_logarithmic_scale_gives_each_factor_the_same_room():
    frame = pd.DataFrame({"tsh": [0.001, 0.01, 0.1, 1, 10, 1e6]})
    np.testing.assert_allclose(encode(frame, (TSH,))[:, 0], [-1, -1, -0.5, 0, 0.5, 1], atol=1e-6)
    for value in (0.01, 0.3, 1.0, 77.0):
        assert TSH.in_units(float(TSH.scaled(pd.Series([value])).iloc[0])) == pytest.approx(value)


def test_a_public_mean_and_spread_are_encoded_like_the_numbers():
    assert TSH.encoded_scale == pytest.approx((0.0, 0.5))  # a factor of 10 is a quarter of the range
    assert Number("age", 0, 100, mean=40, spread=20).encoded_scale == pytest.approx((-0.2, 0.4))
    assert AGE.encoded_scale == (0.0, 1.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"low": 0, "high": 9, "log": True}, "expected a least value above 0 on a logarithmic scale, got 0"),
        ({"low": 0, "high": 9, "mean": 4}, "expected mean and spread or neither, got mean alone"),
        ({"low": 0, "high": 9, "spread": 4}, "expected mean and spread or neither, got spread alone"),
        ({"low": 0, "high": 9, "mean": 10, "spread": 4}, "expected a mean from 0 to 9, got 10"),
        ({"low": 0, "high": 9, "mean": 4, "spread": 0}, "expected a spread above 0, got 0"),
        ({"low": 1, "high": 9, "mean": 4, "spread": 1, "log": True}, "a factor on a logarithmic scale, above 1, got 1"),
        ({"low": 0, "high": 9, "mean": 4, "spread": np.inf}, "expected a spread above 0, got inf"),
    ],
)
def test_a_scale_that_is_none_is_refused(values: dict, message: str):
    with pytest.raises(Mistake, match=message):
        Number("tsh", **values)
