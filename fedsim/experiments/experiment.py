"""A whole experiment: all arms and seeds of a scenario, into a run directory."""

from __future__ import annotations

import fcntl
import itertools
import json
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from fedsim.data import loading
from fedsim.data.own_table.image_files import telling
from fedsim.data.own_table.ranges import MissingRanges, leave_template
from fedsim.data.scale import Scale
from fedsim.data.settling import settled
from fedsim.experiments.arms import Job, Shared, Trained, jobs, run_job
from fedsim.experiments.given import GivenData, scenario_of
from fedsim.experiments.progress import Progress, shown
from fedsim.experiments.under_way import UnderWay
from fedsim.mistakes import Interrupted, Mistake
from fedsim.planning.checks import check
from fedsim.planning.trial import Trial, without_noise
from fedsim.privacy.accounting import ACCOUNTANT
from fedsim.privacy.unit import Protected
from fedsim.privacy.units import unit_of
from fedsim.report import page as report
from fedsim.report.statement import random_of
from fedsim.results import run_directory as results
from fedsim.results.base_rates import base_rates
from fedsim.results.coefficients import coefficients
from fedsim.results.digests import sha256
from fedsim.results.evaluation import POOLED, TOGETHER
from fedsim.results.whole_files import open_own
from fedsim.scenario import catalog
from fedsim.scenario.files import read, with_strategy
from fedsim.scenario.schema import FRAME, Evaluation, Scenario
from fedsim.training.model import best_device

_DISTRIBUTIONS = ("fedsim-flower", "torch", "flwr", "opacus", "dp-accounting", "numpy", "pandas")


def run(
    scenario: str | Path | None = None,
    *overrides: str,
    data: pd.DataFrame | str | Path | None = None,
    target: str | None = None,
    site: str | None = None,
    time: str | None = None,
    groups: Sequence[str] | None = None,
    ranges: str | Path | Mapping[str, Any] | None = None,
    seed: int | None = None,
    seeds: int | None = None,
    out: str | Path | None = None,
    strategy: str | None = None,
    epsilon: float | str | None = None,
    progress: bool | Progress = True,
) -> pd.DataFrame:
    """Run a scenario and return the comparison of its arms.

    Args:
        scenario: The name of a scenario that comes with fedsim, the path of a TOML file, or None for a table of one's
            own.
        overrides: ``"key=value"`` strings, e.g. ``"privacy.epsilon=2"``.
        data: A table of one's own: a pandas frame, or the path of a CSV or Parquet file. A frame is read as its Parquet
            file would be, and not changed. Its rows are written nowhere.
        target: The column with the outcome.
        site: The column that names each row's site.
        time: The column with the moment of each row, if rows are split by time.
        groups: Columns to compare beside the sites, e.g. ``["sex"]``.
        ranges: The public ranges of the columns: the path of a TOML file, ``"from-data"``, or a dictionary such as
            ``{"age": [0, 120, "years"], "sex": ["female", "male"], "patient": "leave out"}``.
        seed: The first seed, in place of the scenario's.
        seeds: How many seeds, in place of the scenario's.
        out: The run directory to make; by default ``runs/<scenario>-<date>``. An interrupted run of a frame goes on
            if this is its directory, and frame and settings are the same.
        strategy: In place of the scenario's: ``krum``, ``krum:f=2``, a file of your own, or ``package.module:Class``.
        epsilon: A privacy budget in place of the scenario's, or ``"none"``.
        progress: Whether to show progress on the standard error stream: a bar in a terminal or notebook, a line now
            and then elsewhere. A function in its place is called with (what is trained, rounds done, rounds in all).

    Returns:
        A row for each arm, private and metric with ``mean, low, high`` and the paired differences to the centralized
        and to the local arm, all as ``fedsim.results.comparison.compare`` returns them. ``over`` says of what:
        ``(inside sites)``, where each row is compared with rows of its own site only. The pooled figure, with the rows
        of all sites in one pot, comes second: ``pooled_mean, pooled_low, pooled_high``. Last comes each site's mean, in
        a column of the site's name (for a site that is called ``mean``, ``site mean``).
        ``frame.attrs["run_dir"]`` has the run directory, which ``fedsim.load`` reads.

    Raises:
        Mistake: The scenario or the table is wrong, or the run directory is taken.
    """
    changes = list(overrides)
    if strategy is not None:
        changes.insert(0, with_strategy(strategy))
    for key, value in (("seed", seed), ("seeds", seeds)):
        if value is not None:
            changes.append(f"{key}={value}")
    budget = None if epsilon is None else str(epsilon)
    given = GivenData(data, target, site, time, groups, ranges)
    with scenario_of(scenario, changes, budget, given) as chosen, shown(bool(progress)) as show:
        report_progress = progress if callable(progress) else show
        if out is not None and chosen.data.path == FRAME and _is_interrupted(Path(out)):
            return summary(_resume_with_frame(chosen, Path(out), report_progress))
        return summary(execute(chosen, out, report_progress))


