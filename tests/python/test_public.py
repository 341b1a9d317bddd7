"""What ``fedsim`` offers in Python: it is there, documented, light to import, and prints nothing."""

import subprocess
import sys

import pandas as pd
import pytest

import fedsim
from fedsim.data.task import Task
from fedsim.privacy import calculator
from tests.given import Halved

PUBLIC = [name for name in fedsim.__all__ if name != "Mistake"]


@pytest.mark.parametrize("name", PUBLIC)
def test_each_name_is_documented(name: str):
    found = getattr(fedsim, name)
    assert callable(found)
    documented = calculator.privacy if name == "privacy" else found
    text = documented.__doc__ or ""
    assert len(text.splitlines()[0]) > 20
    if not name.startswith("list_"):
        assert "Args:" in text
        assert "Raises:" in text


def test_nothing_heavy_is_imported_before_it_is_used():
    used = "import fedsim, sys; fedsim.privacy; dir(fedsim)"
    code = f"{used}; print([name for name in ('torch', 'pandas') if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_lists_are_frames():
    kinds = ("scenarios", "tasks", "strategies", "attacks", "engines", "audits", "units", "trackers")
    for kind in kinds:
        table = getattr(fedsim, f"list_{kind}")()
        assert list(table.columns) == ["name", "title"]
        assert len(table) > 2
    assert "hospital/heart" in set(fedsim.list_tasks()["name"])


@pytest.mark.whole
def test_privacy_is_a_function_and_a_package(capsys: pytest.CaptureFixture[str]):
    import fedsim.privacy.accounting

    found = fedsim.privacy(sampling_rate=0.01, steps=1000, delta=1e-5, noise_multiplier=1.0)
    again = fedsim.privacy(sampling_rate=0.01, steps=1000, delta=1e-5, epsilon=found.guarantee.epsilon)
    assert again.mechanism.noise_multiplier == pytest.approx(1.0, rel=1e-2)
    with pytest.raises(fedsim.Mistake, match="got both"):
        fedsim.privacy(sampling_rate=0.01, steps=1000, delta=1e-5, epsilon=1.0, noise_multiplier=1.0)
    assert fedsim.privacy.accounting.HOPELESS > 1
    assert capsys.readouterr() == ("", "")


def test_check_returns_a_frame(capsys: pytest.CaptureFixture[str]):
    table = fedsim.check(Halved(factor=0.25))
    assert isinstance(table, pd.DataFrame)
    assert {"name", "holds", "required", "detail"} == set(table.columns)
    assert table.loc[table["required"], "holds"].all()
    assert len(fedsim.check("krum", "f=2")) == len(table)
    assert capsys.readouterr() == ("", "")


def test_wrong_values_are_told_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(fedsim.Mistake, match="trials: expected a whole number >= 20, got 3\nshadows"):
        fedsim.audit("hospital-heart", trials=3, shadows=True)
    with pytest.raises(fedsim.Mistake, match="seeds: expected a whole number >= 1, got 0"):
        fedsim.compare("hospital-heart", seeds=0)
    both = r"task: expected a fedsim\.data\.task\.Task, or the name of one as text, got int\nstrategy: expected a name"
    with pytest.raises(fedsim.Mistake, match=both):
        fedsim.run("hospital-heart", task=42, strategy=42)
    with pytest.raises(fedsim.Mistake, match="give the task itself, not its class"):
        fedsim.run("hospital-heart", task=Task)
    assert not list(tmp_path.iterdir())
