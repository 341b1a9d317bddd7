"""Values of records don't get into what a run writes or prints."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load

PLANTED = 50
NUMBERS = [f"{value:.6f}" for value in np.random.default_rng(5).uniform(20, 80, PLANTED)]
WORDS = [f"canary{number:02}q{number * 7919 % 1000:03}" for number in range(PLANTED)]


def table(folder: Path) -> None:
    """Write 200 patients, of whom 50 have a number and a word that nobody else has; some rows must be repaired."""
    random = np.random.default_rng(0)
    age = [*NUMBERS, *(f"{value}" for value in random.integers(20, 80, 150))]
    name = [*WORDS, *("x" for _ in range(150))]
    ill = (np.array(age, float) + random.normal(0, 15, 200) > 50).astype(int)
    clinic = random.choice(["north", "south"], 200)
    rows = pd.DataFrame({"clinic": clinic, "age": age, "name": name, "ill": ill.astype(str)})
    rows.loc[3, "ill"] = ""  # left out
    rows.loc[5, "age"] = ""  # missing
    rows.loc[7, "age"] = "131.987654"  # cut to its range
    rows.sample(frac=1, random_state=0).to_csv(folder / "patients.csv", index=False)
    (folder / "patients.ranges.toml").write_text('age = [0, 120, "years"]\nname = "leave out"\n')


def outputs(folder: Path, printed: str) -> dict[str, str]:
    """Return {file: its content as text, decoded}, and what was printed."""
    found = {"printed": printed}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
            found[str(path)] = frame.to_csv() + " ".join(map(repr, frame.select_dtypes("number").to_numpy().ravel()))
        elif path.suffix == ".safetensors":
            found[str(path)] = " ".join(
                map(repr, np.concatenate([v.ravel() for v in load(path.read_bytes()).values()]))
            )
        found[f"{path} as it is"] = path.read_bytes().decode("latin-1")
    return found


def forms(number: str) -> list[str]:
    """Return how a number could show: as it was, and as the model saw it, from -1 to 1 over the range 0 to 120."""
    scaled = abs(float(number) / 60 - 1)
    return [
        re.escape(number.rstrip("0")),
        *(re.escape(f"{one:.12f}"[:9]) for one in (scaled, float(np.float32(scaled)))),
    ]


def found_in(texts: dict[str, str]) -> list[tuple[str, str]]:
    wanted = [re.escape(word) for word in WORDS] + [
        form for number in [*NUMBERS, "131.987654"] for form in forms(number)
    ]
    pattern = re.compile("|".join(wanted))
    return [(name, match[0]) for name, text in texts.items() for match in pattern.finditer(text)]


@pytest.mark.whole
def test_no_value_of_a_record_is_written_or_printed(tmp_path: Path):
    """G6: 50 numbers and 50 words, in trainings with and without privacy: files, tables, models, report, screen."""
    table(tmp_path)
    words = ["--data", "patients.csv", "--target", "ill", "--site", "clinic", "--seeds", "1", "--out", "run",
             "--set", "training.rounds=2", "--set", "privacy.unit=record", "--set", "privacy.epsilon=8",
             "--set", "privacy.delta=1e-4", "--set", "privacy.noise_multiplier=4"]  # fmt: skip
    done = subprocess.run([sys.executable, "-m", "fedsim", "run", *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    texts = outputs(tmp_path / "run", done.stdout + done.stderr)
    assert len(texts) > 10
    assert any("1 outside 0 to 120 cut to it" in text for text in texts.values())
    assert found_in(texts) == []


def test_a_value_would_be_found(tmp_path: Path):
    """The teeth of G6: in a table, in a model, scaled or not."""
    value = float(NUMBERS[9])
    pd.DataFrame({"mean": [value]}).to_parquet(tmp_path / "x.parquet")
    assert found_in(outputs(tmp_path, ""))
    assert found_in({"a": f"weight {value / 60 - 1!r}"})
    assert found_in({"a": f"bad value {WORDS[3]}"})