def execute(scenario: Scenario, out: str | Path | None = None, progress: Progress | None = None) -> results.Run:
    """Run a scenario into a new run directory.

    Args:
        scenario: What to run.
        out: The directory to make; by default ``runs/<scenario>-<date>``.
        progress: Called with (what is trained, rounds done, rounds in all).

    Raises:
        Mistake: The directory is taken, or what the scenario asks for can't be done here.
    """
    with telling(progress):
        scenario = _settled(scenario)
    check(scenario)
    folder = _new_folder(scenario.name, out)
    with _lock(folder):
        results.write_scenario(folder, scenario)
        return _complete(folder, scenario, progress)


def _settled(scenario: Scenario) -> Scenario:
    try:
        return settled(scenario)
    except MissingRanges as missing:
        raise Mistake(f"{missing}\n{leave_template(missing)}") from None


def _is_interrupted(folder: Path) -> bool:
    return (folder / "scenario.toml").is_file() and not (folder / "manifest.json").exists()


def _resume_with_frame(scenario: Scenario, folder: Path, progress: Progress | None) -> results.Run:
    """Go on with an interrupted run of a frame that is given once more.

    Raises:
        Mistake: The run was begun with another table or other settings.
    """
    begun = read(str(folder / "scenario.toml"), all_used=False)
    if begun.data.sha256 != scenario.data.sha256:
        raise Mistake(f"{folder}: expected the frame that the interrupted run in it was begun with, got another; "
                      "choose another directory for a new run")  # fmt: skip
    now = _settled(scenario).values()
    others = [key for key, value in begun.values().items() if now.get(key) != value]
    others += [key for key in now if key not in begun.values()]
    if others:
        raise Mistake(f"{folder}: expected the settings that the interrupted run in it was begun with, got others of "
                      f"{', '.join(others)}; choose another directory for a new run")  # fmt: skip
    return resume(folder, progress)


def resume(path: str | Path, progress: Progress | None = None) -> results.Run:
    """Go on with an interrupted run: trainings that were finished are not run again.

    Raises:
        Mistake: There is nothing to go on with, or someone else is at it.
    """
    folder = Path(path)
    if not (folder / "scenario.toml").is_file():
        raise Mistake(f"{path}: expected an interrupted run, there is no scenario.toml")
    with _lock(folder):
        if (folder / "manifest.json").exists():
            return results.load(folder)
        scenario = read(str(folder / "scenario.toml"), all_used=False)
        loading.check_digest(scenario.data)
        with telling(progress):  # images are read again
            loading.task_of(scenario)
        return _complete(folder, scenario, progress)


