"""The run directory: plain files, written whole or not at all, never pickled, each with its SHA-256 in the manifest.

- ``scenario.toml``: the scenario, resolved; ``fedsim run`` takes it again.
- ``sites.parquet``: test metrics of every arm, seed and site; ``rounds.parquet``: validation metrics after each round.
- ``groups.parquet``: counts, sums and rates of every protected group of test rows, over all sites and at each.
- ``ledger.json``: what each site released in the private trainings, and its epsilon.
- ``model.safetensors``: the federated model of the first seed, the private one if there is one.
- ``manifest.json``: versions, seeds, device, git revision, timings, notes, and the other files' SHA-256.
- ``checkpoints/``: every finished training, from which an interrupted run goes on.
- ``report.html``: the report, made from the files above.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import tomli_w
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from fedsim.mistakes import Mistake
from fedsim.results.comparison import ELSEWHERE, HERE, compare
from fedsim.results.evaluation import POOLED, TOGETHER, headline_of
from fedsim.results.group_comparison import compare_groups, compare_widths
from fedsim.results.metrics import METRICS, Metric
from fedsim.scenario.files import read
from fedsim.scenario.kinds import Kind
from fedsim.scenario.reading import LARGEST, parse_json
from fedsim.scenario.schema import Scenario

Tensors = dict[str, Tensor]
_TABLES = ("sites.parquet", "groups.parquet", "rounds.parquet")
_TIMES = {"started", "seconds", "seconds_per_training"}
_MANIFEST = {"task", "data", "versions", "git", "device", "threads", "seeds", "notes", *_TIMES}


@dataclass(frozen=True)
class Run:
    """What is in a run directory."""

    path: Path
    scenario: Scenario
    sites: pd.DataFrame
    groups: pd.DataFrame
    rounds: pd.DataFrame
    ledger: dict[str, Any]
    manifest: dict[str, Any]

    POOLED: ClassVar[str] = POOLED
    TOGETHER: ClassVar[tuple[str, ...]] = TOGETHER
    HERE: ClassVar[str] = HERE

    @cached_property
    def headline(self) -> str:
        """The site whose rows in ``sites`` and ``comparison`` are spoken of first; POOLED in older runs."""
        return headline_of(set(self.sites["site"]))

    @property
    def headline_place(self) -> str:
        """How the figures of the row ``headline`` are called."""
        return "pooled over the sites" if self.headline == POOLED else "inside sites"

    @property
    def same_rows(self) -> bool:
        """Whether all seeds train on and test the same rows, so that no interval speaks of other rows."""
        return self.manifest["task"]["by_time"]

    @property
    def asked(self) -> str:
        """The question that intervals answer, but those that are called by HERE: ELSEWHERE, if the seeds allow it."""
        return HERE if self.same_rows else ELSEWHERE

    @property
    def pooled_differs(self) -> bool:
        """Whether there are pooled figures to be shown beside those of the row ``headline``."""
        return self.headline != POOLED and self.sites["site"].nunique() > 1 + len(TOGETHER)

    @cached_property
    def comparison(self) -> pd.DataFrame:
        """The arms compared, over all sites and at each; see ``fedsim.results.comparison.compare``."""
        return compare(self.sites, self.overlap)

    @cached_property
    def harm(self) -> pd.DataFrame:
        """The groups compared over all sites; see ``fedsim.results.group_comparison.compare_groups``."""
        return compare_groups(self.groups, self.kind, self.overlap)

    @cached_property
    def widths(self) -> pd.DataFrame:
        """How far the groups of each attribute are apart; see ``fedsim.results.group_comparison.compare_widths``."""
        return compare_widths(self.groups, self.kind, self.overlap)

    @property
    def kind(self) -> Kind:
        """What the outcome is."""
        return self.manifest["task"]["kind"]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of the outcome's kind; the first is the headline."""
        return METRICS[self.kind]

    @property
    def overlap(self) -> float:
        """What ``fedsim.results.comparison.interval`` must know of the seeds: whether they have the same rows."""
        return 0.0 if self.same_rows else self.scenario.split.overlap

    def epsilon(self, arm: str = "federated") -> dict[str, float]:
        """Return {site: the most that one private training of an arm spent there}; empty if none released anything."""
        return most_spent(training for training in self.ledger["trainings"] if training["arm"] == arm)


