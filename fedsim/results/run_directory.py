"""Write and load run directories.

A run directory holds plain files. They are written whole or not at all, never pickled, and the
manifest has the SHA-256 of each.

- ``scenario.toml``: the resolved scenario; ``fedsim run`` can run it again.
- ``sites.parquet``: test metrics of every arm, seed and site; ``rounds.parquet``: validation
  metrics after each round.
- ``groups.parquet``: counts, sums and rates of every protected group of test rows, over all sites
  and at each.
- ``metrics.json``: base rates of every seed, calibration and confusion matrices of every training,
  the coefficients of a linear model, and the scores of references where some were asked for; runs of
  older versions lack it.
- ``traffic.parquet``: the messages between server and sites, by kind: fields, number and size; runs of older versions
  and runs without a federated arm lack it.
- ``ledger.json``: the releases of each site in the private trainings, and its epsilon.
- ``model.safetensors``: the federated model of the first seed, with privacy if any arm has it.
- ``begun.json``: the circumstances that the run was begun under, such as versions.
- ``manifest.json``: versions, seeds, device, git revision, timings, notes, and the other files'
  SHA-256.
- ``checkpoints/``: every finished training, from which an interrupted run goes on.
- ``report.html``: the report, made from the files above.
- ``SHA256SUMS``: the digests of all files, written last.
"""

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pyarrow
import tomli_w
from pyarrow import compute, parquet
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from fedsim.figures import as_written
from fedsim.mistakes import Mistake
from fedsim.outcomes import declare, outcome_of
from fedsim.outcomes.metric import Metric
from fedsim.outcomes.own import remembered
from fedsim.privacy.promise import most_spent
from fedsim.results.columns import check_columns, training_in_words
from fedsim.results.comparison import ELSEWHERE, HERE, compare, compare_with_base
from fedsim.results.contents import check_ledger, check_manifest
from fedsim.results.digests import sha256
from fedsim.results.evaluation import INSIDE, POOLED, TOGETHER, headline_of
from fedsim.results.group_comparison import compare_groups, compare_widths
from fedsim.results.measured import Measured
from fedsim.results.seal import NAME as SEAL
from fedsim.results.seal import check_seal
from fedsim.results.whole_files import write_bytes
from fedsim.scenario.files import read
from fedsim.scenario.kinds import Kind
from fedsim.scenario.reading import LARGEST, parse_json, read_ordinary
from fedsim.scenario.schema import Scenario

LARGEST_FILE = 2**31
"""Bytes of a file that is read, and of the table in it."""

_CELL = 8  # bytes of a number, or of the place of a text

Tensors = dict[str, Tensor]
_Training = tuple[str, bool, int]  # arm, whether it is private, seed
_TABLES = ("sites.parquet", "groups.parquet", "rounds.parquet")
_KEYS = {
    "sites": ("arm", "private", "seed", "site"),
    "groups": ("arm", "private", "seed", "attribute", "group", "site"),
    "rounds": ("arm", "private", "seed", "round"),
}
"""{table: the columns that tell its rows apart}."""

_TRAFFIC = ("arm", "private", "seed", "direction", "message", "record")
_COUNTS = ("messages", "rounds", "bytes", "most")