def summary(run: results.Run) -> pd.DataFrame:
    """Return the arms of a run: figures inside sites, then pooled ones, then a column for each site's mean."""
    compared = run.comparison
    keys = ["private", "arm", "metric"]
    table = compared[compared["site"] == run.headline].rename(columns={"site": "over"})

    ends = {"mean": "pooled_mean", "low": "pooled_low", "high": "pooled_high"}
    pooled = compared[compared["site"] == POOLED].rename(columns=ends)
    table = table.merge(pooled[[*keys, *ends.values()]], on=keys)

    at_sites = compared[~compared["site"].isin(TOGETHER)]
    sites = at_sites.pivot_table(index=keys, columns="site", values="mean", dropna=False)
    sites.columns = _columns_of(list(map(str, sites.columns)), set(map(str, table.columns)))
    table = table.merge(sites.reset_index(), on=keys)
    table.attrs["run_dir"] = str(run.path)
    return table


def _columns_of(sites: list[str], others: set[str]) -> list[str]:
    """Return a column for each site: its name, with ``site`` before it if another column is called the same."""
    columns = []
    for site in sites:
        column = site
        if site in others:
            while column in others or column in sites:
                column = f"site {column}"
        columns.append(column)
    return columns


def _complete(folder: Path, scenario: Scenario, progress: Progress | None) -> results.Run:
    """Run what is not yet finished, then write the results."""
    started, clock = datetime.now(UTC), time.perf_counter()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the number of threads changes the order of sums, so the last bits
    try:
        finished = _train_all(folder, scenario, progress)
    except KeyboardInterrupt:
        raise Interrupted(folder) from None
    finally:
        torch.set_num_threads(threads)
    _write_results(folder, scenario, finished)
    seconds = {job.key: values["seconds"] for job, _, values in finished}
    results.write_manifest(
        folder,
        {
            "task": _about_task(scenario),
            "data": intake.as_json() if (intake := loading.intake_of(scenario)) else None,
            "versions": {name: version(name) for name in _DISTRIBUTIONS} | {"python": platform.python_version()},
            "git": _git_revision(),
            "device": best_device(scenario.device),
            "threads": 1,
            "rng": _random(finished),
            "seeds": scenario.all_seeds,
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - clock, 3),
            "seconds_per_training": seconds,
            "notes": [{**_names(job), "note": note} for job, _, values in finished for note in values["notes"]],
        },
    )
    run = results.load(folder)
    report.write(run)
    return run


_Finished = tuple[Job, results.Tensors, dict[str, Any]]


def _train_all(folder: Path, scenario: Scenario, progress: Progress | None) -> list[_Finished]:
    todo = jobs(scenario)
    same = sha256(scenario.model_dump_json(exclude=_left_out_of_hash(scenario)).encode())
    same += catalog.code_hash(scenario.strategy.name)  # a file that was changed is another strategy
    total = len(todo) * scenario.training.rounds
    finished = []
    for index, job in enumerate(todo):
        done_before = index * scenario.training.rounds
        label = f"{job.arm}{', private' if job.private else ''}, seed {job.seed}"

        def observe(number: int, done_before: int = done_before, label: str = label) -> None:
            if progress:
                progress(label, done_before + number, total)

        kept = results.read_checkpoint(folder / "checkpoints", job.key)
        if kept and kept[1]["scenario"] != same:
            raise Mistake(f"{folder}: scenario.toml is not the one that this run was begun with")
        if kept is None:
            repeatable = not (job.private and scenario.privacy.rng == "secure")
            device = best_device(scenario.device)
            under_way = UnderWay(folder / "checkpoints", job.key, same, scenario.checkpoints, repeatable, device)
            clock = time.perf_counter()
            trained = run_job(scenario, job, observe, under_way)
            kept = _tensors(trained), _values(trained, time.perf_counter() - clock) | {"scenario": same}
            results.write_checkpoint(folder / "checkpoints", job.key, *kept)
            under_way.forget()
        finished.append((job, _with_todays_names(folder, *kept), kept[1]))
    return finished


