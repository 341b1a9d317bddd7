"""The notebooks under examples/ run from top to bottom, in this process, and hold no outputs of an earlier run."""

import json
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def test_there_is_one_for_each_user():
    assert [path.stem for path in NOTEBOOKS] == ["deciding", "privacy_lead", "researcher"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_says_first_whom_it_is_for_and_keeps_no_outputs(path: Path):
    document = json.loads(path.read_text())
    assert "\n\nFor whoever " in cells(path, "markdown")[0]
    assert all(not cell.get("outputs") for cell in document["cells"])


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    program = tmp_path / "notebook.py"
    program.write_text("\n".join(cells(path, "code")))
    left = runpy.run_path(str(program))
    assert left["fedsim"] if path.stem != "researcher" else len(left["ranks"]) == 3
    if path.stem == "privacy_lead":
        assert "Epsilon" in capsys.readouterr().out
