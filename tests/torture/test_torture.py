"""A short version of each kind of trial; ``make torture`` runs many more."""

from pathlib import Path

import pytest

from tests.torture import interruptions
from tests.torture.__main__ import KINDS

SHARES = {
    "kills": 0.03,
    "disk": 0.07,
    "flips": 0.02,
    "changes": 0.02,
    "scenarios": 0.01,
    "commands": 0.06,
    "flower": 0.04,
    "replies": 0.1,
}


LONG = ("kills", "disk", "changes", "scenarios")
ONE_ARM = 'arms=["federated"]'


@pytest.mark.usefixtures("charts_undrawn")
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.whole if kind in LONG else []) for kind in KINDS]
)
def test_nothing_is_lost_and_nothing_goes_wrong_in_silence(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(interruptions, "KILLED", (*interruptions.KILLED, ONE_ARM, "training.rounds=20"))
    monkeypatch.setattr(interruptions, "SMALL", (*interruptions.SMALL, ONE_ARM))
    trials, most = KINDS[kind]
    tried = trials(round(SHARES[kind] * most), 1, tmp_path)
    assert tried.count >= 3
    assert tried.wrong == []
