"""A loaded run predicts new rows as its exported model does, and refuses what an export refuses."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fedsim


@pytest.mark.whole
@pytest.mark.usefixtures("charts_undrawn")
def test_predictions_are_those_of_an_exported_model(tmp_path: Path):
    random = np.random.default_rng(0)
    frame = pd.DataFrame({
        "hospital": ["north", "south"] * 60,
        "age": random.integers(20, 90, 120),
        "sex": random.choice(["female", "male"], 120),
        "ill": [0, 0, 1, 1] * 30,
    })  # fmt: skip
    folder = tmp_path / "run"
    fedsim.run(None, "training.rounds=2", data=frame, target="ill", site="hospital", ranges="from-data", seeds=1,
               out=folder, progress=False)  # fmt: skip
    fedsim.export(folder, tmp_path / "model", data=frame)
    run = fedsim.load(folder)
    expected = fedsim.predict(tmp_path / "model", frame)
    got = run.predict(frame, data=frame)
    assert list(got.columns) == list(expected.columns)
    np.testing.assert_allclose(got["probability"], expected["probability"], atol=1e-5)
    with pytest.raises(fedsim.Mistake, match="expected a table as a frame or a file"):
        run.predict(np.zeros((1, 3)), data=frame)
    with pytest.raises(fedsim.Mistake, match="--private: expected a run with privacy"):
        run.model(private=True, data=frame)
