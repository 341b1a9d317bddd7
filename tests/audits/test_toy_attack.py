"""An attack is a new file: in a copy of fedsim one more is listed, run and printed, and nothing else is changed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fedsim
from fedsim.audits.attack import Attack
from fedsim.audits.attacks import all_attacks, load
from fedsim.audits.finding import QUESTIONS
from fedsim.mistakes import Mistake
from fedsim.privacy.unit import Place
from fedsim.scenario import catalog

TOY = '''"""Toy attack: are the records' numbers large?

It attacks nothing.
"""

from fedsim.audits.attack import Attack
from fedsim.audits.claims import RECORDS
from fedsim.audits.finding import Answer, Curve, Finding, Measured, Picture, Row
from fedsim.audits.target import Target


class Toy(Attack):
    """Looks at the records."""

    places = RECORDS
    question = "Toys"
    label = "toy"

    def run(self, target: Target) -> Finding:
        """Look."""
        largest = float(target.rows.inputs.abs().max())
        limit = target.promised.epsilon if target.promised else None
        return self.finding(
            target,
            measured=(Measured("looking", "epsilon", None, low=1000.0, confidence=0.99, limit=limit),),
            words=(f"{target.training}: the largest number is {largest:.2f}",),
            rows=(Row("The largest number", "a toy's hint", f"{largest:.2f} large"),),
            answer=Answer("Are there toys?", "The toy saw", "one toy"),
            picture=Picture("toys", "A picture of toys", "Toys", "A toy's caption.", Curve((0.5,) * 61)),
        )
'''

SCRIPT = """
from pathlib import Path
import fedsim
from fedsim.audits import audit as audits
from fedsim.audits.attacks import all_attacks
from fedsim.audits.audit_files import lines, write
from fedsim.audits.audit import audit
from fedsim.audits.claims import claim_of
from fedsim.audits.target import Effort
from fedsim.audits.story import levels, page
from fedsim.scenario.files import read

print(fedsim.__file__)
slow = {"inversion", "leakage", "one_run", "one_shot", "round_inversion", "site_property", "source"}
audits.all_attacks = lambda: [attack for attack in all_attacks() if attack.name not in slow]
effort = Effort(trials=20, canaries=20, directions=10, size=50, shadows=4)
changes = ["training.rounds=1", "seeds=1"]
chosen = read("hospital-heart", changes)
found = audit(chosen, claim_of(chosen), effort)
print(*lines(found), sep="\\n")
write(found, Path("audit"))
told = levels.tell(levels.scenarios("hospital-heart", changes, "none,8"), Path("runs"), effort)
page.write(told, Path("story"))
"""


@pytest.mark.whole
def test_a_new_attack_is_a_new_file(tmp_path: Path):
    """Listed with its title, run on each training, in the figures and the printed lines, and on the story's page."""
    package = Path(fedsim.__file__).parent
    shutil.copytree(package, tmp_path / "fedsim", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "fedsim/audits/attacks/toy.py").write_text(TOY)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{package.parent}"}

    def run(*words: str) -> str:
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = json.loads(run("-m", "fedsim", "list", "audits", "--json"))
    assert {"name": "toy", "title": "Toy attack: are the records' numbers large?"} in listed

    printed = run("-c", SCRIPT)
    assert printed.startswith(str(tmp_path / "fedsim"))
    assert "\ntoy               plain: the largest number is " in printed
    assert "\ntoy               private: the largest number is " in printed
    assert "THE CLAIM IS REFUTED" in printed

    written = json.loads((tmp_path / "audit/audit.json").read_text())
    findings = {found["training"]: found for found in written["findings"] if found["attack"] == "toy"}
    assert {training: found["verdict"] for training, found in findings.items()} == {
        "plain": "no claim",
        "private": "refuted",
    }
    assert written["broken"] is True
    assert written["lower_bound"] == 1000.0

    page = (tmp_path / "story/story.html").read_text()
    for text in ("Toys", "The largest number", "a toy&#39;s hint", "A picture of toys", "Are there toys?",
                 "The toy saw: one toy with no privacy; one toy with epsilon 8.", "A claim is refuted."):  # fmt: skip
        assert text in page, text
    assert (tmp_path / "story/toys.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", catalog.titles("audits"))
def test_an_attack_says_where_it_applies_and_what_it_answers(name: str):
    attack = load(name)
    assert attack.name == name
    assert attack.places
    assert set(attack.places) <= set(Place)
    assert attack.question in QUESTIONS
    assert attack.trainings


def test_every_unit_is_attacked_and_its_promise_tested():
    """Each unit but none has an attack that gives lower bounds; attacks come in the order of their questions."""
    attacks = all_attacks()
    assert [attack.name for attack in attacks][:3] == ["canary", "one_run", "one_shot"]
    for place in Place:
        questions = {attack.question for attack in attacks if place in attack.places}
        assert QUESTIONS[1] in questions, place
        assert (QUESTIONS[0] in questions) == (place is not Place.NOWHERE), place


def test_an_unknown_attack_gets_the_nearest():
    with pytest.raises(Mistake, match=r"name of an audit, got 'membershib'; did you mean 'membership'\?"):
        load("membershib")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"places": (Place.IN_STEPS,), "question": "q"}, "expected the attributes label"),
        ({"places": ("recrod",), "question": "q", "label": "l"}, "places: expected some of .*, got 'recrod'"),
        ({"places": (Place.IN_STEPS,), "question": "q", "label": "l" * 18}, "label: expected at most 17 characters"),
    ],
)
def test_an_attack_that_is_not_complete_says_so_when_it_is_imported(attributes: dict, message: str):
    with pytest.raises(TypeError, match=message):
        type("Wrong", (Attack,), attributes)


def test_a_file_without_an_attack_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from fedsim.audits import attacks

    (tmp_path / "empty_one.py").write_text('"""Nothing."""\n')
    monkeypatch.setattr(attacks, "__path__", [str(tmp_path)])
    monkeypatch.setattr(catalog, "check", lambda kind, name: None)
    with pytest.raises(TypeError, match=r"empty_one.py: expected one class derived from Attack, got none"):
        load("empty_one")
