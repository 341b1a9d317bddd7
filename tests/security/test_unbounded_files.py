"""A file that never ends, or opens to gigabytes, is refused in a line, wherever a command reads one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow
import pytest
from pyarrow import parquet

from fedsim.data.own_table.ranges import declared_for
from fedsim.experiments.experiment import resume
from fedsim.mistakes import Mistake
from fedsim.results import run_directory as results
from fedsim.scenario import catalog
from fedsim.scenario.files import read
from tests.cases import others_whole
from tests.runs import unsealed

FILES = ("scenario.toml", "manifest.json", "ledger.json", "sites.parquet", "rounds.parquet", "model.safetensors")


@pytest.fixture
def copied(small_run: Path, tmp_path: Path) -> Path:
    return unsealed(Path(shutil.copytree(small_run, tmp_path / "run")))


def put_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def put_device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


ENDLESS = {"a pipe": put_pipe, "a device": put_device}


@pytest.mark.parametrize("kind", ENDLESS)
@pytest.mark.parametrize("name", FILES)
def test_an_endless_file_in_a_run_directory_is_refused(copied: Path, name: str, kind: str):
    ENDLESS[kind](copied / name)
    with pytest.raises(Mistake, match=f"{name}: expected an ordinary file, got {kind}"):
        results.load(copied)


@pytest.mark.parametrize("kind", ENDLESS)
@pytest.mark.parametrize("name", ["federated-plain-0.json", "federated-plain-0.safetensors"])
def test_an_endless_checkpoint_is_refused(copied: Path, name: str, kind: str):
    (copied / "manifest.json").unlink()
    ENDLESS[kind](copied / "checkpoints" / name)
    with pytest.raises(Mistake, match=f"{name}: expected an ordinary file, got {kind}"):
        resume(copied)


@pytest.mark.whole
def test_a_lock_is_neither_waited_for_nor_followed(copied: Path, tmp_path: Path):
    """A run directory may come from a stranger, and resuming it writes into it."""
    (copied / "manifest.json").unlink()
    (tmp_path / "mine.txt").write_text("mine")
    (copied / ".lock").unlink()
    (copied / ".lock").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(Mistake, match=r"\.lock: expected a file that can be written, got "):
        resume(copied)
    assert (tmp_path / "mine.txt").read_text() == "mine"

    put_pipe(copied / ".lock")
    assert resume(copied).path == copied


@pytest.mark.parametrize("kind", ENDLESS)
@pytest.mark.parametrize("name", ["x.toml", "x", "x.conf"])
def test_an_endless_scenario_is_refused(tmp_path: Path, name: str, kind: str):
    ENDLESS[kind](tmp_path / name)
    with pytest.raises(Mistake, match=f": expected an ordinary file, got {kind}"):
        read(tmp_path / name)


def test_a_folder_in_place_of_a_scenario_is_refused(tmp_path: Path):
    (tmp_path / "x.toml").mkdir()
    with pytest.raises(Mistake, match=r"x.toml: expected an ordinary file, got a folder"):
        read(tmp_path / "x.toml")


@pytest.mark.parametrize("kind", ENDLESS)
@pytest.mark.parametrize("named", [True, False])
def test_an_endless_file_of_ranges_is_refused(tmp_path: Path, named: bool, kind: str):
    """Also where it lies beside the table, and nobody named it."""
    side = tmp_path / "x.ranges.toml"
    ENDLESS[kind](side)
    with pytest.raises(Mistake, match=f"expected an ordinary file, got {kind}"):
        declared_for(tmp_path / "x.csv", str(side) if named else None)


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_endless_strategy_is_refused(tmp_path: Path, kind: str):
    path = tmp_path / "my_strategy.py"
    ENDLESS[kind](path)
    catalog.allow(str(path))
    with pytest.raises(Mistake, match=f"my_strategy.py: expected an ordinary file, got {kind}"):
        catalog.load("strategies", str(path))


def test_a_strategy_of_megabytes_is_refused(tmp_path: Path):
    path = tmp_path / "my_strategy.py"
    path.write_text("#" * (2**20 + 1))
    catalog.allow(str(path))
    with pytest.raises(Mistake, match="expected at most 1,048,576 bytes, got 1,048,577"):
        catalog.load("strategies", str(path))


COMMANDS = [
    ["show"],
    ["show", "scenario"],
    ["run"],
    ["compare", "--strategy", "fedavg", "--strategy", "krum"],
    ["run", "hospital-heart", "--strategy"],
]


@pytest.mark.whole
@pytest.mark.parametrize("kind", ENDLESS)
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_ends_with_a_line(tmp_path: Path, words: list[str], kind: str):
    name = "x.py" if words[-1] == "--strategy" else "x.toml"
    ENDLESS[kind](tmp_path / name)
    command = [sys.executable, "-m", "fedsim", *words, name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "expected an ordinary file, got" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def put(folder: Path, name: str, table: pyarrow.Table) -> None:
    """Put a table into a run directory, with its SHA-256 in the manifest."""
    parquet.write_table(table, folder / name, compression="zstd")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = results.sha256((folder / name).read_bytes())
    (folder / "manifest.json").write_text(json.dumps(manifest))


def equal_texts(length: int, rows: int) -> pyarrow.Array:
    """Return a column of equal texts, of which Parquet writes one."""
    indices = pyarrow.array([0]).take(pyarrow.array([0] * rows))
    return pyarrow.DictionaryArray.from_arrays(indices.cast("int32"), ["x" * length])


BOMBS = {
    "many rows": lambda: dict.fromkeys([f"c{n}" for n in range(100)], pyarrow.nulls(3_000_000, "float64")),
    "long texts": lambda: {"site": equal_texts(length=1_000_000, rows=3_000)},
}


@pytest.mark.parametrize("name", others_whole(BOMBS, "long texts"))
def test_a_small_table_that_opens_to_gigabytes_is_refused(copied: Path, name: str):
    table = pyarrow.table(BOMBS[name]()).replace_schema_metadata(None)
    put(copied, "sites.parquet", table)
    assert (copied / "sites.parquet").stat().st_size < 2_000_000
    with pytest.raises(Mistake, match=r"sites\.parquet: (site: )?expected a"):
        results.load(copied)


def test_a_table_of_lists_is_refused(copied: Path):
    put(copied, "sites.parquet", pyarrow.table({"site": [[1, 2], [3]]}))
    with pytest.raises(Mistake, match=r"sites\.parquet: site: expected a column of text or numbers, got list"):
        results.load(copied)


def test_an_honest_table_is_read_as_pandas_reads_it(small_run: Path):
    for name in ("sites", "groups", "rounds"):
        expected = pd.read_parquet(small_run / f"{name}.parquet")
        pd.testing.assert_frame_equal(getattr(results.load(small_run), name), expected)
