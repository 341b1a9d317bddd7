"""Files from a stranger are only data: nothing in them runs, leads elsewhere, or takes long to refuse."""

import io
import json
import pickle
import shutil
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import torch

import fedsim
from fedsim.data.own_table.ranges import declared_for
from fedsim.experiments.experiment import resume
from fedsim.mistakes import Mistake
from fedsim.results import run_directory as results
from fedsim.scenario import catalog
from fedsim.scenario.files import read
from fedsim.scenario.reading import LARGEST
from fedsim.scenario.toml_depth import MOST_DOTS
from tests.runs import unsealed

SMALL = ("training.rounds=1", "seeds=1", "arms=['federated']", "privacy.unit=none")
GOOD = 'title = "x"\ntask = "hospital/heart"\n'


class Payload:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def payloads(tmp_path: Path) -> Iterator[dict[str, bytes]]:
    """Return {kind: bytes that run code when unpickled}; afterwards none of them has."""
    mark = tmp_path / "executed"
    saved, array = io.BytesIO(), io.BytesIO()
    torch.save({"weight": Payload(mark)}, saved)
    np.save(array, np.array([Payload(mark)], dtype=object), allow_pickle=True)
    yield {"pickle": pickle.dumps(Payload(mark)), "torch": saved.getvalue(), "npy": array.getvalue()}
    assert not mark.exists()


KINDS = ["pickle", "torch", "npy"]


