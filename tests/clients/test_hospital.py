import numpy as np

from clients import hospital


def test_the_four_hospitals_are_all_there():
    rows = hospital.load_heart()
    names, counts = np.unique(rows.site, return_counts=True)
    assert dict(zip(names, counts, strict=True)) == {
        "cleveland": 303, "hungarian": 294, "switzerland": 123, "va_long_beach": 200
    }  # fmt: skip
    assert rows.target.sum() == 509


def test_complete_records_have_no_flag_and_keep_all_hospitals():
    rows = hospital.load_heart_complete()
    assert len(np.unique(rows.site)) == 4
    assert len(rows.target) == 766


def test_public_ranges_hold_the_data():
    """A range that clips many patients would be a wrong range."""
    frame = hospital.read_heart()
    for column in hospital.HEART:
        if isinstance(column, hospital.Number):
            values = frame[column.name].dropna()
            assert values.between(column.low, column.high).all(), column.name