@dataclass(frozen=True)
class Run:
    """The contents of a run directory."""

    path: Path
    scenario: Scenario
    sites: pd.DataFrame
    groups: pd.DataFrame
    rounds: pd.DataFrame
    ledger: dict[str, Any]
    manifest: dict[str, Any]
    measured: Measured = field(default_factory=Measured)
    traffic: pd.DataFrame | None = None

    POOLED: ClassVar[str] = POOLED
    TOGETHER: ClassVar[tuple[str, ...]] = TOGETHER
    HERE: ClassVar[str] = HERE

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The trainings that failed: arm, private, seed and reason of each."""
        return self.manifest.get("failed", [])

    @property
    def site_count(self) -> int:
        """How many sites there are, also where only some of them are tested."""
        tested = self.sites["site"].nunique() - len(set(self.sites["site"]) & set(TOGETHER))
        counted = self.manifest.get("sites")
        return max(tested, counted) if type(counted) is int else tested  # earlier versions tested all

    @cached_property
    def headline(self) -> str:
        """The row in ``sites`` and ``comparison`` that is reported first: POOLED if there is nothing inside sites."""
        return headline_of(self.sites, self.metrics[0].name)

    @property
    def from_before_inside(self) -> bool:
        """Whether the run is of a version that had no figures inside sites."""
        return INSIDE not in set(self.sites["site"])

    @property
    def headline_place(self) -> str:
        """The place that figures of the row ``headline`` are about, in words."""
        if self.headline == POOLED:
            return "pooled over the sites"
        return "inside sites"

    @property
    def same_rows(self) -> bool:
        """Whether all seeds have the same rows, so that no interval is about other rows."""
        return self.manifest["task"]["by_time"]

    @property
    def asked(self) -> str:
        """The question that intervals answer, apart from those named after HERE.

        It is ELSEWHERE, if the seeds allow it.
        """
        return HERE if self.same_rows else ELSEWHERE

    @property
    def pooled_differs(self) -> bool:
        """Whether there are pooled figures to be shown beside those of the row ``headline``."""
        site_count = self.sites["site"].nunique() - len(TOGETHER)
        return self.headline != POOLED and site_count > 1

    @cached_property
    def comparison(self) -> pd.DataFrame:
        """The arms compared, over all sites and at each; see ``results.comparison.compare``."""
        return compare(self.sites, self.overlap)

    @cached_property
    def over_base(self) -> pd.DataFrame | None:
        """The arms compared with the base rate; see ``results.comparison.compare_with_base``.

        It is None in runs of older versions, which have no base rates.
        """
        base = self.measured.base_rates
        if base.empty:
            return None
        return compare_with_base(self.sites, base, self.overlap)

    @cached_property
    def references(self) -> pd.DataFrame:
        """The models of scikit-learn beside the arms; empty where none was asked for.

        A row for each ``reference``, what it was ``learned_from``, site and metric, with ``mean, low, high, why``
        as ``comparison`` has them.
        """
        tables = []
        for (reference, learned_from), rows in self._each_reference():
            means = compare(rows.assign(arm="", private=False), self.overlap)
            means = means[["site", "metric", "mean", "low", "high", "why"]]
            tables.append(means.assign(reference=reference, learned_from=learned_from))
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    @cached_property
    def over_references(self) -> pd.DataFrame:
        """The arms compared with each reference, over all sites and at each; empty where none was asked for.

        A row for each ``reference``, what it was ``learned_from``, arm, private, site and metric, with the columns of
        ``results.comparison.compare_with_base``: ``base`` is the reference's mean.
        """
        tables = []
        for (reference, learned_from), rows in self._each_reference():
            compared = compare_with_base(self.sites, rows, self.overlap)
            tables.append(compared.assign(reference=reference, learned_from=learned_from))
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    def _each_reference(self) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
        """Yield the name of each reference, what it learned from, and its scores."""
        table = self.measured.references
        if not table.empty:
            for (reference, learned_from), rows in table.groupby(["reference", "learned_from"], sort=False):
                yield (str(reference), str(learned_from)), rows

    @cached_property
    def harm(self) -> pd.DataFrame:
        """The groups compared over all sites; see ``results.group_comparison.compare_groups``."""
        return compare_groups(self.groups, self.kind, self.overlap)

    @cached_property
    def widths(self) -> pd.DataFrame:
        """The extreme groups compared; see ``results.group_comparison.compare_widths``."""
        return compare_widths(self.groups, self.kind, self.overlap)

    @property
    def kind(self) -> Kind:
        """The kind of the outcome."""
        return self.manifest["task"]["kind"]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of the outcome's kind; the first is the headline."""
        return outcome_of(self.kind).metrics

    @property
    def overlap(self) -> float:
        """The overlap of the seeds' rows, as ``results.comparison.interval`` takes it."""
        return 0.0 if self.same_rows else self.scenario.split.overlap

    def epsilon(self, arm: str = "federated") -> dict[str, float]:
        """Return {site: the largest epsilon of a private training of an arm}.

        The result is empty if no training released anything.
        """
        trainings = self.ledger["trainings"]
        return most_spent(training for training in trainings if training["arm"] == arm)


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401  anything JSON can hold
    """Write JSON; a NaN is refused, since it would not be JSON."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_bytes(path, text.encode())


def write_scenario(folder: Path, scenario: Scenario) -> None:
    """Write the resolved scenario.

    Raises:
        Mistake: It is too large to be read again.
    """
    content = tomli_w.dumps(scenario.values(), indent=2).encode()
    if len(content) > LARGEST:
        hint = "leave columns or numbers for single sites out"
        expected = f"at most {LARGEST:,} bytes"
        raise Mistake(f"scenario.toml: expected {expected}, got {len(content):,}; {hint}")
    write_bytes(folder / "scenario.toml", content)


def as_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as JSON holds them: a missing value is None."""
    names = [str(name) for name in table.columns]
    columns = []
    for number in range(len(names)):
        column = table.iloc[:, number]
        pairs = zip(column.astype(object).tolist(), column.isna().tolist(), strict=True)
        columns.append([None if missing else value for value, missing in pairs])
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as Parquet."""
    buffer = io.BytesIO()
    _with_undefined_figures(table).to_parquet(buffer, index=False)
    write_bytes(path, buffer.getvalue())


def _with_undefined_figures(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with NaN in the columns that hold nothing at all.

    A figure can be undefined in every row, as the AUC inside sites is where each site has one row.
    Of None alone, Parquet would make a column of no kind.
    """
    undefined = [column for column in table.columns if table[column].isna().all()]
    return table.astype(dict.fromkeys(undefined, float)) if len(table) else table


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """Write tensors as safetensors with a note about them; return the SHA-256."""
    # The note has a single key, since safetensors writes several keys in random order.
    note = {"fedsim": json.dumps(dict(about), sort_keys=True)}
    on_cpu = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    content = save_tensors(on_cpu, note)
    write_bytes(path, content)
    return sha256(content)


