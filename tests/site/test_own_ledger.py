"""The ledger on a site's own disk: nothing is forgotten, nothing is charged twice, nobody changes it unseen."""

import json
import multiprocessing
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, RecordDict

from fedsim.flower.records import Flat, Layout, flatten
from fedsim.mistakes import Mistake
from fedsim.privacy.accounting import Segment, epsilon
from fedsim.privacy.ledger import Mechanism, OwnUpdate, Release
from fedsim.site import own_ledger
from fedsim.site.own_ledger import EXACT, Entry, OwnLedger, Question, opened

TRAINING, OTHER = "a" * 32, "b" * 32
STEPS = Mechanism(sampling_rate=0.5, noise_multiplier=2.0, clip=1.0, expected_batch=32.0, steps=2, rng="secure")
UPDATE = OwnUpdate(noise_multiplier=20.0, clip=1.0, rng="secure")
DELTA = 1e-4


def question(number: int = 1, training: str = TRAINING, digest: str = "0" * 64) -> Question:
    return Question(training, number, "train", "9" * 64, digest)


def entry(number: int = 1, release: Release | None = STEPS, training: str = TRAINING) -> Entry:
    relation = "add-or-remove-one" if release else None
    kind = release.kind if release else EXACT
    return Entry(own_ledger.now(), question(number, training), "Hearts", relation, release, kind)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    own_ledger.begin(tmp_path / "ledger", "north")
    return tmp_path / "ledger"


def charge(folder: Path, *entries: Entry) -> None:
    for one in entries:
        with opened(folder, "north") as ledger:
            ledger.charge(one)


def spent(folder: Path, relation: str = "add-or-remove-one") -> float:
    with opened(folder, "north") as ledger:
        return ledger.epsilon(DELTA, relation)  # type: ignore[arg-type]


@pytest.mark.whole
def test_what_was_spent_is_there_when_it_is_opened_again(folder: Path):
    assert spent(folder) == 0.0
    charge(folder, entry(1), entry(2), entry(1, training=OTHER))
    assert spent(folder) == epsilon([Segment(0.5, 2.0, 6)], DELTA)
    with opened(folder, "north") as ledger:
        assert [one.release for one in ledger.entries] == [STEPS] * 3
        assert ledger.epsilon(DELTA, "add-or-remove-one", STEPS, 4) == epsilon([Segment(0.5, 2.0, 14)], DELTA)
        assert ledger.charged(TRAINING, 2, "train") == ledger.entries[1]
        assert ledger.charged(OTHER, 2, "train") is None
        assert ledger.charged(TRAINING, 2, "evaluate") is None


def test_an_exact_model_has_no_epsilon_and_is_written_down(folder: Path):
    charge(folder, entry(1, None))
    assert spent(folder) == 0.0
    with opened(folder, "north") as ledger:
        assert [one.kind for one in ledger.entries] == [EXACT]


@pytest.mark.whole
def test_noise_on_whole_updates_makes_it_a_claim_for_replaced_rows(folder: Path):
    """One row more or less replaces the update; the cost of the steps is then that of replaced rows, too."""
    charge(folder, entry(1), entry(1, UPDATE, OTHER))
    both = [STEPS.segment(), UPDATE.segment()]
    assert spent(folder) == epsilon(both, DELTA, "replace-one")
    assert spent(folder) > epsilon(both, DELTA, "add-or-remove-one")


@pytest.mark.whole
def test_the_wider_claim_counts_whoever_asks_for_it(folder: Path):
    charge(folder, entry(1), replace(entry(2), relation="replace-one"))
    wider = epsilon([Segment(0.5, 2.0, 4)], DELTA, "replace-one")
    assert spent(folder) == spent(folder, "replace-one") == wider


@pytest.mark.whole
def test_a_training_that_claims_more_counts_with_its_own_rounds(folder: Path):
    """Also before its first round is charged."""
    charge(folder, entry(1))
    with opened(folder, "north") as ledger:
        wider = epsilon([Segment(0.5, 2.0, 4)], DELTA, "replace-one")
        assert ledger.epsilon(DELTA, "add-or-remove-one", STEPS, 1, "replace-one") == wider


def test_a_line_that_the_disk_took_in_part_is_no_charge(folder: Path, monkeypatch: pytest.MonkeyPatch):
    class Full(FileIO):
        def write(self, content: bytes) -> int:  # type: ignore[override]
            return super().write(content[:10])

    with opened(folder, "north") as ledger:
        monkeypatch.setattr(own_ledger, "open_own", lambda path, flags=0: Full(path, "a"))
        with pytest.raises(OSError, match="the ledger could not be written"):
            ledger.charge(entry())
    monkeypatch.undo()
    assert spent(folder) == 0.0


def test_the_line_is_on_the_disk_before_charge_returns(folder: Path, monkeypatch: pytest.MonkeyPatch):
    synced: list[int] = []
    fsync = own_ledger.os.fsync

    def noted(number: int) -> None:
        synced.append((folder / own_ledger.NAME).stat().st_size)
        fsync(number)

    with opened(folder, "north") as ledger:
        monkeypatch.setattr(own_ledger.os, "fsync", noted)
        ledger.charge(entry())
    assert synced == [(folder / own_ledger.NAME).stat().st_size]