def test_the_payloads_do_run_where_they_are_unpickled(tmp_path: Path):
    """The teeth of G1."""
    pickle.loads(pickle.dumps(Payload(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["federated-plain-0.safetensors", "federated-plain-0.json"])
def test_a_pickle_as_a_checkpoint_is_not_run(small_run: Path, tmp_path: Path, payloads, kind: str, name: str):
    """G1: also where its SHA-256 is the one that is written down."""
    folder = unsealed(Path(shutil.copytree(small_run, tmp_path / "run")))
    (folder / "manifest.json").unlink()
    (folder / "checkpoints" / name).write_bytes(payloads[kind])
    if name.endswith("safetensors"):
        values = folder / "checkpoints" / "federated-plain-0.json"
        values.write_text(json.dumps(json.loads(values.read_text()) | {"tensors": results.sha256(payloads[kind])}))
    with pytest.raises(Mistake, match="expected"):
        resume(folder)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["manifest.json", "ledger.json", "metrics.json", "sites.parquet", "rounds.parquet", "scenario.toml"]
)
def test_a_pickle_in_a_run_directory_is_not_run(small_run: Path, tmp_path: Path, payloads, kind: str, name: str):
    """G1."""
    folder = unsealed(Path(shutil.copytree(small_run, tmp_path / "run")))
    put(folder, name, payloads[kind])
    with pytest.raises(Mistake, match="expected"):
        results.load(folder)


def put(folder: Path, name: str, content: bytes) -> None:
    """Put a file into a run directory, with its SHA-256 in the manifest."""
    (folder / name).write_bytes(content)
    if name != "manifest.json":
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"][name] = results.sha256(content)
        (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["x.toml", "x.csv", "x.csv.gz", "x.parquet", "x.npz", "x.npy", "x.ranges.toml"])
def test_a_pickle_as_a_scenario_or_as_data_is_not_run(tmp_path: Path, payloads, kind: str, name: str):
    """G1."""
    path = tmp_path / name
    path.write_bytes(payloads[kind])
    with pytest.raises(Mistake, match="expected"):
        if name == "x.toml":
            read(path)
        elif name == "x.ranges.toml":
            declared_for(tmp_path / "x.csv", None)
        elif "np" in name:
            fedsim.run("hospital-heart", *SMALL, "task=hospital/xray", f"data.path={path}", "training.expected_batch=9",
                       "partition={by='iid',sites=2}", out=tmp_path / "o")  # fmt: skip
        else:
            fedsim.run(None, f"data.path={path}", "data.target=a", "partition={by='iid',sites=2}", out=tmp_path / "o")


NAMES = [
    "..", "../x", "../../x", "../evil", "../../../../../../etc/passwd", "/etc/passwd", "/evil", "//evil", "./evil",
    "~", "~root/x", "$HOME/x", "evil/../x", "x\x00y", "x/", "a" * 300, "C:\\x", "..\\x", "CON", "Evil", "fedavg/../x",
    "%2e%2e/x", "..%2fx", "．．/x", "evil.py", "evil:Evil", "os:system", "file:///etc/passwd", "x y", "",
]  # fmt: skip
PLACES = ["name", "task", "engine", "strategy.name", "attack.name"]


@pytest.mark.parametrize("place", PLACES)
def test_no_name_in_a_file_leads_out_of_its_place(tmp_path: Path, monkeypatch, place: str):
    """G2: 150 cases; code lies ready beside the file and above it, and nothing of it is imported or run."""
    home = tmp_path / "a" / "b"
    home.mkdir(parents=True)
    for folder in (home, tmp_path / "a", tmp_path):
        (folder / "evil.py").write_text("raise SystemExit('executed')\nclass Evil: aggregate = None\n")
        (folder / "x.py").write_text("raise SystemExit('executed')\n")
    (home / "link.py").symlink_to(tmp_path / "evil.py")
    monkeypatch.chdir(home)
    monkeypatch.syspath_prepend(str(home))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    modules = set(sys.modules)
    for name in [*NAMES, *(() if place == "name" else ("evil", "x", "link", "link.py"))]:
        text = "".join(line for line in GOOD.splitlines(True) if not line.startswith(f"{place} "))
        section, _, key = place.rpartition(".")
        entry = f"{key} = {json.dumps(name)}\n" + ("share = 0.5\n" if section == "attack" else "")
        (home / "file.toml").write_text(f"{text}[{section}]\n{entry}" if section else f"{entry}{text}", "utf-8")
        with pytest.raises(Mistake):
            chosen = read(home / "file.toml")
            catalog.load("tasks", str(chosen.task))
            catalog.load("strategies", chosen.strategy.name)
    (home / "file.toml").unlink()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not {name for name in set(sys.modules) - modules if "evil" in name.lower() or "link" in name}


@pytest.mark.parametrize("name", ["../outside.json", "/etc/passwd", "checkpoints/../../outside.json", "a/b"])
def test_a_manifest_does_not_lead_out_of_its_run(small_run: Path, tmp_path: Path, name: str):
    """G2."""
    folder = unsealed(Path(shutil.copytree(small_run, tmp_path / "run")))
    (tmp_path / "outside.json").write_text("{}")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = results.sha256(b"{}")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(Mistake, match="expected names of files"):
        results.load(folder)


def test_writing_over_a_link_leaves_what_it_led_to(tmp_path: Path):
    """G2: a link in a run directory is replaced, not followed."""
    (tmp_path / "outside").write_text("mine")
    (tmp_path / "ledger.json").symlink_to(tmp_path / "outside")
    results.write_json(tmp_path / "ledger.json", {})
    assert (tmp_path / "outside").read_text() == "mine"
    assert not (tmp_path / "ledger.json").is_symlink()


DEEP, LINES = 10_000, LARGEST // 32
HOSTILE = {
    "nested arrays": f"title = {'[' * DEEP}{']' * DEEP}",
    "nested tables": f"title = {'{a=' * DEEP}1{'}' * DEEP}",
    "never closed": f"title = {'[' * DEEP}",
    "a deep key": f"{'.'.join('a' * DEEP)} = 1",
    "a deep header": f"[{'.'.join('a' * DEEP)}]\nb = 1",
    "a deep hyperparameter": f'{GOOD}[strategy]\nbeta.{".".join("a" * DEEP)} = 1',
    "deep keys": "".join(f"k{n}{'.a' * (MOST_DOTS - 1)} = 1\n" for n in range(LINES)),
    "deep headers": "".join(f"[k{n}{'.a' * (MOST_DOTS - 1)}]\n" for n in range(LINES)),
    "deep keys below deep headers": "".join(
        f"[{n:05}{'.a' * MOST_DOTS}]\na{'.a' * MOST_DOTS}=1\n" for n in range(LARGEST // (4 * MOST_DOTS + 12))
    ),
    "a deep key behind strings": f'a = "\\"" # "\n{"b = 1.5 # c.d" * 3}\n{".".join("a" * DEEP)} = 1',
    "a key of 200 000 quotes": '"".' * 80_000,
    "10 MB of text": f'title = "{"x" * 10_000_000}"',
    "10 MB of keys": "".join(f"k{n} = 1\n" for n in range(800_000)),
    "10 MB of nothing": "\n" * 10_000_000,
    "as many keys as fit": "".join(f"k{n} = 1\n" for n in range(LARGEST // 12)),
    "as many sections as fit": "".join(f"[t{n}]\n" for n in range(LARGEST // 10)),
    "as many wrong numbers as fit": f"{GOOD}[training]\nexpected_batch = {{"
    + ",".join(f"s{n}=-1" for n in range(LARGEST // 13)) + "}",
    "a number of 100 000 digits": f"seed = {'9' * 100_000}",
    "twice the same key": "title = 'a'\ntitle = 'b'\n",
    "a hexadecimal number of 10 000 digits": f"{GOOD}seed = 0x{'f' * DEEP}\n",
    "a hexadecimal parameter of 10 000 digits": f"{GOOD}[strategy]\nbeta = 0x{'f' * DEEP}\n",
    "a tag of YAML": "title: !!python/object/apply:os.system ['true']\n",
    "a NaN": f'{GOOD}[privacy]\nunit = "record"\nepsilon = nan\ndelta = inf\n',
}  # fmt: skip


MOST_CALLS = 1_500_000  # a second of a quiet processor makes about two million


def calls_of(work: Callable[[], object]) -> int:
    """Return how many functions are called: as many on a busy machine as on a quiet one."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.whole
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_with_little_work(tmp_path: Path, name: str):
    """G3: within about a second.

    Calls are counted, since a second differs between machines. What is slow within one call, as a search with a
    regular expression may be, is not counted: that would take minutes, and a minute of the processor is the limit.
    """
    (tmp_path / "x.toml").write_text(HOSTILE[name])
    read("hospital-heart")  # what is read once only

    def read_it() -> None:
        with pytest.raises(Mistake) as caught:
            read(tmp_path / "x.toml")
        assert len(str(caught.value)) < 20_000

    start = time.process_time()
    assert calls_of(read_it) < MOST_CALLS
    assert time.process_time() - start < 60


@pytest.mark.whole
@pytest.mark.parametrize("name", ["nested arrays", "10 MB of text", "10 MB of keys", "as many keys as fit"])
def test_a_hostile_file_takes_no_more_than_200_megabytes(tmp_path: Path, name: str):
    """G3."""
    (tmp_path / "x.toml").write_text(HOSTILE[name])
    tracemalloc.start()
    try:
        with pytest.raises(Mistake):
            read(tmp_path / "x.toml")
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()


def test_a_line_may_hold_many_numbers(tmp_path: Path):
    numbers = ", ".join(f"s{n} = 0.{n + 1}" for n in range(50))
    (tmp_path / "x.toml").write_text(f"{GOOD}[training]\nexpected_batch = {{ {numbers} }}\n")
    assert len(read(tmp_path / "x.toml").training.expected_batch) == 50  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["nested arrays", "a deep key", "10 MB of text", "a number of 100 000 digits"])
def test_a_hostile_file_of_ranges_is_refused_too(tmp_path: Path, name: str):
    """G3."""
    (tmp_path / "x.ranges.toml").write_text(HOSTILE[name])
    with pytest.raises(Mistake, match="expected"):
        declared_for(tmp_path / "x.csv", None)


def test_a_hostile_setting_is_only_text():
    """G3."""
    with pytest.raises(Mistake, match="title: expected at most 120 characters, got ") as caught:
        read("hospital-heart", [f"title={'[' * DEEP}"])
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["manifest.json", "ledger.json"])
def test_json_that_nests_without_end_is_refused(small_run: Path, tmp_path: Path, name: str):
    """G3."""
    folder = unsealed(Path(shutil.copytree(small_run, tmp_path / "run")))
    put(folder, name, b"[" * 100_000)
    with pytest.raises(Mistake, match="expected JSON"):
        results.load(folder)
