"""Do the privacy tests notice when the privacy code is broken? And do they keep still when it is not?"""

import atexit
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.privacy.mutants.table import ACCOUNT, MUTANTS, Mutant

ROOT = Path(__file__).parents[3]
_COPIED = ("fedsim", "clients", "strategies", "scenarios", "tests", "docs")
_NAMED = {path for mutant in MUTANTS if mutant.tests != ACCOUNT for path in mutant.tests.split()}
_RANDOM = sorted(path for path in _NAMED if not any(path.startswith(f"{folder}/") for folder in _NAMED))


@dataclass(frozen=True)
class Ran:
    """What came of running tests: pytest's exit status, and what it printed."""

    status: int
    printed: str


@cache
def warm() -> subprocess.Popen[str]:
    """Start the process that runs tests in forks of itself, once for each worker."""
    words = [sys.executable, str(Path(__file__).parent / "warm.py")]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(_end, process)
    return process


def _end(process: subprocess.Popen[str]) -> None:
    """Let the process end: it does where its input does."""
    for stream in (process.stdin, process.stdout):
        if stream:
            stream.close()
    process.wait()


def run_tests(folder: Path, tests: str, salt: int = 0) -> Ran:
    """Run some tests in a copy of the package; ``salt`` changes every random stream."""
    output = folder / "printed.txt"
    asked = {
        "folder": str(folder),
        "words": ["-q", "-x", "-m", "not slow", "-p", "no:cacheprovider", *tests.split()],
        "environment": {"FEDSIM_TEST_SALT": str(salt), "PYTEST_ADDOPTS": "", "PYTHONDONTWRITEBYTECODE": "1"},
        "output": str(output),
    }
    process = warm()
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps(asked) + "\n")
    process.stdin.flush()
    status = process.stdout.readline()
    return Ran(int(status), output.read_text("utf-8", errors="replace"))


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
    assert found.status == 1, f"survived\n{found.printed[-3000:]}"
    assert " failed" in found.printed  # a test's assertion or an error inside it, not a package that can't be imported


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the package as it is, one for each worker."""
    return copy_to(tmp_path_factory.mktemp("clean"))


@pytest.mark.slow
@pytest.mark.parametrize("salt", range(1, 21))
@pytest.mark.parametrize("tests", _RANDOM)
def test_clean_code_raises_no_alarm(tests: str, salt: int, clean: Path):
    """B13: with 20 other sets of random streams, the tests that catch mutants pass."""
    found = run_tests(clean, tests, salt)
    assert found.status == 0, found.printed[-3000:]
