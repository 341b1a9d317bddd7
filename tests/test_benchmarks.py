"""The scripts that measure fedsim itself still run: nothing else calls them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

pytestmark = pytest.mark.whole


def measured(script: str, *words: str) -> dict[str, object]:
    """Run a script of the timings; return the line that it prints."""
    if not BENCHMARKS.exists():
        pytest.skip("the source distribution has no benchmarks")
    command = [sys.executable, str(BENCHMARKS / script), *words, "--workload", "tabular", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("private", [(), ("--private",)], ids=["plain", "private"])
def test_a_round_of_ours_is_timed(private: tuple[str, ...]):
    found = measured("ours.py", "--engine", "cohort", *private)
    assert found["framework"] == "fedsim cohort"
    assert found["private"] == bool(private)
    (seconds,) = found["seconds"]  # type: ignore[misc]  the warm-up round is left out
    assert seconds > 0


def test_the_floor_is_timed():
    assert measured("floor.py")["framework"] == "floor"