@pytest.mark.whole
def test_a_line_that_was_cut_off_counts_for_nothing_since_no_work_had_begun(folder: Path):
    charge(folder, entry(1), entry(2))
    path = folder / own_ledger.NAME
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert spent(folder) == epsilon([Segment(0.5, 2.0, 2)], DELTA)
    charge(folder, entry(2))
    assert spent(folder) == epsilon([Segment(0.5, 2.0, 4)], DELTA)


@pytest.mark.parametrize("line", [0, 1, 2])
def test_a_change_is_noticed_and_nothing_is_opened(folder: Path, line: int):
    charge(folder, entry(1), entry(2), entry(3))
    path = folder / own_ledger.NAME
    lines = path.read_text().splitlines(keepends=True)
    changed = [*lines]
    changed[line] = lines[line].replace('"2026', '"2025').replace('"begun": "2', '"begun": "1')
    assert changed != lines
    for text in ("".join(changed), "".join(lines[:line] + lines[line + 1 :])):
        path.write_text(text)
        with pytest.raises(Mistake, match=r"ledger\.jsonl"), opened(folder, "north"):
            pass


def test_an_entry_that_nobody_wrote_is_named_with_its_line(folder: Path):
    path = folder / own_ledger.NAME
    head = path.read_bytes()
    odd = {**entry().as_json(), "mechanism": {"noise_multiplier": 1e9}, "previous": own_ledger.sha256(head)}
    path.write_bytes(head + json.dumps(odd).encode() + b"\n")
    with (
        pytest.raises(Mistake, match=r"ledger\.jsonl:2: expected an entry as fedsim writes it"),
        opened(folder, "north"),
    ):
        pass


def test_it_is_begun_once_and_is_one_sites(folder: Path, tmp_path: Path):
    with pytest.raises(Mistake, match="expected a folder without a ledger; what was spent stays spent"):
        own_ledger.begin(folder, "north")
    with pytest.raises(Mistake, match="expected the ledger of south, got that of north"), opened(folder, "south"):
        pass
    with pytest.raises(Mistake, match="expected the site's ledger, there is none; begin it"), opened(tmp_path, "north"):
        pass


def test_the_same_question_gets_the_same_answer_and_another_one_none(folder: Path):
    vector = torch.arange(3.0)
    answer = RecordDict({"arrays": Flat(vector, Layout.made({"w": (3,)})), "metrics": ConfigRecord({"a": 1})})
    memory = RecordDict({"kept-c": Flat(vector + 1, Layout.made({"c": (3,)}))})
    with opened(folder, "north") as ledger:
        assert ledger.answer(question()) is None
        assert len(ledger.memory(TRAINING)) == 0
        ledger.keep(question(), answer, memory)
    with opened(folder, "north") as ledger:
        again = ledger.answer(question())
        assert again is not None
        assert torch.equal(flatten(again["arrays"]), vector)  # type: ignore[arg-type]
        assert torch.equal(flatten(ledger.memory(TRAINING)["kept-c"]), vector + 1)  # type: ignore[arg-type]
        assert ledger.answer(question(digest="1" * 64)) is None
        assert ledger.answer(question(2)) is None
        assert ledger.answer(question(training=OTHER)) is None
        assert len(ledger.memory(OTHER)) == 0


def test_a_failure_is_an_answer_too(folder: Path):
    """Each try would have noise of its own."""
    with opened(folder, "north") as ledger:
        ledger.keep(question(), None, RecordDict())
        with pytest.raises(own_ledger.AnsweredByFailure):
            ledger.answer(question())
        assert ledger.answer(question(2)) is None


def test_a_changed_answer_is_not_given(folder: Path):
    with opened(folder, "north") as ledger:
        ledger.keep(question(), RecordDict(), RecordDict())
        (path,) = folder.glob("training-*")
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        with pytest.raises(Mistake, match="expected what the site kept of a training"):
            ledger.answer(question())


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "A" * 32, "a" * 31, "a" * 33])
def test_a_name_of_a_training_leads_nowhere_else(name: str):
    with pytest.raises(Mistake, match="training: expected a name of 32 hexadecimal digits"):
        question(training=name)


def _charge_many(folder: Path, training: str, start: Any) -> None:
    start.wait()
    for number in range(40):
        with opened(folder, "north") as ledger:
            ledger.charge(entry(number, training=training))


@pytest.mark.whole
def test_processes_wait_for_one_another(folder: Path):
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(2)
    others = [spawn.Process(target=_charge_many, args=(folder, name * 32, start)) for name in "cd"]
    for other in others:
        other.start()
    for other in others:
        other.join()
    with opened(folder, "north") as ledger:
        assert len(ledger.entries) == 80


def test_a_ledger_is_no_longer_than_its_lines(folder: Path):
    charge(folder, *(entry(number) for number in range(1, 4)))
    assert len((folder / own_ledger.NAME).read_bytes().splitlines()) == 4
    assert isinstance(OwnLedger(folder, "north").entries[2], Entry)
