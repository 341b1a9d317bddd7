"""A short version and a longer one of each kind of trial, most in ``make whole``; ``make torture`` runs many more."""

from pathlib import Path

import pytest

from tests.cases import others_whole
from tests.torture import interruptions
from tests.torture.__main__ import KINDS

FEW = {
    "kills": 1,
    "disk": 1,
    "flips": 5,
    "changes": 1,
    "scenarios": 5,
    "commands": 10,
    "flower": 5,
    "replies": 10,
}
MORE = {"kills": 3, "disk": 4, "flips": 20, "changes": 10, "scenarios": 30, "commands": 30, "flower": 20, "replies": 30}

ONE_ARM = 'arms=["federated"]'


@pytest.mark.usefixtures("charts_undrawn")
@pytest.mark.parametrize(
    ("kind", "count"),
    [*others_whole(FEW.items(), "flower"), *others_whole(MORE.items())],
)
def test_nothing_is_lost_and_nothing_goes_wrong_in_silence(
    kind: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(interruptions, "KILLED", (*interruptions.KILLED, ONE_ARM, "training.rounds=20"))
    monkeypatch.setattr(interruptions, "SMALL", (*interruptions.SMALL, ONE_ARM))
    trials, _ = KINDS[kind]
    seed = 1 if count == FEW[kind] else 2
    tried = trials(count, seed, tmp_path)
    assert tried.count >= count
    assert tried.wrong == []
