"""``--track``: how it is given, what is said of it, and its mistakes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = ("hospital-heart", "--seeds", "1", "--set", "training.rounds=2", "--epsilon", "none", "--quiet")


@pytest.mark.whole
@pytest.mark.usefixtures("charts_undrawn")
def test_a_run_says_how_to_look_at_what_was_tracked(fedsim, tmp_path: Path):
    ran = fedsim("run", *SMALL, "--out", "here", "--track", "tensorboard", "--track", "mlflow", "--track-to", "there")
    assert (ran.code, ran.err) == (0, "")
    folder = Path(re.search(r"^tensorboard: +tensorboard --logdir (.*)$", ran.out, re.MULTILINE)[1])  # type: ignore[index]
    assert {one.name for one in folder.iterdir()} == {
        "federated-plain-0",
        "centralized-plain-0",
        "local-plain-0",
        "run",
    }
    assert re.search(r"^mlflow: +mlflow ui --backend-store-uri sqlite:///.*/there/mlflow.db$", ran.out, re.MULTILINE)
    assert not (tmp_path / "here" / "tracking").exists()

    again = fedsim("resume", "here", "--quiet", "--track", "tensorboard")
    assert (again.code, again.err) == (0, "")
    assert list((tmp_path / "here" / "tracking" / "tensorboard").rglob("events.*"))


@pytest.mark.parametrize("command", [("run", *SMALL), ("resume", "nowhere")])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--track", "mlfow"], "track: expected the name of a tracker, got 'mlfow'; did you mean 'mlflow'?"),
        (["--track", "mlflow,mlflow"], "track: expected mlflow once"),
        (["--track-to", "there"], "track-to: expected with track only, which names what writes there"),
    ],
)
def test_mistakes_are_told_before_anything_is_done(
    fedsim, command: tuple[str, ...], words: list[str], message: str, tmp_path: Path
):
    ran = fedsim(*command, *words)
    assert (ran.code, ran.out, ran.err) == (2, "", f"fedsim: {message}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_named_with_its_installation(fedsim, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fedsim.tracking.watch.find_spec", lambda name: None)
    ran = fedsim("run", *SMALL, "--track", "mlflow")
    assert (ran.code, ran.err) == (
        2,
        "fedsim: track: 'mlflow' needs the extra mlflow: pip install 'fedsim-flower[mlflow]'\n",
    )


@pytest.mark.whole
def test_naming_trackers_imports_neither_their_libraries_nor_torch():
    code = (
        "import sys; from fedsim.cli import commands; from fedsim.tracking.watch import Watch; "
        "Watch(('tensorboard', 'mlflow', 'wandb')).check(); "
        "print(sorted({'torch', 'mlflow', 'wandb', 'tensorboard'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
