import json
import math
import os
import threading
from pathlib import Path

import pytest

from fedsim.privacy import accounting
from fedsim.privacy.accounting import Segment, epsilon, noise_multiplier
from fedsim.privacy.calibration import kept as module
from fedsim.privacy.calibration.kept import keep, kept

QUESTION = {"asked": "epsilon", "segments": [[0.5, 1.0, 3]], "delta": 1e-5, "neighbours": "add-or-remove-one"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let answers be kept in a folder of the test."""
    chosen = tmp_path / "kept"
    monkeypatch.setenv(module.VARIABLE, str(chosen))
    return chosen / "accounting"


@pytest.fixture
def file(folder: Path) -> Path:
    """Keep an answer, and return its file."""
    keep(QUESTION, 2.5)
    assert kept(QUESTION) == 2.5
    (only,) = folder.iterdir()
    return only


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch):
    """Return what makes this process forget its answers, as the next command has."""

    def forget() -> None:
        accounting._epsilon.cache_clear()
        accounting.noise_multiplier.cache_clear()

    forget()
    yield forget
    forget()


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put a formula in the place of accountants, and return which of them were asked."""
    asked = []

    def formula(name: str):
        def spent(segments, delta: float, neighbours: str, interval: float) -> float:
            asked.append(name)
            shift = math.sqrt(sum(s.steps * (s.sampling_rate / s.noise_multiplier) ** 2 for s in segments))
            return shift * math.log(1 / delta) * (2 if neighbours == "replace-one" else 1)

        return spent

    monkeypatch.setattr(accounting, "_pld_bound", formula("bound"))
    monkeypatch.setattr(accounting, "_pld_estimate", formula("estimate"))
    return asked


def test_an_answer_is_of_one_question(file: Path):
    for key in QUESTION:
        assert kept({**QUESTION, key: "another"}) is None


def test_an_answer_of_other_versions_is_not_read(file: Path, monkeypatch: pytest.MonkeyPatch):
    here = module._computed_by()
    assert {"dp-accounting", "numpy", "scipy", "source"} <= set(here)
    for name in here:
        monkeypatch.setattr(module, "_computed_by", lambda name=name: {**here, name: "another"})
        assert kept(QUESTION) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"{}" + b" " * 2**17],
    ids=["empty", "cut off", "a list", "null", "not text", "deep", "long"],
)
def test_a_spoiled_file_is_no_answer(file: Path, content: bytes):
    file.write_bytes(content)
    assert kept(QUESTION) is None
    keep(QUESTION, 2.5)
    assert kept(QUESTION) == 2.5


@pytest.mark.parametrize("answer", ["NaN", "Infinity", "-Infinity", "-0.5", "true", "null", '"2.5"', "1e999"])
def test_an_answer_is_a_finite_number_from_zero_on(file: Path, answer: str):
    file.write_text(file.read_text().replace("2.5", answer))
    assert kept(QUESTION) is None


def test_a_file_answers_the_question_that_it_holds(file: Path, folder: Path):
    other = {**QUESTION, "delta": 1e-6}
    text = file.read_text()
    keep(other, 3.5)
    (new,) = set(folder.iterdir()) - {file}
    new.write_text(text)
    assert kept(other) is None
    assert kept(QUESTION) == 2.5


def test_what_others_may_write_is_not_read(file: Path, folder: Path):
    for place in (file, folder, folder.parent):
        mode = place.stat().st_mode
        for others in (0o020, 0o002):
            place.chmod(mode | others)
            assert kept(QUESTION) is None
        place.chmod(mode)
    assert kept(QUESTION) == 2.5


