import numpy as np
import pytest

from clients import bank

LATER = ("PAY_0", "PAY_2", "PAY_3", "BILL_AMT1", "BILL_AMT2", "BILL_AMT3", "PAY_AMT1", "PAY_AMT2", "PAY_AMT3")
"""The file's columns of September, August and July."""

SOME = 2_000  # cards


def test_nothing_that_comes_after_june_is_an_input_of_the_months_that_follow(monkeypatch: pytest.MonkeyPatch):
    """Whatever is in the columns of July, August and September, the inputs are the same; the labels are not."""
    table = bank.read_credit().head(SOME)
    monkeypatch.setattr(bank, "read_credit", lambda: table)
    honest = bank.load_late_months()
    changed = table.assign(**{name: 2 - table[name].clip(0, 2) for name in LATER})
    monkeypatch.setattr(bank, "read_credit", lambda: changed)
    other = bank.load_late_months()
    np.testing.assert_array_equal(honest.inputs, other.inputs)
    assert (honest.target[:, :3] != other.target[:, :3]).any(0).all()
    np.testing.assert_array_equal(honest.target[:, 3], other.target[:, 3])


def test_a_label_is_a_month_in_which_a_card_is_behind(monkeypatch: pytest.MonkeyPatch):
    table = bank.read_credit().head(SOME)
    monkeypatch.setattr(bank, "read_credit", lambda: table)
    target = bank.load_late_months().target
    assert target.shape == (SOME, 4)
    for label, name in enumerate(("PAY_3", "PAY_2", "PAY_0")):
        assert target[:, label].sum() == (table[name] >= 1).sum(), name