def write_manifest(folder: Path, about: Mapping[str, Any]) -> None:
    """Write the manifest, with the SHA-256 of the files that are there; it is written last."""
    files = {}
    for name in (*_TABLES, "scenario.toml", "traffic.parquet", "ledger.json", "metrics.json", "model.safetensors"):
        path = folder / name
        if path.exists():
            files[name] = sha256(path.read_bytes())
    write_json(folder / "manifest.json", {**about, "files": files, "sealed": True})


def is_finished(folder: Path) -> bool:
    """Whether a run is finished, its report included.

    Raises:
        Mistake: Its manifest can't be read.
    """
    if not (folder / "manifest.json").exists():
        return False
    return not read_json(folder / "manifest.json").get("sealed") or (folder / SEAL).exists()


def load(path: str | Path, made_anew: Iterable[str] = ()) -> Run:
    """Read a finished run.

    Args:
        path: The run directory.
        made_anew: Files that are about to be made anew, whatever they hold now.

    Raises:
        Mistake: There is none, it is not finished, or a file has changed since it was written.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise Mistake(f"{path}: expected a run directory, there is none")
    if (folder / "scenario.toml").exists() and not is_finished(folder):
        raise Mistake(f"{path}: this run is not finished; go on with: fedsim resume {path}")
    if not (folder / "manifest.json").exists():
        tables = ", ".join(sorted(file.name for file in folder.glob("*.csv")))
        found = f"the directory of several trainings, with {tables}" if tables else "a directory without manifest.json"
        raise Mistake(f"{path}: expected a run directory, got {found}")
    if (folder / SEAL).exists():
        check_seal(folder, LARGEST_FILE, frozenset(made_anew))
    return read_run(folder)


def read_run(folder: Path) -> Run:
    """Read a run whose manifest is written; its report and its seal may not be.

    Raises:
        Mistake: A file is missing, or has changed since it was written.
    """
    manifest = read_json(folder / "manifest.json")
    place = folder / "manifest.json"
    check_manifest(manifest, str(place))
    _check_kind(manifest["task"], str(place))
    contents = _read_files(folder, manifest)
    missing = {*_TABLES, "scenario.toml", "ledger.json"} - set(contents)
    if missing:
        raise Mistake(f"{place}: expected the files {', '.join(sorted(missing))} in it")

    scenario = read(str(folder / "scenario.toml"), all_used=False)
    tables = {}
    for file_name in _TABLES:
        field_name = file_name.removesuffix(".parquet")
        tables[field_name] = _table(contents[file_name], folder / file_name)
        check_table(tables[field_name], field_name, manifest["task"]["kind"], str(folder / file_name))
    _check_trainings(tables, folder)
    measured = Measured()
    if "metrics.json" in contents:
        place_of_metrics = str(folder / "metrics.json")
        measured = Measured.of(parse_json(contents["metrics.json"], place_of_metrics), place_of_metrics)
        if manifest["task"]["kind"] == "binary" and measured.threshold is None:
            raise Mistake(f"{place_of_metrics}: threshold: expected the number from which on a row is called positive")
    traffic = None
    if "traffic.parquet" in contents:
        place_of_traffic = folder / "traffic.parquet"
        traffic = _table(contents["traffic.parquet"], place_of_traffic)
        check_columns(traffic, [*_TRAFFIC, *_COUNTS], _TRAFFIC, str(place_of_traffic))
    place_of_ledger = str(folder / "ledger.json")
    ledger = parse_json(contents["ledger.json"], place_of_ledger)
    check_ledger(ledger, place_of_ledger)
    return Run(
        path=folder,
        scenario=scenario,
        **tables,
        ledger=ledger,
        manifest=manifest,
        measured=measured,
        traffic=traffic,
    )


def _check_kind(task: Mapping[str, Any], place: str) -> None:
    """Make the kind of a run's outcome known, where its task brings one that is not loaded.

    Raises:
        Mistake: It is neither ready-made nor declared.
    """
    kind = task["kind"]
    declared = task.get("declared")
    if declared is not None and declared["name"] != kind:
        raise Mistake(f"{place}: task.declared.name: expected {kind!r}, got {declared['name']!r}")
    try:
        outcome_of(kind)
    except Mistake as mistake:
        if declared is None:
            raise Mistake(f"{place}: task.{mistake}") from None
        declare(remembered(declared))


def _read_files(folder: Path, manifest: dict[str, Any]) -> dict[str, bytes]:
    """Read the files of a run: {name: content}.

    Raises:
        Mistake: A file differs from its SHA-256 in the manifest, or lies outside the folder.
    """
    contents = {}
    for name, digest in manifest["files"].items():
        # A path would lead out of the run directory.
        if Path(name).name != name:
            raise Mistake(f"{folder / 'manifest.json'}: expected names of files, got {name!r}")
        contents[name] = _read(folder / name)
        if sha256(contents[name]) != digest:
            expected = f"SHA-256 {digest[:12]}..."
            changed = "the file has changed since it was made"
            raise Mistake(f"{folder / name}: expected {expected}, {changed}")
    return contents


def check_table(table: pd.DataFrame, name: str, kind: Kind, place: str) -> None:
    """Check a table that was read back.

    Args:
        table: The table.
        name: ``sites``, ``groups`` or ``rounds``.
        kind: The kind of the outcome.
        place: The file, for messages.

    Raises:
        Mistake: It does not hold what fedsim writes.
    """
    if name == "rounds" and not len(table.columns):
        return  # nothing was measured after any round
    figures = [metric.name for metric in outcome_of(kind).metrics]
    if name == "groups":
        figures = [*outcome_of(kind).sums, *(rate.name for rate in outcome_of(kind).rates)]
    counts = [] if name == "rounds" else ["rows"]
    if name != "rounds" and kind == "binary":
        counts.append("positives")
    check_columns(table, [*_KEYS[name], *counts, *figures], _KEYS[name], place)


def _check_trainings(tables: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Check that the tables of a run are about the same trainings, and that each was tested at the same sites.

    Raises:
        Mistake: They are not.
    """
    sites = _by_training(tables["sites"], "site")
    place = folder / "sites.parquet"
    if not sites:
        raise Mistake(f"{place}: expected a row for each training and site, got none")
    tested = set().union(*sites.values())
    if POOLED not in tested:
        raise Mistake(f"{place}: expected the site {POOLED} among the rows of each training")
    for training, own in sites.items():
        if own != tested:
            lacking = as_written(sorted(tested - own)[0])
            raise Mistake(
                f"{place}: expected the same sites for each training, {training_in_words(*training)} lacks {lacking}"
            )

    place = folder / "groups.parquet"
    groups = tables["groups"]
    pairs = groups.assign(of=groups["attribute"].str.cat(groups["group"], sep=": "))
    whole = _by_training(pairs[pairs["site"] == POOLED], "of")
    for training in sites:
        of_seed = set().union(*(found for other, found in whole.items() if other[2] == training[2]))
        if whole.get(training) != of_seed:
            lacking = f"{training_in_words(*training)} lacks some"
            raise Mistake(f"{place}: expected the same groups for each training of a seed, {lacking}")
    for name, found in (("groups", whole), ("rounds", _by_training(tables["rounds"]))):
        for training in found:
            if training not in sites:
                expected = "the trainings of sites.parquet"
                raise Mistake(
                    f"{folder / name}.parquet: expected {expected}, got {training_in_words(*training)} beside them"
                )


