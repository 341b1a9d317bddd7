"""Do the privacy tests notice when the privacy code is broken? And do they keep still when it is not?"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.privacy.mutants.table import ACCOUNT, MUTANTS, Mutant

ROOT = Path(__file__).parents[3]
_COPIED = ("fedsim", "clients", "strategies", "scenarios", "tests")
_RANDOM = " ".join(dict.fromkeys(" ".join(m.tests for m in MUTANTS if m.tests != ACCOUNT).split()))


def run_tests(folder: Path, tests: str, salt: int = 0) -> subprocess.CompletedProcess[str]:
    """Run some tests in a copy of the package; ``salt`` changes every random stream."""
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow", "-p", "no:cacheprovider", *tests.split()]
    environment = {**os.environ, "FEDSIM_TEST_SALT": str(salt), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=3600)


def copy_to(folder: Path) -> Path:
    for name in _COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_the_table_is_about_the_code_there_is():
    """Every text stands exactly once in its file, so that a mutant is what it says."""
    wrong = [(m.file, m.old) for m in MUTANTS if (ROOT / m.file).read_text("utf-8").count(m.old) != 1]
    assert not wrong
    assert len(MUTANTS) >= 25
    assert len({(m.file, m.old, m.new) for m in MUTANTS}) == len(MUTANTS)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{Path(m.file).stem}: {m.why}")
def test_a_mutant_is_caught(mutant: Mutant, tmp_path: Path):
    """B13."""
    path = copy_to(tmp_path) / mutant.file
    path.write_text(path.read_text("utf-8").replace(mutant.old, mutant.new), encoding="utf-8")
    found = run_tests(tmp_path, mutant.tests)
    assert found.returncode == 1, f"survived\n{found.stdout[-2000:]}{found.stderr[-2000:]}"
    assert " failed" in found.stdout  # a test's assertion or an error inside it, not a package that can't be imported


@pytest.mark.slow
@pytest.mark.parametrize("salt", range(1, 21))
def test_clean_code_raises_no_alarm(salt: int, tmp_path: Path):
    """B13: with 20 other sets of random streams, the tests that catch mutants pass."""
    found = run_tests(copy_to(tmp_path), _RANDOM, salt)
    assert found.returncode == 0, found.stdout[-3000:]
