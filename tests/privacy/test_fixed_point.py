import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.privacy.fixed_point import FixedPoint, OutOfRange

NUMBERS = st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=20)


@given(NUMBERS, st.floats(0.5, 500), st.integers(8, 40))
def test_what_is_written_down_is_read_back_up_to_half_a_step(values: list[float], weight: float, bits: int):
    fixed = FixedPoint(bits)
    sums, total = fixed.decode(fixed.encode(np.array(values), weight))
    assert total == pytest.approx(weight, abs=fixed.resolution / 2)
    np.testing.assert_allclose(sums, np.array(values) * weight, rtol=1e-15, atol=fixed.resolution / 2)


@pytest.mark.whole
@given(st.lists(NUMBERS.map(lambda values: [*values, *[0.0] * 20][:20]), min_size=1, max_size=30))
def test_a_sum_of_what_is_written_down_is_exact(updates: list[list[float]]):
    """An oracle in Python's whole numbers, which have no end."""
    fixed = FixedPoint(16)
    written = [fixed.encode(np.array(update), 3.0) for update in updates]
    total = np.sum(written, axis=0, dtype=np.uint64)
    expected = [sum(round(values[place] * 3.0 * 2**16) for values in updates) for place in range(20)]
    assert [int(number) for number in total.view(np.int64)] == [*expected, len(updates) * 3 * 2**16]


def test_the_largest_sum_that_fits_does_not_wrap_around():
    fixed = FixedPoint(bits=32, range=1e6)
    weight = 2.0**62 * fixed.resolution / fixed.range
    assert fixed.fits(weight)
    assert not fixed.fits(weight * 1.001)
    total = np.sum([fixed.encode(np.full(3, side * 1e6), weight / 4) for side in (1, 1, 1, 1)], axis=0, dtype=np.uint64)
    np.testing.assert_allclose(fixed.decode(total)[0], 1e6 * weight)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1000.1, -1e300])
def test_a_value_beyond_the_range_is_refused_and_not_said(bad: float):
    """Neither cut off nor told: it may be a row's."""
    with pytest.raises(OutOfRange, match=r"^expected finite values of at most 1000$"):
        FixedPoint().encode(np.array([0.0, bad]))


@pytest.mark.parametrize("weight", [0.0, -1.0, np.nan, np.inf, 1e10])
def test_a_weight_must_be_positive_and_fit(weight: float):
    with pytest.raises(ValueError, match="a weight > 0 that fits"):
        FixedPoint().encode(np.zeros(3), weight)