def _by_training(table: pd.DataFrame, column: str = "seed") -> dict[_Training, set[Any]]:
    """Return the values of a column for each training."""
    if table.empty:
        return {}
    trainings = zip(table["arm"], table["private"], table["seed"], strict=True)
    found: dict[_Training, set[Any]] = {}
    for training, value in zip(trainings, table[column], strict=True):
        found.setdefault(training, set()).add(value)
    return found


def _table(content: bytes, path: Path) -> pd.DataFrame:
    try:
        _check_opened_size(content, path)
        return _with_undefined_figures(pd.read_parquet(io.BytesIO(content)))
    except Mistake:
        raise
    except (ValueError, OSError) as error:  # pyarrow's own errors are either
        first_line = str(error).partition("\n")[0]
        raise Mistake(f"{path}: expected a Parquet file, got {first_line}") from None


def _check_opened_size(content: bytes, path: Path) -> None:
    """Check how large a Parquet file becomes in memory: a few bytes of it can stand for a billion equal values.

    Raises:
        Mistake: It is too large, or has columns of other kinds than runs have.
        OSError: It is no Parquet file; so is a ValueError.
    """
    file = parquet.ParquetFile(io.BytesIO(content))
    facts = file.metadata
    packed = sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups))
    _check_table_size(max(packed, _CELL * facts.num_rows * facts.num_columns), path)

    texts = []
    for column in file.schema_arrow:
        if pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type):
            texts.append(column.name)
        elif not pyarrow.types.is_primitive(column.type) and not pyarrow.types.is_null(column.type):
            raise Mistake(f"{path}: {column.name}: expected a column of text or numbers, got {column.type}")

    # Each text is read once here, however many rows have it.
    distinct = parquet.read_table(io.BytesIO(content), columns=texts, read_dictionary=texts)
    for column in distinct.columns:
        longest = 0
        for part in column.chunks:
            lengths = compute.binary_length(part.dictionary)  # type: ignore[attr-defined]  made when it is imported
            longest = max(longest, compute.max(lengths).as_py() or 0)  # type: ignore[attr-defined]
        _check_table_size(longest * facts.num_rows, path)