def _left_out_of_hash(scenario: Scenario) -> dict[str, Any]:
    """Return the keys that don't tell whether a checkpoint is of this scenario."""
    keys: dict[str, Any] = dict.fromkeys(("seed", "seeds", "arms", "checkpoints"), True)
    if scenario.evaluation == Evaluation():
        keys["evaluation"] = True  # checkpoints of versions without this section are still good
    of_images = ("layout", "image", "image_size", "channels", "classes")
    keys["data"] = {key for key in of_images if getattr(scenario.data, key) is None}  # and without these keys
    return keys


def _random(finished: list[_Finished]) -> str | None:
    """Return the kind of the private trainings' randomness, as it was reported with what they released."""
    ledgers = [values["ledger"] for _, _, values in finished if values["ledger"]]
    return random_of(ledgers) if ledgers else None


_OF_ALL = "global/"  # before the names of the shared model's parameters


def _tensors(trained: Trained) -> results.Tensors:
    """Return all parameters by names that tell the model that all sites share from a site's, whatever it is called."""
    tensors = {}
    for model, held in trained.models.items():
        place = _OF_ALL if isinstance(model, Shared) else _of_site(model)
        tensors |= {f"{place}{name}": value for name, value in held.items()}
    return tensors


def _of_site(site: str) -> str:
    """Return what stands before the names of a site's parameters: no slash of its own name ends it too early."""
    escaped = site.replace("%", "%25").replace("/", "%2F")
    return f"site/{escaped}/"


def _with_todays_names(folder: Path, tensors: results.Tensors, values: dict[str, Any]) -> results.Tensors:
    """Return the tensors of a checkpoint; of an older version's, a site's parameters began with its bare name.

    Raises:
        Mistake: In an older version's, a site's model can't be told from the one that all sites share.
    """
    if "tensor_names" in values:
        return tensors
    sites = {row["site"] for row in values["scores"]} - {POOLED}
    renamed = {}
    for name, value in tensors.items():
        owners = [site for site in sites if name.startswith(f"{site}/")]
        if len(owners) + name.startswith(_OF_ALL) != 1:
            raise Mistake(f"{folder}: expected checkpoints of this version, got an older one's, in which {name} may be "
                          "of more than one model; run the scenario into a new directory")  # fmt: skip
        renamed[_of_site(owners[0]) + name.removeprefix(f"{owners[0]}/") if owners else name] = value
    return renamed


def _values(trained: Trained, seconds: float) -> dict[str, Any]:
    return {
        "scores": results.as_rows(trained.scores),
        "groups": results.as_rows(trained.groups),
        "calibration": results.as_rows(trained.calibration),
        "confusion": results.as_rows(trained.confusion),
        "curve": results.as_rows(trained.curve),
        "ledger": trained.ledger.as_json() if trained.ledger else None,
        "notes": trained.notes,
        "seconds": round(seconds, 3),
        "tensor_names": "global/ or site/",
    }


def _write_results(folder: Path, scenario: Scenario, finished: list[_Finished]) -> None:
    def table(key: str) -> pd.DataFrame:
        return pd.DataFrame(rows_of(key))

    def rows_of(key: str) -> list[dict[str, Any]]:
        # Checkpoints of older versions lack some tables.
        return [{**_names(job), **row} for job, _, values in finished for row in values.get(key, [])]

    results.write_table(folder / "sites.parquet", table("scores"))
    results.write_table(folder / "groups.parquet", table("groups"))
    results.write_table(folder / "rounds.parquet", table("curve"))
    privacy = scenario.privacy
    trainings = [{**_names(job), **values["ledger"]} for job, _, values in finished if values["ledger"]]
    results.write_json(
        folder / "ledger.json",
        {
            "unit": privacy.unit,
            "neighbours": privacy.relation,
            "delta": privacy.delta,
            "budget": privacy.epsilon,
            "accountant": ACCOUNTANT,
            "tuning": privacy.tuning.model_dump(),
            "ranges_fitted": intake.ranges_fitted if (intake := loading.intake_of(scenario)) else False,
            "trainings": trainings,
        },
    )
    results.write_json(
        folder / "metrics.json",
        {
            "threshold": scenario.evaluation.threshold if loading.task_of(scenario).kind == "binary" else None,
            "base_rates": _base_rates(scenario),
            "calibration": rows_of("calibration"),
            "confusion": rows_of("confusion"),
            "coefficients": _coefficients(scenario, finished),
        },
    )
    product = _product(scenario)
    for job, tensors, _ in finished:
        if job == product:
            # Where whole sites are protected, the models that sites keep are not private, and left out.
            whole = unit_of(scenario.privacy.unit).protects is Protected.SITE
            plain = {
                name.removeprefix(_OF_ALL): value
                for name, value in tensors.items()
                if not whole or name.startswith(_OF_ALL)
            }
            about = {"task": scenario.task or loading.task_of(scenario).title, "training": job.key}
            if scale := _scale(scenario, job):
                about["scale"] = json.dumps(scale.as_json())
            results.write_tensors(folder / "model.safetensors", plain, about)


