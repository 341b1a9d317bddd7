import numpy as np
import pytest

from clients import hospital
from fedsim import catalog


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


@pytest.mark.parametrize("name", [name for name in catalog.titles("tasks") if name.startswith("hospital/")])
def test_a_task_gives_finite_bounded_inputs_and_a_model_that_takes_them(name: str):
    task = catalog.load("tasks", name)
    rows = task.load()
    assert rows.inputs.dtype == rows.target.dtype == np.float32
    assert len(rows.inputs) == len(rows.target) == len(rows.site)
    assert np.abs(rows.inputs).max() <= 1
    assert set(np.unique(rows.target)) == {0, 1}
    import torch

    logits = task.model(rows.inputs.shape[1])(torch.from_numpy(rows.inputs[:3]))
    assert logits.shape == (3, 1)


def test_public_ranges_hold_the_data():
    """A range that clips many patients would be a wrong range."""
    frame = hospital.read_heart()
    for column in hospital.HEART:
        if isinstance(column, hospital.Number):
            values = frame[column.name].dropna()
            assert values.between(column.low, column.high).all(), column.name
