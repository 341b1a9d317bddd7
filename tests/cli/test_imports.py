"""What a command imports decides how long a short one takes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NEEDLESS = ("dp_accounting", "scipy.optimize", "scipy.stats", "sympy", "torch._dynamo")
PROGRAM = f"""
import sys
from fedsim.cli.commands import main
try:
    main()
finally:
    print([name for name in {NEEDLESS!r} if name in sys.modules])
"""


@pytest.mark.whole
def test_the_second_run_of_a_scenario_imports_no_accountant_and_none_imports_a_compiler(tmp_path: Path):
    environment = {**os.environ, "FEDSIM_CACHE": str(tmp_path / "kept")}
    words = ["run", "hospital-heart", "--quiet", "--seeds", "2", "--set", "training.rounds=2"]
    imported = []
    for name in ("first", "second"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *words, "--out", name],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        imported.append(done.stdout.splitlines()[-1])
    assert "dp_accounting" in imported[0]
    assert "torch._dynamo" not in imported[0]
    assert "sympy" not in imported[0]
    assert imported[1] == "[]"
    same = [(tmp_path / name / "ledger.json").read_bytes() for name in ("first", "second")]
    assert same[0] == same[1]