def _check_table_size(size: int, path: Path) -> None:
    if size > LARGEST_FILE:
        raise Mistake(f"{path}: expected a table of at most {LARGEST_FILE:,} bytes in memory, got {size:,}")


def newest() -> Path:
    """Find the finished run under ``runs/`` that was made last.

    Raises:
        Mistake: There is none.
    """
    manifests = Path("runs").glob("*/manifest.json")
    by_age = sorted(manifests, key=lambda path: path.stat().st_mtime)
    if not by_age:
        raise Mistake("expected a run directory, and there is no finished run under runs/")
    return by_age[-1].parent


def newest_interrupted() -> Path:
    """Return the run under ``runs/`` that was begun last and is not finished.

    Raises:
        Mistake: There is none.
    """
    begun = sorted(Path("runs").glob("*/scenario.toml"), key=lambda path: path.stat().st_mtime)
    interrupted = [path.parent for path in begun if _is_interrupted(path.parent)]
    if not interrupted:
        raise Mistake("expected the directory of an interrupted run, and there is none under runs/")
    return interrupted[-1]


def _is_interrupted(folder: Path) -> bool:
    """Whether a run is not finished; one whose manifest can't be read is not meant."""
    try:
        return not is_finished(folder)
    except Mistake:
        return False


def write_checkpoint(
    folder: Path,
    key: str,
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Any],
) -> None:
    """Write a finished training: its tensors first, then its values with the tensors' SHA-256."""
    folder.mkdir(exist_ok=True)
    digest_of_tensors = write_tensors(folder / f"{key}.safetensors", tensors, {"training": key})
    body = json.dumps(values, allow_nan=False)
    checkpoint = {
        "tensors": digest_of_tensors,
        "values": sha256(body.encode()),
        "body": body,
    }
    write_json(folder / f"{key}.json", checkpoint)


def read_checkpoint(folder: Path, key: str) -> tuple[Tensors, dict[str, Any]] | None:
    """Read a finished training; None if it is not there.

    Raises:
        Mistake: It has changed since it was written.
    """
    path = folder / f"{key}.json"
    if not path.exists():
        return None

    checkpoint = read_json(path)
    tensors = _read(folder / f"{key}.safetensors")
    try:
        body = str(checkpoint["body"])
        same_tensors = checkpoint["tensors"] == sha256(tensors)
        same_values = checkpoint["values"] == sha256(body.encode())
        if not same_tensors or not same_values:
            raise ValueError("its SHA-256 differs")
        return load_tensors(tensors), parse_json(body, "its values")
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        expected = "the checkpoint that was written"
        got = f"another ({error}); delete its two files to train that part again"
        raise Mistake(f"{folder / key}: expected {expected}, got {got}") from None


def _read(path: Path) -> bytes:
    try:
        return read_ordinary(path, LARGEST_FILE)
    except OSError as error:
        raise Mistake(f"{path}: {error.strerror}") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        Mistake: There is none.
    """
    return parse_json(_read(path), str(path))
