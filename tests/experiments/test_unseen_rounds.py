"""Rounds that can't be repeated are charged each time they are begun, whoever was asked in them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fedsim.experiments.arms import Job, Trained, run_job
from fedsim.experiments.under_way import UnderWay
from fedsim.mistakes import Mistake
from fedsim.privacy.ledger import POOL
from fedsim.scenario.files import read
from fedsim.scenario.schema import Checkpoints
from tests.cases import others_whole
from tests.experiments.test_under_way import HEART, Stop, flip, stopping, under_way

SECURE = ("privacy.unit=record", "privacy.epsilon=900", "privacy.noise_multiplier=2", "privacy.delta=1e-3",
          "privacy.rng=secure", "training.site_sampling_rate=0.6")  # fmt: skip
NAMES = ("cleveland", "hungarian", "switzerland", "va_long_beach")


def charges(done: Trained) -> Counter[tuple[Any, int]]:
    assert done.ledger is not None
    return Counter((entry.site, entry.round) for entry in done.ledger.entries)


@pytest.mark.parametrize("arm", others_whole(["federated", "centralized", "local"]))
def test_every_round_that_was_begun_is_charged_for_those_that_were_asked_in_it(
    arm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The rounds since the state was kept are drawn anew, with other sites: the first ones have left their noise."""
    scenario, job = read("hospital-heart", [*HEART, *SECURE]), Job(arm, True, 0)
    asked: Counter[tuple[Any, int]] = Counter()
    begin = UnderWay.begin

    def noticed(self: UnderWay, number: int, nodes: Sequence[int]) -> None:
        first = 2 if arm == "federated" else 0
        asked.update((POOL if arm == "centralized" else NAMES[node - first], number) for node in nodes)
        begin(self, number, nodes)

    monkeypatch.setattr(UnderWay, "begin", noticed)
    settings = Checkpoints(every_rounds=2)
    for stop in (3, 4):  # round 3 is begun three times, round 4 twice; the state is that after round 2
        with pytest.raises(Stop):
            run_job(scenario, job, stopping(stop), under_way(tmp_path, scenario, job, settings))
    done = run_job(scenario, job, stopping(), under_way(tmp_path, scenario, job, settings))
    assert charges(done) == asked
    assert {number for _, number in asked} == {1, 2, 3, 4}
    note = "what may have left until then is charged, too"
    assert [one for one in done.notes if note in one] == [
        f"round 3 was begun 2 times before and interrupted: {note}",
        f"round 4 was begun once before and interrupted: {note}",
    ]


@pytest.mark.whole
def test_a_journal_that_was_changed_is_not_believed(tmp_path: Path):
    scenario, job = read("hospital-heart", [*HEART, *SECURE]), Job("federated", True, 0)
    with pytest.raises(Stop):
        run_job(scenario, job, stopping(3), under_way(tmp_path, scenario, job, Checkpoints(every_rounds=2)))
    journal = tmp_path / "checkpoints" / f"{job.key}.begun"
    last = journal.read_bytes().splitlines()[-1]
    flip(journal, len(journal.read_bytes()) - 2)
    with pytest.raises(Mistake, match="expected the rounds that were begun, as they were written"):
        under_way(tmp_path, scenario, job).found()
    flip(journal, len(journal.read_bytes()) - 2)
    journal.write_bytes(journal.read_bytes() + last[:70])  # cut off while it was written: nothing had left
    keeper = under_way(tmp_path, scenario, job)
    keeper.found()
    assert len(keeper.unseen(3)) == 1
    assert journal.read_bytes().endswith(last + b"\n")
