"""Adding an attack is adding one file."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import clients

TOY = '''"""Toy: send the global model moved by one number.

Nobody, "Nowhere", 2026, https://example.org.
"""

from dataclasses import dataclass

from fedsim.planning.attack import Attack


@dataclass(frozen=True)
class ToyShift(Attack):
    """``by``: the number."""

    by: float = 100.0

    def forge(self, center, honest, sites, random):
        return (center + self.by).expand_as(honest)
'''

USE = """
from fedsim import run
from fedsim.cli.cards import card
from fedsim.scenario import catalog

print(catalog.titles("attacks")["toy-shift"])
print(card("toy-shift").text)
attack = "attack={name='toy-shift', share=1.0, by=3.0}"
small = ["privacy.unit=none", "arms=['federated']", "training.rounds=1"]
run("hospital-heart", attack, *small, seeds=1, out="run")
"""


@pytest.mark.whole
def test_a_new_file_is_listed_shown_and_run(tmp_path: Path):
    """In a copy of ``clients/``, to which nothing but the file is added."""
    copy = tmp_path / "clients"
    shutil.copytree(Path(clients.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "attacks" / "toy_shift.py").write_text(TOY, encoding="utf-8")
    here = str(Path(clients.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), here]), "OMP_NUM_THREADS": "1"}

    command = [sys.executable, "-c", USE]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "Toy: send the global model moved by one number" in done.stdout
    assert "by = 100.0" in done.stdout

    # Logistic regression starts from zeros, so this is where the attackers moved it.
    tensors = load_file(tmp_path / "run" / "model.safetensors")
    assert all((value == 3.0).all() for value in tensors.values())
