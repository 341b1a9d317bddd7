"""A whole experiment: all arms and seeds of a scenario, into a run directory."""

from __future__ import annotations

import fcntl
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from fedsim.data import loading
from fedsim.data.own_table.images.files import telling
from fedsim.data.own_table.ranges import MissingRanges, leave_template
from fedsim.data.settling import settled
from fedsim.data.task import Task
from fedsim.engines import cohort
from fedsim.experiments import begun, journal
from fedsim.experiments.given import GivenData, given_code, scenario_of
from fedsim.experiments.on_flower.ray_actors import actors_for
from fedsim.experiments.on_flower.supernodes import supernodes_for
from fedsim.experiments.outcome import write_manifest, write_results
from fedsim.experiments.progress import Progress, told
from fedsim.experiments.trainings import Failed, Finished, tell_kept, train_all
from fedsim.figures import as_written
from fedsim.flower import nodes
from fedsim.mistakes import CannotGoOn, Interrupted, Mistake, StoppedByCaller, Terminated
from fedsim.planning.checks import check
from fedsim.report import page as report
from fedsim.results import run_directory as results
from fedsim.results.evaluation import POOLED, TOGETHER
from fedsim.results.explained import table as explained
from fedsim.results.seal import seal, unseal
from fedsim.results.whole_files import open_own, remove_leftovers
from fedsim.scenario.code.held import check_elsewhere
from fedsim.scenario.files import read
from fedsim.scenario.schema import FRAME, Scenario
from fedsim.strategy.contract import Strategy
from fedsim.tracking.watch import OnRound, Watch, Watchers, names_of

UNWATCHED = Watch()
"""Nobody watches a run."""


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
    task: Task | str | None = None,
    strategy: Strategy | type | str | None = None,
    epsilon: float | str | None = None,
    progress: bool | Progress = True,
    jobs: int = 1,
    on_round: OnRound | None = None,
    track: str | Sequence[str] | None = None,
    track_to: str | Path | None = None,
    references: Sequence[str] | None = None,
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
        task: In place of the scenario's: a ``fedsim.data.task.Task``, or a name, such as ``hospital/heart`` or
            ``my_tasks.py:falls``. Without a scenario, one is made of the task and the overrides.
        strategy: In place of the scenario's: ``krum``, ``krum:f=2``, a file of your own, or ``package.module:Class``;
            or a strategy's class, or an object of one with its hyperparameters.
        epsilon: A privacy budget in place of the scenario's, or ``"none"``.
        progress: Whether to show progress on the standard error stream: a bar in a terminal or notebook, a line now
            and then elsewhere. A function in its place is called with (what is trained, rounds done, rounds in all).
        jobs: In how many processes trainings run beside each other; the result is the same for any number.
        on_round: A function that is called after each round, in this process, with a ``Round``: its ``arm``,
            ``private``, ``seed``, ``round``, ``rounds``, its ``figures`` on validation rows and its ``epsilon``. An
            error that it raises ends the run, which can be gone on with.
        track: Trackers that write each round's figures down: ``"tensorboard"``, ``["tensorboard", "mlflow"]``.
        track_to: The folder they write into; by default ``tracking`` in the run directory.
        references: Models of scikit-learn to train beside the arms, ``["linear", "boosting"]``, in place of the
            scenario's; nothing protects them. ``fedsim.load(...).references`` has their figures, and
            ``.over_references`` the differences of the arms to them.

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
    changes = [*given_code(task, strategy), *overrides]
    for key, value in (("seed", seed), ("seeds", seeds)):
        if value is not None:
            changes.append(f"{key}={value}")
    if references is not None:
        changes.append(f"references={json.dumps(list(references))}")
    budget = None if epsilon is None else str(epsilon)
    watch = Watch(names_of(track), None if track_to is None else Path(track_to), on_round)
    watch.check()
    given = GivenData(data, target, site, time, groups, ranges)
    with scenario_of(scenario, changes, budget, given) as chosen, told(progress) as report_progress:
        if out is not None and chosen.data.path == FRAME and _is_interrupted(Path(out)):
            return summary(_resume_with_frame(chosen, Path(out), report_progress, jobs, watch))
        return summary(execute(chosen, out, report_progress, jobs, watch))