def _product(scenario: Scenario) -> Job:
    """Return the training whose model is handed on: the federated one of the first seed."""
    return Job("federated", scenario.private, scenario.seed)


def _base_rates(scenario: Scenario) -> list[dict[str, Any]]:
    """Return the base rates of every seed: what always giving the same answer would score."""
    rows = []
    for seed in scenario.all_seeds:
        trial = Trial(scenario, seed, scenario.arms[0])
        table = base_rates(trial.federation, trial.task.kind, trial.task.range)
        rows += results.as_rows(table.assign(seed=seed))
    return rows


def _coefficients(scenario: Scenario, finished: list[_Finished]) -> list[dict[str, Any]]:
    """Return the coefficients of the model that is handed on, if it is linear and its inputs have names."""
    product = _product(scenario)
    for job, tensors, _ in finished:
        if job != product:
            continue
        trial = Trial(scenario, job.seed, job.arm)
        shared = {name.removeprefix(_OF_ALL): value for name, value in tensors.items() if name.startswith(_OF_ALL)}
        table = coefficients(trial.untried_model, shared, trial.task, _scale(scenario, job))
        return results.as_rows(table.assign(private=job.private)) if len(table) else []
    return []


def _scale(scenario: Scenario, job: Job) -> Scale | None:
    """Return the scale of a model's inputs and outputs; None where they are those of the public ranges."""
    if loading.task_of(scenario).load is None:
        return None  # sites that are made up have no scale of their own
    trial = Trial(scenario if job.private else without_noise(scenario), job.seed, job.arm)
    return trial.federation.scale


def _about_task(scenario: Scenario) -> dict[str, Any]:
    """Return what a report says of the task, so that a run directory can be read without it."""
    task = loading.task_of(scenario)
    facts = ("title", "outcome", "source", "licence", "kind", "by_time")
    unit = task.range.unit if task.range else ""
    return {"name": scenario.task, "unit": unit, **{fact: getattr(task, fact) for fact in facts}}


def _names(job: Job) -> dict[str, Any]:
    return {"arm": job.arm, "private": job.private, "seed": job.seed}


def _new_folder(name: str, out: str | Path | None) -> Path:
    if out is None:
        stem = Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
        tries = itertools.chain([stem], (stem.with_name(f"{stem.name}-{n}") for n in itertools.count(2)))
    else:
        tries = iter([Path(out)])
    for folder in tries:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if out is None:
                continue
            if not folder.is_dir() or any(folder.iterdir()):
                raise Mistake(f"--out: expected a new or empty directory, {out} is taken") from None
        return folder
    raise AssertionError("itertools.count ended")


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run directory."""
    try:
        opened = open_own(folder / ".lock")
    except OSError as error:
        raise Mistake(f"{folder / '.lock'}: expected a file that can be written, got {error.strerror}") from None
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Mistake(f"{folder}: another process is at work in this run directory") from None
        yield


def _git_revision() -> str | None:
    """Return the revision of the checkout fedsim runs from, if it does."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
