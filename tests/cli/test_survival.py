"""``fedsim survival``: the account of what is released is kept, and only what has noise is written."""

import csv
import json
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fedsim.experiments.survival.curve import counted, curve_of
from fedsim.privacy import looks
from fedsim.scenario.files import read

LUNG = ("survival", "hospital-lung")
FOLDER = Path("survival/hospital-lung")


def released(folder: Path, intervals: int) -> np.ndarray:
    """Read the released counts back, (sites, cells)."""
    with (folder / "counts.csv").open() as file:
        lines = list(csv.DictReader(file))
    sites = list(dict.fromkeys(line["site"] for line in lines))
    cells = np.zeros((len(sites), 2 * intervals + 1), int)
    for line in lines:
        site, survived = sites.index(line["site"]), int(line["survived_intervals"])
        cells[site, intervals + survived] = int(line["lost_or_still_there"])
        if survived < intervals:
            cells[site, survived] = int(line["events_in_the_next"])
    return cells


@pytest.mark.whole
def test_a_release_is_counts_with_noise_and_what_follows_from_them(fedsim):
    ran = fedsim(*LUNG, "--epsilon", "0.5")
    assert ran.code == 0, ran.err
    assert "Every count of 15 sites has noise: epsilon 0.5 for one row, delta 0." in ran.out
    counts = counted(read("hospital-lung"))
    cells = released(FOLDER, 6)
    noise = (cells - counts.cells).ravel()
    expected = 2 * np.exp(-0.5) / (1 - np.exp(-0.5)) ** 2  # variance of discrete Laplace noise
    assert noise.size == 195
    assert 0.3 < noise.var() / expected < 3
    assert max(Counter(noise.tolist()).values()) < 0.45 * noise.size
    curve = curve_of(cells, counts.follow_up, Fraction("0.5"))
    assert (FOLDER / "curve.csv").read_text() == curve.to_csv(index=False)
    assert f"540 days: {curve['survival'].iloc[-1]:.3f} without an event" in ran.out
    assert (FOLDER / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.whole
def test_a_release_is_in_the_ledger_before_it_is_made_and_adds_up(fedsim, monkeypatch: pytest.MonkeyPatch):
    ledger = FOLDER / "ledger.json"

    def fails(*_: object) -> None:
        assert json.loads(ledger.read_text())["epsilon_exact"] == "1/4"
        raise OSError(5, "the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(looks, "noisy", fails)
        assert fedsim(*LUNG, "--epsilon", "0.25").code == 1
    assert not (FOLDER / "curve.csv").exists()

    ran = fedsim(*LUNG, "--epsilon", "1", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["epsilon_of_all_releases"] == 1.25
    document = json.loads(ledger.read_text())
    assert document["epsilon_exact"] == "5/4"
    assert document["table"] == "hospital/lung-cancer"
    mechanism = document["entries"][1]["mechanism"]
    assert (mechanism["sites"], mechanism["bins"], mechanism["sensitivity"]) == (15, 13, 1)
    assert (mechanism["noise"], mechanism["epsilon"], mechanism["rng"]) == ("discrete Laplace", "1", "secure")
    assert "This is release 3. Epsilons add up: 1.5 in all." in fedsim(*LUNG, "--epsilon", "0.25").out


def test_mistakes_release_nothing(fedsim):
    for words, message in (
        (("survival", "hospital-heart", "--epsilon", "1"), "expected a task of kind 'survival', got one of kind 'bin"),
        ((*LUNG, "--epsilon", "0"), "--epsilon: expected a number from"),
        ((*LUNG, "--epsilon", "1", "--set", "training.rounds=3"), "expected changes of data or partition, since noth"),
        ((*LUNG,), "Missing option '--epsilon'"),
    ):
        ran = fedsim(*words)
        assert ran.code == 2
        assert message in ran.err
        assert not Path("survival").exists()


@pytest.mark.whole
def test_a_ledger_of_other_rows_or_a_changed_one_stops_a_release(fedsim):
    assert fedsim(*LUNG, "--epsilon", "1", "--out", "curve").code == 0
    other = fedsim("survival", "hospital-breast-cancer", "--epsilon", "1", "--out", "curve")
    assert "expected the ledger of hospital/breast-cancer, got that of hospital/lung-cancer" in other.err
    ledger = Path("curve/ledger.json")
    ledger.write_text(ledger.read_text().replace('"epsilon_exact": "1"', '"epsilon_exact": "0"'))
    assert "got another or a changed file" in fedsim(*LUNG, "--epsilon", "1", "--out", "curve").err
