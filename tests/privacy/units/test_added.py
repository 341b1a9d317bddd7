"""A privacy unit that is added as a file, and no other file is touched."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from fedsim.privacy.accounting import epsilon
from fedsim.privacy.ledger import OwnUpdate
from tests.privacy.mutants.test_mutants import copy_to

ADDED = '''
"""A whole site, by noise on its update, of which every number is clipped for itself."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from fedsim.privacy.accounting import Segment
from fedsim.privacy.ledger import Release, check_size
from fedsim.privacy.promise import Promise, each, most_rounds
from fedsim.privacy.unit import Audited, Cost, Place, Protected, Sampled, Unit
from fedsim.randomness import Normals


@dataclass(frozen=True)
class NumbersUpdate(Release):
    kind: ClassVar[str] = "noisy-numbers"
    site_may_be_absent: ClassVar[bool] = False
    noise_multiplier: float
    clip: float
    rng: str = "reproducible"

    def segment(self):
        return Segment(1.0, self.noise_multiplier, 1)

    def check_claim(self, planned):
        super().check_claim(planned)
        check_size("clip", self.clip)


class Numbers(Unit):
    neighbours = ("replace-one",)
    arms = ("federated",)
    settings = ()
    needs = ()
    protects = Protected.SITE
    place = Place.ON_UPDATES
    sampled = Sampled.NOTHING
    releases = (NumbersUpdate,)
    promise = Promise(
        protected="whole site",
        unit="One whole site, number by number.",
        neighbours={"replace-one": "One site's rows differ."},
        sent="whatever a site sends is",
        released={"federated": "Noisy numbers.", "masked": "A sum of noisy numbers."},
        trust={"federated": "Each site."},
        mechanism="Noise on clipped numbers.",
        not_covered=("The rest.",),
        secure="Secure.",
    )

    def cost(self, exposure):
        return Cost(1.0, exposure.most_rounds)

    def release(self, asked):
        return NumbersUpdate(asked.noise_multiplier, asked.clip, asked.rng)

    def noised(self, center, update, did, words):
        most = did.clip / len(center) ** 0.5
        noise = torch.empty(1, len(center))
        Normals([words], center.device).fill(noise)
        change = (update - center).nan_to_num(0, 0, 0).clamp(-most, most)
        return center + change + did.noise_multiplier * did.clip * noise[0]

    def done(self, trainings):
        return [("Clip", f"{each(trainings, 'clip')}, over {most_rounds(trainings)} rounds")]

    def audited(self, releases):
        return Audited(releases[0], len(releases))
'''

USED = """
import json, pathlib, sys
from fedsim.experiments.experiment import execute
from fedsim.report.statement import statement
from fedsim.results.run_directory import load
from fedsim.scenario import catalog
from fedsim.scenario.files import read

settings = ["privacy.unit=numbers", "privacy.epsilon=8", "privacy.loose_delta=true", "training.rounds=2", "seeds=1"]
run = load(execute(read("hospital-heart", settings), pathlib.Path("run")).path)
try:
    read("hospital-heart", [*settings, "privacy.correlated=true", "training.site_turns=2"])
except Exception as error:
    refused = str(error)
print(json.dumps({"ledger": run.ledger, "statement": statement(run), "refused": refused,
                  "page": (run.path / "report.html").read_text(), "titles": dict(catalog.titles("units"))}))
"""


@pytest.mark.whole
def test_a_unit_is_added_as_a_file(tmp_path: Path):
    """A unit with a clip, a release and words of its own runs through a private training, its ledger and statement."""
    copy = copy_to(tmp_path / "copy")
    before = {path: path.read_bytes() for path in copy.rglob("*.py")}
    (copy / "fedsim" / "privacy" / "units" / "numbers.py").write_text(textwrap.dedent(ADDED).lstrip(), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    words = [sys.executable, "-c", USED]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert {path: path.read_bytes() for path in before} == before

    ledger = said["ledger"]
    assert (ledger["unit"], ledger["neighbours"]) == ("numbers", "replace-one")
    (training,) = ledger["trainings"]
    assert training["arm"] == "federated"
    assert {entry["kind"] for entry in training["entries"]} == {"noisy-numbers"}
    assert len(training["entries"]) == 2 * 4
    segment = OwnUpdate(training["entries"][0]["mechanism"]["noise_multiplier"], 1.0).segment()
    spent = epsilon([replace(segment, steps=2)], ledger["delta"], "replace-one")
    assert training["epsilon"] == dict.fromkeys(training["epsilon"], pytest.approx(spent, abs=1e-12))
    assert 7.9 < spent <= 8

    terms = dict(said["statement"])
    assert terms["Unit"] == "One whole site, number by number."
    assert terms["Clip"].endswith("over 2 rounds")
    assert terms["Mechanism"] == "Noise on clipped numbers."
    assert "Noise on clipped numbers." in said["page"]
    assert "correlated: expected unit = 'client'" in said["refused"]
    assert said["titles"]["numbers"].startswith("A whole site, by noise on its update")