def execute(
    scenario: Scenario,
    out: str | Path | None = None,
    progress: Progress | None = None,
    jobs: int = 1,
    watch: Watch = UNWATCHED,
) -> results.Run:
    """Run a scenario into a new run directory.

    Args:
        scenario: What to run.
        out: The directory to make; by default ``runs/<scenario>-<date>``.
        progress: Called with (what is trained, rounds done, rounds in all).
        jobs: In how many processes trainings run beside each other.
        watch: Who watches.

    Raises:
        Mistake: The directory is taken, or what the scenario or a tracker asks for can't be done here.
        Interrupted: It was stopped.
        CannotGoOn: A file can't be written.
        Exception: A function that watches raised it.
    """
    _check_jobs(jobs, scenario)
    watch.check()
    with telling(progress):
        scenario = _settled(scenario)
    check(scenario)
    folder = new_folder(scenario.name, out)
    with _callers_own_errors(folder), lock(folder), end_told(folder):
        begun.write(folder, scenario)
        results.write_scenario(folder, scenario)
        return _complete(folder, scenario, progress, jobs, watch)


@contextmanager
def _callers_own_errors(folder: Path) -> Iterator[None]:
    """Raise the error of a function of the caller's that watches as it was, with a note of how to go on.

    Raises:
        Exception: The error.
    """
    try:
        yield
    except StoppedByCaller as stop:
        error = stop.error
    else:
        return
    error.add_note(f"on_round raised this; the run can go on with: fedsim resume {folder}")
    raise error


def _check_jobs(jobs: object, scenario: Scenario) -> None:
    """Make sure that trainings can be run in so many processes.

    Raises:
        Mistake: It is no number, or the engine has processes of its own.
    """
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise Mistake(f"jobs: expected a whole number >= 1, got {as_written(jobs)}")
    if jobs > 1 and scenario.has_nodes:
        raise Mistake(f"jobs: expected 1 with engine = {scenario.engine!r}, which has processes of its own, got {jobs}")
    check_elsewhere(scenario.own_code, jobs)


def _settled(scenario: Scenario) -> Scenario:
    try:
        return settled(scenario)
    except MissingRanges as missing:
        raise Mistake(f"{missing}\n{leave_template(missing)}") from None


def _is_interrupted(folder: Path) -> bool:
    return (folder / "scenario.toml").is_file() and not results.is_finished(folder)


def _resume_with_frame(
    scenario: Scenario, folder: Path, progress: Progress | None, jobs: int, watch: Watch
) -> results.Run:
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
    return resume(folder, progress, jobs=jobs, watch=watch)


def resume(
    path: str | Path,
    progress: Progress | None = None,
    force: bool = False,
    jobs: int = 1,
    watch: Watch = UNWATCHED,
) -> results.Run:
    """Go on with an interrupted run: what was finished is not run again, and what failed is tried again.

    Args:
        path: The run directory.
        progress: Called with (what is trained, rounds done, rounds in all).
        force: Whether to go on also under other circumstances than it was begun under, such as other versions; that
            is written down.
        jobs: In how many processes trainings run beside each other.
        watch: Who watches. Trackers are told of all rounds, also of those that were run before; of a run that is
            finished as well.

    Raises:
        Mistake: There is nothing to go on with, or someone else is at it, or the circumstances are others.
        Interrupted: It was stopped.
        CannotGoOn: A file can't be read or written.
        Exception: A function that watches raised it.
    """
    watch.check()
    folder = Path(path)
    if not (folder / "scenario.toml").is_file():
        raise Mistake(f"{path}: expected an interrupted run, there is no scenario.toml")
    with _callers_own_errors(folder), lock(folder), end_told(folder):
        if results.is_finished(folder):
            run = results.load(folder)
            if not run.failed:
                _tell_afterwards(run, watch)
                return run
        scenario = read(str(folder / "scenario.toml"), all_used=False)
        _check_jobs(jobs, scenario)
        begun.check(folder, scenario, force)
        loading.check_digest(scenario.data)
        with telling(progress):  # images are read again
            loading.task_of(scenario)
            if loading.has_digest_of_rows(scenario):
                loading.rows_of(scenario)
        return _complete(folder, scenario, progress, jobs, watch)