def test_what_another_user_owns_is_not_read(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert kept(QUESTION) is None


def test_a_link_is_not_followed(file: Path, folder: Path, tmp_path: Path):
    target = file.rename(tmp_path / "elsewhere")
    file.symlink_to(target)
    assert kept(QUESTION) is None
    file.unlink()
    os.mkfifo(file)
    assert kept(QUESTION) is None


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv(module.VARIABLE, str(tmp_path / "taken"))
    keep(QUESTION, 2.5)
    assert kept(QUESTION) is None


def test_it_can_be_switched_off_and_is_where_caches_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv(module.VARIABLE, "off")
    keep(QUESTION, 2.5)
    assert list(tmp_path.iterdir()) == []

    monkeypatch.delenv(module.VARIABLE)
    keep(QUESTION, 2.5)
    assert len(list((tmp_path / "caches" / "fedsim" / "accounting").iterdir())) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    keep(QUESTION, 2.5)
    assert len(list((tmp_path / "home" / ".cache" / "fedsim" / "accounting").iterdir())) == 1


def test_files_and_folders_are_the_users_alone(file: Path, folder: Path):
    assert file.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder.parent.stat().st_mode & 0o777 == 0o700


def test_writers_at_the_same_time_leave_one_whole_file(folder: Path):
    writers = [threading.Thread(target=keep, args=(QUESTION, 2.5)) for _ in range(16)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert kept(QUESTION) == 2.5
    assert len(list(folder.iterdir())) == 1


def test_infinity_is_not_kept(folder: Path):
    keep(QUESTION, math.inf)
    assert kept(QUESTION) is None


def test_the_next_command_has_the_same_answers_without_an_accountant(folder: Path, forget, cheap: list[str]):
    noise = noise_multiplier(2.0, 0.5, 3, 1e-4)
    spent = epsilon((Segment(0.5, noise, 3),), 1e-4)
    assert set(cheap) == {"bound", "estimate"}
    forget()
    cheap.clear()
    assert noise_multiplier(2.0, 0.5, 3, 1e-4) == noise
    assert epsilon((Segment(0.5, noise, 3),), 1e-4) == spent
    assert cheap == []


@pytest.mark.parametrize(
    "other",
    [(0.4, 1.1, 3, 1e-4, "add-or-remove-one"), (0.5, 1.2, 3, 1e-4, "add-or-remove-one"),
     (0.5, 1.1, 4, 1e-4, "add-or-remove-one"), (0.5, 1.1, 3, 1e-5, "add-or-remove-one"),
     (0.5, 1.1, 3, 1e-4, "replace-one")],
    ids=["rate", "noise", "steps", "delta", "neighbours"],
)  # fmt: skip
def test_another_mechanism_or_promise_has_another_epsilon(folder: Path, forget, monkeypatch, other: tuple):
    """Whatever epsilon depends on is part of the question."""
    asked = []
    monkeypatch.setattr(accounting, "_pld_bound", lambda *inputs: asked.append(inputs) or float(len(asked)))
    assert epsilon((Segment(0.5, 1.1, 3),), 1e-4) == 1.0
    rate, noise, steps, delta, neighbours = other
    forget()
    assert epsilon((Segment(rate, noise, steps),), delta, neighbours) == 2.0
    forget()
    assert epsilon((Segment(0.5, 1.1, 3),), 1e-4) == 1.0


@pytest.mark.parametrize(
    "other",
    [(2.5, 0.5, 3, 1e-4), (2.0, 0.4, 3, 1e-4), (2.0, 0.5, 2, 1e-4), (2.0, 0.5, 3, 1e-3),
     (2.0, 0.5, 3, 1e-4, "replace-one")],
    ids=["target", "rate", "steps", "delta", "neighbours"],
)  # fmt: skip
def test_another_promise_has_another_noise(folder: Path, forget, cheap, other: tuple):
    """Less noise would do for most of these, so that a check of epsilon alone would let another's noise pass."""
    first = noise_multiplier(2.0, 0.5, 3, 1e-4)
    forget()
    assert noise_multiplier(*other) != first


@pytest.mark.parametrize("wrong", [1e-3, 0.31, 1e9])
def test_a_kept_noise_that_misses_the_target_is_not_believed(folder: Path, forget, cheap, wrong: float):
    """The noise is believed only with its own exact epsilon."""
    noise = noise_multiplier(2.0, 0.5, 3, 1e-4)
    for file in folder.iterdir():
        found = json.loads(file.read_text())
        if found["question"]["asked"] == "noise multiplier":
            file.write_text(json.dumps({**found, "answer": wrong}))
    forget()
    assert noise_multiplier(2.0, 0.5, 3, 1e-4) == noise