def most_spent(trainings: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return {site: the most epsilon that one of some trainings in the ledger spent there}."""
    most: dict[str, float] = {}
    for site, spent in (item for training in trainings for item in training["epsilon"].items()):
        most[site] = max(spent, most.get(site, 0.0))
    return most


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: to a temporary name, synced, renamed, and the folder synced."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401  anything JSON can hold
    """Write JSON; a NaN is refused, since it would not be JSON."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def write_scenario(folder: Path, scenario: Scenario) -> None:
    """Write the resolved scenario.

    Raises:
        Mistake: It is too large to be read again.
    """
    content = tomli_w.dumps(scenario.values(), indent=2).encode()
    if len(content) > LARGEST:
        raise Mistake(f"scenario.toml: expected at most {LARGEST:,} bytes, got {len(content):,}; leave columns or "
                      "numbers for single sites out")  # fmt: skip
    write_bytes(folder / "scenario.toml", content)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as Parquet."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_bytes(path, buffer.getvalue())


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """Write tensors as safetensors with a note about them; return the SHA-256."""
    note = {"fedsim": json.dumps(dict(about), sort_keys=True)}  # one key: safetensors writes several in random order
    content = save_tensors({name: value.detach().cpu().clone() for name, value in tensors.items()}, note)
    write_bytes(path, content)
    return sha256(content)


def write_manifest(folder: Path, about: Mapping[str, Any]) -> None:
    """Write the manifest, with the SHA-256 of the files that are there; it is written last."""
    names = (*_TABLES, "scenario.toml", "ledger.json", "model.safetensors")
    files = {name: sha256((folder / name).read_bytes()) for name in names if (folder / name).exists()}
    write_json(folder / "manifest.json", {**about, "files": files})


def sha256(content: bytes) -> str:
    """Return a digest in hex."""
    return hashlib.sha256(content).hexdigest()


def load(path: str | Path) -> Run:
    """Read a finished run.

    Raises:
        Mistake: There is none, it is not finished, or a file is not what was written.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise Mistake(f"{path}: expected a run directory, there is none")
    if (folder / "scenario.toml").exists() and not (folder / "manifest.json").exists():
        raise Mistake(f"{path}: this run is not finished; go on with: fedsim resume {path}")
    manifest = _read_json(folder / "manifest.json")
    if not isinstance(manifest.get("files", {}), dict):
        raise Mistake(f"{folder / 'manifest.json'}: expected the files with their SHA-256, got {manifest['files']}")
    contents = {}
    for name, digest in manifest.get("files", {}).items():
        if Path(name).name != name:
            raise Mistake(f"{folder / 'manifest.json'}: expected names of files, got {name!r}")
        contents[name] = _read(folder / name)
        if sha256(contents[name]) != digest:
            raise Mistake(f"{folder / name}: expected SHA-256 {digest[:12]}..., the file has changed since it was made")
    missing = {*_TABLES, "scenario.toml", "ledger.json"} - set(contents)
    if missing:
        raise Mistake(f"{folder / 'manifest.json'}: expected the files {', '.join(sorted(missing))} in it")
    absent = _MANIFEST - set(manifest)
    if absent:
        raise Mistake(f"{folder / 'manifest.json'}: expected {', '.join(sorted(absent))} in it")
    return Run(
        path=folder,
        scenario=read(str(folder / "scenario.toml")),
        **{name.partition(".")[0]: _table(contents[name], folder / name) for name in _TABLES},
        ledger=parse_json(contents["ledger.json"], str(folder / "ledger.json")),
        manifest=manifest,
    )


def _table(content: bytes, path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(io.BytesIO(content))
    except (ValueError, OSError) as error:  # pyarrow's own errors are either
        raise Mistake(f"{path}: expected a Parquet file, got {str(error).partition(chr(10))[0]}") from None


def newest() -> Path:
    """Return the finished run under ``runs/`` that was made last.

    Raises:
        Mistake: There is none.
    """
    found = sorted(Path("runs").glob("*/manifest.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise Mistake("expected a run directory, and there is no finished run under runs/")
    return found[-1].parent


def newest_interrupted() -> Path:
    """Return the run under ``runs/`` that was begun last and is not finished.

    Raises:
        Mistake: There is none.
    """
    begun = sorted(Path("runs").glob("*/scenario.toml"), key=lambda path: path.stat().st_mtime)
    interrupted = [path.parent for path in begun if not (path.parent / "manifest.json").exists()]
    if not interrupted:
        raise Mistake("expected the directory of an interrupted run, and there is none under runs/")
    return interrupted[-1]


def write_checkpoint(folder: Path, key: str, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Keep a finished training: its tensors first, then its values with the tensors' SHA-256."""
    folder.mkdir(exist_ok=True)
    digest = write_tensors(folder / f"{key}.safetensors", tensors, {"training": key})
    body = json.dumps(values, allow_nan=False)
    write_json(folder / f"{key}.json", {"tensors": digest, "values": sha256(body.encode()), "body": body})


def read_checkpoint(folder: Path, key: str) -> tuple[Tensors, dict[str, Any]] | None:
    """Return a finished training, or None if it is not there.

    Raises:
        Mistake: It is there, but not what was written.
    """
    if not (folder / f"{key}.json").exists():
        return None
    outer = _read_json(folder / f"{key}.json")
    content = _read(folder / f"{key}.safetensors")
    try:
        body = str(outer["body"])
        if (outer["tensors"], outer["values"]) != (sha256(content), sha256(body.encode())):
            raise ValueError("its SHA-256 differs")
        return load_tensors(content), parse_json(body, "its values")
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise Mistake(
            f"{folder / key}: expected the checkpoint that was written, got another ({error}); "
            "delete its two files to train that part again"
        ) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Mistake(f"{path}: {error.strerror}") from None


def _read_json(path: Path) -> dict[str, Any]:
    return parse_json(_read(path), str(path))