def _tell_afterwards(run: results.Run, watch: Watch) -> None:
    """Tell trackers of a run that was finished before."""
    if not watch.track:
        return
    with watch.begun(run.path, run.scenario.name, run.scenario.values()) as watchers:
        if watchers is not None:
            tell_kept(run.path, run.scenario, watchers)
            watchers.finish(run.path / report.FILE)


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


def _complete(folder: Path, scenario: Scenario, progress: Progress | None, jobs: int, watch: Watch) -> results.Run:
    """Run what is not yet finished, then write the results."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the number of threads changes the order of sums, so the last bits
    try:
        with (
            cohort.cut_for(begun.cores_of(folder)),
            _nodes_for(scenario),
            watch.begun(folder, scenario.name, scenario.values()) as watchers,
        ):
            run = _train_and_write(folder, scenario, progress, jobs, watchers)
            if watchers is not None:
                watchers.finish(run.path / report.FILE)
            return run
    finally:
        torch.set_num_threads(threads)


def _nodes_for(scenario: Scenario) -> AbstractContextManager[None]:
    """Return what has the nodes at hand that the engine shares sites out among, if it does and they aren't yet."""
    if nodes.are_at_hand():
        return nullcontext()
    if scenario.engine == "ray":
        return actors_for(scenario)
    return supernodes_for(scenario) if scenario.engine == "superlink" else nullcontext()


@contextmanager
def end_told(folder: Path) -> Iterator[None]:
    """Tell of the directory in which the run can go on, once it has its scenario.

    Raises:
        Interrupted: It was stopped.
        CannotGoOn: A file can't be read or written.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        if not (folder / "scenario.toml").exists():
            raise
        raise Interrupted(folder, isinstance(stop, Terminated)) from None
    except OSError as error:
        if not (folder / "scenario.toml").exists():
            raise
        raise CannotGoOn(folder, error) from error


def _train_and_write(
    folder: Path, scenario: Scenario, progress: Progress | None, jobs: int, watchers: Watchers | None
) -> results.Run:
    started = datetime.now(UTC)
    clock = time.perf_counter()
    checkpoints = folder / "checkpoints"
    if checkpoints.is_symlink() or (checkpoints.exists() and not checkpoints.is_dir()):
        raise Mistake(f"{checkpoints}: expected a folder, got a link or a file")
    for written in (folder, checkpoints):
        remove_leftovers(written)

    def tell(what: str) -> None:
        if progress:
            progress(what, 1, 1)

    with journal.kept_in(folder) as noted:
        finished, failed = train_all(folder, scenario, progress, jobs, watchers, noted)
        times = {"started": started.isoformat(timespec="seconds"), "seconds": round(time.perf_counter() - clock, 3)}
        return write_all(folder, scenario, finished, failed, times, tell)


def write_all(
    folder: Path,
    scenario: Scenario,
    finished: list[Finished],
    failed: Sequence[Failed],
    times: Mapping[str, Any],
    tell: Callable[[str], None] | None = None,
) -> results.Run:
    """Write all that a run leaves, its report and its seal included; return the run.

    Args:
        folder: The run directory.
        scenario: The scenario.
        finished: The trainings that are finished.
        failed: Those that failed.
        times: When the run was started, and how many seconds it took.
        tell: Is told which reference is being trained, where there are some.
    """
    unseal(folder)  # of a run whose failed trainings were tried again
    for stale in (explained.FILE, explained.PICTURE):  # they lack the trainings that failed
        (folder / stale).unlink(missing_ok=True)
    write_results(folder, scenario, finished, tell)
    write_manifest(folder, scenario, finished, failed, times)
    run = results.read_run(folder)
    report.write(run)
    seal(folder)
    return run


def _belongs_to_somebody(path: Path) -> bool:
    """Whether a file is more than what a run leaves that was killed before it began."""
    return not path.name.startswith(".") and path.name != begun.NAME


def new_folder(name: str, out: str | Path | None) -> Path:
    """Make a run directory: the one that is asked for, or a new one under ``runs/``.

    Raises:
        Mistake: It is taken.
    """
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
            if not folder.is_dir() or any(map(_belongs_to_somebody, folder.iterdir())):
                raise Mistake(f"--out: expected a new or empty directory, {out} is taken") from None
        return folder
    raise AssertionError("itertools.count ended")


@contextmanager
def lock(folder: Path) -> Iterator[None]:
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
