"""A finding's verdict follows from its figures, their intervals and the limits alone."""

import json

import pytest

from fedsim.audits.audit import Audit
from fedsim.audits.claims import Claim
from fedsim.audits.finding import Finding, Measured, Verdict
from fedsim.privacy.ledger import Mechanism

CLAIM = Claim(Mechanism(1.0, 1.0, 1.0, 8.0, 1), 2.0, 1e-5, "add-or-remove-one")


def finding(*measured: Measured, claim: Claim | None = CLAIM, section: dict | None = None) -> Finding:
    return Finding("toy", "Toys", "toy", "private", claim, measured, ("first", "second"), section=section or {})


@pytest.mark.parametrize(
    ("figure", "verdict"),
    [
        (Measured("bound", "epsilon", 3.0, 2.1, None, 0.99, 2.0), Verdict.REFUTED),
        (Measured("bound at the limit", "epsilon", 3.0, 2.0, None, 0.99, 2.0), Verdict.STANDS),
        (Measured("bound below", "epsilon", 3.0, 0.0, None, 0.99, 2.0), Verdict.STANDS),
        (Measured("estimate", "epsilon", 9.0, limit=2.0), Verdict.NOT_TESTED),
        (Measured("interval without a limit", "share", 1.0, 0.8, 1.0, 0.99), Verdict.NOT_TESTED),
    ],
)
def test_only_a_bound_above_its_limit_refutes(figure: Measured, verdict: Verdict):
    assert finding(figure).verdict is verdict
    assert finding(figure, claim=None).verdict is Verdict.NO_CLAIM


def test_one_figure_of_several_is_enough():
    good = Measured("good", "epsilon", None, 0.5, None, 0.99, 2.0)
    bad = Measured("bad", "epsilon", None, 2.5, None, 0.99, 2.0)
    found = Audit("s", CLAIM, 3, (finding(good), finding(good, bad)))
    assert found.broken
    assert found.bound == 2.5
    assert not Audit("s", CLAIM, 3, (finding(good),)).broken


def test_bounds_on_other_quantities_are_no_bounds_on_epsilon():
    found = Audit("s", CLAIM, 3, (finding(Measured("rebuilt", "share", 1.0, 0.9, 1.0, 0.99)),))
    assert found.bound == 0.0


def test_the_first_line_has_the_label():
    assert [*finding().lines] == ["toy               first", "                  second"]


def test_sections_are_merged_and_those_of_attacks_without_a_finding_stay_empty():
    """What readers of earlier versions look for is always there."""
    first = finding(section={"membership": {"plain": {"lira": 1}}})
    second = finding(section={"membership": {"private": {"lira": 2}}, "one_shot": {"estimate": 3}})
    values = Audit("s", CLAIM, 3, (first, second)).values
    assert values["membership"] == {"plain": {"lira": 1}, "private": {"lira": 2}}
    assert values["one_shot"] == {"estimate": 3}
    assert values["canaries"] == values["inversion"] == values["source"] == values["property"] == {}
    assert Audit("s", CLAIM, 3, ()).values["one_shot"] is None
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_an_attack_without_a_finding_is_said_to_have_none():
    with pytest.raises(KeyError, match="expected a finding of canary on the plain training"):
        Audit("s", CLAIM, 3, ()).of("canary", "plain")
