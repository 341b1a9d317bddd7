"""Kills, faults of the disk and flipped bits: a run ends with what it would have ended with, or says why not."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from fedsim.experiments.experiment import execute, resume
from fedsim.experiments.tournament import Axes, Cell, cells, play
from fedsim.mistakes import CannotGoOn, Mistake
from fedsim.results import run_directory as results
from fedsim.results import whole_files
from fedsim.scenario.files import read
from fedsim.scenario.schema import Scenario
from tests.torture.trials import Tried, chooser

PRODUCTS = ("model.safetensors", "ledger.json", "sites.parquet", "groups.parquet", "rounds.parquet")
EVERY = 5  # rounds between two states that are kept
ONE_SEED = ("seeds=1", "privacy.epsilon=900", "privacy.noise_multiplier=2")
KILLED = ("training.rounds=60", f"checkpoints.every_rounds={EVERY}", *ONE_SEED)
SMALL = ("training.rounds=2", "checkpoints.every_rounds=1", *ONE_SEED)


def products(folder: Path) -> dict[str, bytes]:
    """Return what a run is for, byte by byte."""
    return {name: (folder / name).read_bytes() for name in PRODUCTS}


def kills(count: int, seed: int, folder: Path) -> Tried:
    """Kill runs at any moment, some of them more than once, and go on with them."""
    tried = Tried("kills")
    choices = chooser("kills", seed)
    scenario = read("hospital-heart", KILLED)
    begun = time.monotonic()
    expected = products(execute(scenario, folder / "whole").path)
    takes = time.monotonic() - begun
    lost: list[int] = []

    def trial(number: int) -> str | None:
        run = folder / f"killed-{number}"
        done = 0
        for _ in range(choices.choice((1, 1, 2))):
            reached = _killed(scenario, run, choices.uniform(0, takes))
            done = max(done, reached)
        first: list[int] = []

        def notice(label: str, number_of_round: int, total: int) -> None:
            first.append(number_of_round)

        if (run / "scenario.toml").exists():
            resume(run, notice)
        else:
            execute(scenario, run, notice)
        if first:
            lost.append(max(0, done - first[0] + 1))
        wrong = [name for name, content in products(run).items() if content != expected[name]]
        shutil.rmtree(run)
        return f"other bytes of {', '.join(wrong)}" if wrong else None

    for number in range(count):
        tried.attempt(f"kill {number}", lambda number=number: trial(number))
    tried.facts = {"rounds lost at most": max(lost, default=0), "on average": sum(lost) / max(1, len(lost))}
    if max(lost, default=0) > EVERY:
        tried.wrong.append(f"{max(lost)} rounds were lost, expected at most {EVERY}")
    return tried


def _killed(scenario: Scenario, folder: Path, seconds: float) -> int:
    """Begin a run or go on with it in another process, and kill that; return the last round that it told of."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)

        def tell(label: str, done: int, total: int) -> None:
            os.write(writer, f"{done}\n".encode())

        try:
            begun = (folder / "scenario.toml").exists()
            resume(folder, tell) if begun else execute(scenario, folder, tell)
        finally:
            os._exit(0)
    os.close(writer)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reader) as told:
        rounds = [int(line) for line in told.read().splitlines() if line.isdigit()]
    return max(rounds, default=0)


FAULTS = {28: "No space left on device", 30: "Read-only file system", 13: "Permission denied", 5: "Input/output error"}


def disk_faults(count: int, seed: int, folder: Path) -> Tried:
    """Let one write of a run fail, any of them; the line names the file, and the run can go on."""
    tried = Tried("disk faults")
    choices = chooser("disk faults", seed)
    scenario = read("hospital-heart", SMALL)
    writes = _Writes()
    with writes.failing(at=-1, code=0):
        expected = products(execute(scenario, folder / "whole").path)
    how_many = writes.seen

    def trial(number: int) -> str | None:
        run = folder / f"full-{number}"
        at, code = choices.randrange(how_many), choices.choice(sorted(FAULTS))
        with writes.failing(at, code):
            try:
                execute(scenario, run)
                return "no error"
            except CannotGoOn as error:
                if not error.filename:
                    return "names no file"
            except OSError as error:
                if not error.filename or (run / "scenario.toml").exists():
                    return f"does not say how to go on: {error}"
        (resume if (run / "scenario.toml").exists() else lambda place: execute(scenario, place))(run)
        wrong = [name for name, content in products(run).items() if content != expected[name]]
        if not (run / "report.html").exists():
            wrong.append("report.html")
        results.load(run)
        return f"other bytes of {', '.join(wrong)}" if wrong else None

    for number in range(count):
        tried.attempt(f"disk fault {number}", lambda number=number: trial(number))
    tried.facts = {"writes of a run": how_many}
    return tried


class _Writes:
    """Counts the writes to the disk, and lets one of them fail."""

    def __init__(self) -> None:
        self.seen = 0

    def failing(self, at: int, code: int) -> "_Failing":
        """Return a context in which the write of a number fails; none if it is -1."""
        self.seen = 0
        return _Failing(self, at, code)


class _Failing:
    def __init__(self, writes: _Writes, at: int, code: int) -> None:
        self._writes, self._at, self._code = writes, at, code
        self._fsync: Callable[[int], None] = os.fsync

    def __enter__(self) -> None:
        def fsync(number: int) -> None:
            self._writes.seen += 1
            if self._writes.seen - 1 == self._at:
                raise OSError(self._code, FAULTS[self._code])

        whole_files.os.fsync = fsync  # type: ignore[assignment]

    def __exit__(self, *_: object) -> None:
        whole_files.os.fsync = self._fsync


def flips(count: int, seed: int, folder: Path) -> Tried:
    """Flip one bit of any file of a run, of a training under way, or of a tournament's cache."""
    tried = Tried("flips")
    choices = chooser("flips", seed)
    run = execute(read("hospital-heart", SMALL), folder / "run").path
    cache = folder / "cache"
    rounds = ["training.rounds=1", "privacy.unit=none"]
    grid = cells(Axes(["hospital-heart"], ["fedavg", "median"], changes=rounds, seeds=1))
    ranked = _ranked(grid, cache)
    files = [path for path in sorted(run.rglob("*")) if path.is_file() and path.name != ".lock"]
    files += sorted(cache.glob("*.json"))

    for number in range(count):
        path = choices.choice(files)
        content = path.read_bytes()
        place, bit = choices.randrange(len(content)), choices.randrange(8)

        def trial(path: Path = path) -> str | None:
            if path.parent == cache:
                return None if _ranked(grid, cache) == ranked else "another ranking"
            try:
                results.load(run)
            except Mistake:
                return None
            return "it is not noticed"

        changed = bytearray(content)
        changed[place] ^= 1 << bit
        path.write_bytes(changed)
        tried.attempt(f"flip {number} of {path.relative_to(folder)}, byte {place}", trial)
        path.write_bytes(content)
    tried.facts = {"files": len(files)}
    return tried


def _ranked(grid: list[Cell], cache: Path) -> str:
    """Return what a tournament finds, as it can be compared."""
    played = play(grid, cache)
    return played.scores.to_json()
