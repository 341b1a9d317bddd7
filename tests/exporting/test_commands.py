"""``fedsim export`` and ``fedsim predict``, as a user types them."""

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from clients import hospital
from tests.cli.conftest import Ran, fedsim

__all__ = ["fedsim"]

TABLE = Path(hospital.__file__).parent / "data" / "heart_disease_4_hospitals.csv"
_WITHOUT_TORCH = """
import sys
from fedsim.exporting.predict import predict
print(len(predict(sys.argv[1], sys.argv[2])), "torch" in sys.modules, "flwr" in sys.modules)
"""


@pytest.mark.whole
@pytest.mark.usefixtures("charts_undrawn")
def test_from_a_run_to_predictions(fedsim: Callable[..., Ran], tmp_path: Path):
    small = ["--set", "training.rounds=1", "--set", "privacy.noise_multiplier=4", "--set", 'arms=["federated"]']
    assert fedsim("run", "hospital-heart", *small, "--seeds", "1", "--quiet").code == 0
    exported = fedsim("export", "--to", "model")
    assert exported.code == 0, exported.err
    assert "model: model/model.onnx" in exported.out
    assert (tmp_path / "model" / "README.md").exists()

    printed = fedsim("predict", "model", str(TABLE))
    assert printed.code == 0, printed.err
    predictions = pd.read_csv(io.StringIO(printed.out))
    assert list(predictions.columns) == ["row", "probability"]
    assert len(predictions) == 920
    assert fedsim("predict", "model", str(TABLE), "--to", "predictions.csv").out == ""
    assert pd.read_csv(tmp_path / "predictions.csv").equals(predictions)

    # Predicting waits for no PyTorch.
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH, "model", str(TABLE)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["920", "False", "False"], done.stderr

    again = fedsim("export", "--to", "model")
    assert again.code == 2
    assert again.err == "fedsim: model: expected a new or empty directory, it is taken\n"


def test_mistakes_are_told_in_a_line(fedsim: Callable[..., Ran], tmp_path: Path):
    (tmp_path / "empty").mkdir()
    ran = fedsim("predict", "empty", str(TABLE))
    assert ran.code == 2
    assert ran.err == "fedsim: empty: expected a directory that fedsim export wrote, it has no SHA256SUMS\n"
    ran = fedsim("export", "--to", "model")
    assert ran.code == 2
    assert ran.err == "fedsim: expected a run directory, and there is no finished run under runs/\n"
