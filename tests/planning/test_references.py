"""What keeps references from being trained is told before anything is."""

import pytest

from fedsim.mistakes import Mistake
from fedsim.planning import references
from fedsim.planning.checks import check
from fedsim.planning.references import check_installed, check_without_references, reference_faults
from fedsim.planning.trial import Trial
from fedsim.scenario.files import read

ASKED = "references=[linear]"


def faults(name: str, *changes: str) -> list[str]:
    scenario = read(name, ["seeds=1", *changes])
    return list(reference_faults(Trial(scenario, scenario.seed, scenario.arms[0])))


def test_a_table_has_none_of_these_faults():
    assert faults("hospital-heart", ASKED) == []


@pytest.mark.whole
def test_images_have_no_references():
    (fault,) = faults("school-digits", ASKED)
    assert fault.startswith("references: expected none beside images and sequences")
    assert faults("school-digits") == []


def test_many_sites_have_no_references(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(references, "MOST_SITES", 3)
    assert faults("hospital-heart", ASKED) == [
        "references: expected at most 3 sites beside them, each has models of its own, got 4"
    ]


def test_without_scikit_learn_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(references, "find_spec", lambda name: None)
    line = "references: scikit-learn is not installed; it comes with: pip install 'fedsim-flower[references]'"
    assert faults("hospital-heart", ASKED) == [line]
    assert faults("hospital-heart") == []
    with pytest.raises(Mistake) as told:
        check_installed()
    assert str(told.value) == line
    with pytest.raises(Mistake, match="scikit-learn is not installed"):
        check(read("hospital-heart", ["seeds=1", "training.rounds=1", ASKED]))


def test_where_many_scenarios_are_compared_there_are_none():
    check_without_references(read("hospital-heart", []))
    with pytest.raises(Mistake, match="fedsim run has them"):
        check_without_references(read("hospital-heart", [ASKED]))


@pytest.mark.parametrize("given", ["[linear, linear]", "[forest]", "linear"])
def test_an_unknown_reference_or_a_twin_is_refused(given: str):
    with pytest.raises(Mistake, match="references"):
        read("hospital-heart", [f"references={given}"])
