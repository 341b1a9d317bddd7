import numpy as np
import pandas as pd
import pytest

from clients import school
from clients.files import read_table


def test_a_pupils_record_holds_nothing_of_grade_3_but_the_target(monkeypatch: pytest.MonkeyPatch):
    """Whatever is written in grade 3 beside the score and the groups, the inputs are the same."""
    honest = school.load_progress()

    def changed(name: str) -> pd.DataFrame:
        table = read_table(name)
        last = table["gr"] == "3"
        table.loc[last, "read"], table.loc[last, "exp"], table.loc[last, "cltype"] = 300.0, 1.0, "small"
        table.loc[last, "math"] -= 50
        return table

    monkeypatch.setattr(school, "read_table", changed)
    other = school.load_progress()
    np.testing.assert_array_equal(honest.inputs, other.inputs)
    assert (honest.target != other.target).all()


def test_a_pupils_inputs_don_t_follow_from_other_pupils(monkeypatch: pytest.MonkeyPatch):
    """A school's mean status was computed from its pupils; it is no input."""
    honest = school.load_achievement()
    monkeypatch.setattr(school, "read_table", lambda name: read_table(name).assign(school_mean_ses=0.0))
    np.testing.assert_array_equal(honest.inputs, school.load_achievement().inputs)


def test_pupils_who_came_in_grade_3_have_three_years_of_nothing():
    rows = school.load_progress()
    nothing = (rows.inputs == rows.inputs[(rows.inputs[..., 1] == 1).all(1)][0]).all((1, 2))
    assert nothing.sum() == 1_019
