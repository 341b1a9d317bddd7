"""All trainings of a run, one after another or in several processes.

Each is kept when it is finished, and one that fails ends no other.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fedsim.data import loading
from fedsim.experiments.arms import Job, Shared, Trained, run_job
from fedsim.experiments.arms import jobs as jobs_of
from fedsim.experiments.journal import Journal
from fedsim.experiments.processes import run_all
from fedsim.experiments.progress import Progress
from fedsim.experiments.under_way import UnderWay
from fedsim.experiments.watched import told_afterwards
from fedsim.mistakes import STOPS, Mistake, RunFailed, said_by
from fedsim.outcomes import outcome_of
from fedsim.planning.time_limit import limited, paused
from fedsim.results import run_directory as results
from fedsim.results.contents import check_finished
from fedsim.results.digests import sha256
from fedsim.results.evaluation import POOLED
from fedsim.results.measured import Measured
from fedsim.scenario import catalog
from fedsim.scenario.schema import Evaluation, Ray, Scenario, SuperLink
from fedsim.tracking.contract import Ended, Round, Training
from fedsim.tracking.watch import Watchers
from fedsim.training.model import best_device

_TABLES = {"sites": "scores", "groups": "groups", "rounds": "curve"}
"""{table of a run: its rows in a checkpoint}."""

_log = logging.getLogger(__name__)

Kept = tuple[results.Tensors, dict[str, Any]]
"""What was kept of a training that is finished: its tensors, and all else as JSON has it."""

OF_ALL = "global/"
"""What stands before the names of the shared model's parameters."""


@dataclass(frozen=True)
class Finished:
    """A training that is finished.

    Attributes:
        job: Which one.
        tensors: The parameters of its models.
        values: All else, as JSON has it.
    """

    job: Job
    tensors: results.Tensors
    values: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """A training that failed.

    Attributes:
        job: Which one.
        reason: Why, in a line or some.
        is_mistake: Whether it is the user's mistake.
    """

    job: Job
    reason: str
    is_mistake: bool


def train_all(
    folder: Path,
    scenario: Scenario,
    progress: Progress | None,
    jobs: int = 1,
    watchers: Watchers | None = None,
    journal: Journal | None = None,
) -> tuple[list[Finished], list[Failed]]:
    """Run the trainings of a run that are not yet finished; return all that are, and those that failed.

    Args:
        folder: The run directory.
        scenario: The scenario.
        progress: Called with (what is trained, rounds done, rounds in all).
        jobs: In how many processes trainings run beside each other.
        watchers: Who is told of rounds and ends, in this process; None if nobody watches.
        journal: Where rounds and ends are noted for other processes; None for nowhere.

    Raises:
        Mistake: What is in the directory is of another scenario, or was changed; or no training is finished, and one
            failed by the user's mistake.
        RunFailed: No training is finished.
        OSError: Something can't be written.
        StoppedByCaller: A function of the caller's that watches raised an error.
    """
    todo = jobs_of(scenario)
    same = _name_of_same(scenario)
    checkpoints = folder / "checkpoints"
    kept = {job: _kept(checkpoints, scenario, job, same) for job in todo}
    left = [job for job in todo if kept[job] is None]
    told = _Told(folder, scenario, same, progress, watchers, journal)
    told.begin(kept)

    def lost(number: int, how: str) -> Failed:
        failed = _failed(left[number], RunFailed(how))
        told.end(left[number], failed)
        return failed

    attempts = [_Attempt(folder, scenario, job, same, watchers is not None) for job in left]
    outcomes = run_all(attempts, jobs, lambda number, what: told(left[number], what), lost)
    failed: list[Failed] = [one for one in outcomes if one is not None]
    failed_jobs = {one.job for one in failed}
    finished = []
    for job in todo:
        if job in failed_jobs:
            continue
        found = kept[job] or _kept(checkpoints, scenario, job, same)
        if found is None:
            raise Mistake(f"{checkpoints / job.key}.json: expected the training that was just finished, it is gone")
        finished.append(Finished(job, with_todays_names(folder, *found), found[1]))
    _check_some_finished(finished, failed)
    return finished, failed


def finished_of(folder: Path, scenario: Scenario) -> list[Finished]:
    """Return the trainings of a run that are finished, without running any.

    Raises:
        Mistake: One is not what was written.
    """
    same = _name_of_same(scenario)
    finished = []
    for job in jobs_of(scenario):
        found = _kept(folder / "checkpoints", scenario, job, same)
        if found is not None:
            finished.append(Finished(job, with_todays_names(folder, *found), found[1]))
    return finished


def models_of(finished: Finished, sites: Sequence[str]) -> dict[str, results.Tensors]:
    """Return {site: the parameters of the model that it uses} of a finished training."""
    shared = _parameters(finished, OF_ALL)
    return {site: _parameters(finished, of_site(site)) or shared for site in sites}


def _parameters(finished: Finished, prefix: str) -> results.Tensors:
    return {name.removeprefix(prefix): value for name, value in finished.tensors.items() if name.startswith(prefix)}


class _Told:
    """Tells progress of all trainings together, and those who watch of each round and end.

    Args:
        folder: The run directory.
        scenario: The scenario.
        same: What tells it from others.
        progress: See ``train_all``.
        watchers: Likewise.
        journal: Likewise.
    """

    def __init__(
        self,
        folder: Path,
        scenario: Scenario,
        same: str,
        progress: Progress | None,
        watchers: Watchers | None,
        journal: Journal | None,
    ) -> None:
        self._checkpoints = folder / "checkpoints"
        self._scenario = scenario
        self._same = same
        self._progress = progress
        self._watchers = watchers
        self._journal = journal
        self._metric = outcome_of(loading.task_of(scenario).kind).metrics[0].name
        self._figures: dict[Job, float | None] = {}  # after the round that is about to be told of
        self._rounds_done: dict[Job, int] = {}

    def begin(self, kept: Mapping[Job, Kept | None]) -> None:
        """Tell of the trainings that are finished."""
        rounds = self._scenario.training.rounds
        for job, found in kept.items():
            self._rounds_done[job] = 0 if found is None else rounds
            if found is not None and self._watchers:
                _tell_end(self._watchers, self._scenario, job, found[1])
        if self._journal:
            done = {job.key: number for job, number in self._rounds_done.items()}
            self._journal.begin(rounds, self._metric, done)
            for job, found in kept.items():
                for row in found[1]["curve"] if found else ():
                    self._journal.round(job.key, row["round"], row[self._metric])

    def __call__(self, job: Job, told: "int | Round | _Measured | _Over") -> None:
        """Hand on what an attempt at a training tells."""
        if isinstance(told, Round):
            if self._watchers:
                self._watchers.round(told)
        elif isinstance(told, _Measured):
            self._figures[job] = told.figures.get(self._metric)
        elif isinstance(told, _Over):
            self.end(job, told.failed)
        else:
            self._rounds_done[job] = told
            if self._journal:
                self._journal.round(job.key, told, self._figures.pop(job, None))
            if self._progress:
                total = len(self._rounds_done) * self._scenario.training.rounds
                self._progress(label_of(job), sum(self._rounds_done.values()), total)

    def end(self, job: Job, failed: Failed | None) -> None:
        """Tell of the end of a training."""
        if self._journal:
            self._journal.over(job.key, failed.reason if failed else None)
        if not (self._watchers and self._watchers.tracks):
            return
        if failed is not None:
            self._watchers.over(_named(job), (), Ended({}, 0, None, failed=failed.reason))
            return
        found = _kept(self._checkpoints, self._scenario, job, self._same)
        if found is not None:
            _tell_end(self._watchers, self._scenario, job, found[1])


def tell_kept(folder: Path, scenario: Scenario, watchers: Watchers) -> None:
    """Tell of the trainings of a finished run.

    Raises:
        Mistake: One is gone, or was changed.
    """
    checkpoints = folder / "checkpoints"
    same = _name_of_same(scenario)
    for job in jobs_of(scenario):
        found = _kept(checkpoints, scenario, job, same)
        if found is None:
            raise Mistake(f"{checkpoints / job.key}.json: expected a training of this run, it is gone")
        _tell_end(watchers, scenario, job, found[1])


def _tell_end(watchers: Watchers, scenario: Scenario, job: Job, values: Mapping[str, Any]) -> None:
    """Tell of all rounds of a finished training that were not told of, and of its end, from its checkpoint."""
    if watchers.tracks:
        kind = loading.task_of(scenario).kind
        watchers.over(_named(job), *told_afterwards(scenario, _named(job), kind, values))


def _named(job: Job) -> Training:
    return Training(job.arm, job.private, job.seed)


@dataclass(frozen=True)
class _Measured:
    """Tells of the validation metrics after a round, {metric: value}, ahead of its number."""

    figures: Mapping[str, Any]


@dataclass(frozen=True)
class _Over:
    """Tells that an attempt is over: why it failed, if it did."""

    failed: Failed | None


@dataclass(frozen=True)
class _Attempt:
    """One training of a run, to be tried; what comes of it is kept in files."""

    folder: Path
    scenario: Scenario
    job: Job
    same: str
    watched: bool

    def __call__(self, tell: Callable[[Any], None]) -> Failed | None:
        told = 0

        def note(number: int) -> None:
            nonlocal told
            told = number
            tell(number)

        try:
            watch = tell if self.watched else None
            _train(self.folder, self.scenario, self.job, self.same, note, watch, lambda point: tell(_Measured(point)))
        except (OSError, *STOPS):
            raise  # a fault of the disk would meet whoever comes next, too
        except BaseException as error:
            failed = _failed(self.job, error)
        else:
            failed = None
        # It may have ended before its last round, or have gone on after it: either way nothing of it is left to do.
        if told < self.scenario.training.rounds:
            tell(self.scenario.training.rounds)
        tell(_Over(failed))
        return failed


def _kept(folder: Path, scenario: Scenario, job: Job, same: str) -> Kept | None:
    """Return what came of a training that is finished; None if it is not.

    Raises:
        Mistake: It is not what was written, or not what fedsim writes.
    """
    kept = results.read_checkpoint(folder, job.key)
    if kept is None:
        return None
    place = str(folder / f"{job.key}.json")
    kind = loading.task_of(scenario).kind
    values = kept[1]
    try:
        check_finished(values, place)
        names = names_of(job)
        for table, key in _TABLES.items():
            rows = [{**names, **row} for row in values.get(key, [])]
            results.check_table(pd.DataFrame(rows), table, kind, f"{place}: {key}")
        measured = {key: [{**names, **row} for row in values.get(key, [])] for key in ("calibration", "confusion")}
        Measured.of(measured, place)
    except Mistake as error:
        raise Mistake(f"{error}; delete its two files to train that part again") from None
    if values["scenario"] != same:
        raise Mistake(f"{folder.parent}: scenario.toml is not the one that this run was begun with")
    return kept


def names_of(job: Job) -> dict[str, Any]:
    """Return what tells a training's rows from those of others: {column: value}."""
    return {"arm": job.arm, "private": job.private, "seed": job.seed}


def label_of(job: Job) -> str:
    """Return a training in words."""
    return f"{job.arm}{', private' if job.private else ''}, seed {job.seed}"


def _train(
    folder: Path,
    scenario: Scenario,
    job: Job,
    same: str,
    observe: Callable[[int], None],
    watch: Callable[[Round], None] | None,
    measure: Callable[[Mapping[str, Any]], None],
) -> None:
    """Run a training, from where it was interrupted; keep what came of it."""

    def watch_in_peace(end: Round) -> None:
        with paused():
            watch(end)  # type: ignore[misc]  it is there

    checkpoints = folder / "checkpoints"
    under_way = under_way_of(checkpoints, scenario, job, job.key, same)
    clock = time.perf_counter()
    with limited(scenario.limits.round_seconds, observe) as tell:
        trained = run_job(scenario, job, tell, under_way, watch_in_peace if watch else None, measure)
    values = _values(trained, time.perf_counter() - clock) | {"scenario": same}
    if scenario.training.stopping:
        rounds = len(trained.curve)
        values["choice"] = {"kept_round": trained.kept_round, "rounds": rounds, "stopped": trained.stopped}
    kept = _tensors(trained), values
    results.write_checkpoint(checkpoints, job.key, *kept)
    under_way.forget()


def under_way_of(folder: Path, scenario: Scenario, job: Job, name: str, same: str) -> UnderWay:
    """Return what keeps a training of a scenario while it is under way.

    Args:
        folder: Where.
        scenario: The scenario.
        job: The training.
        name: A name for files.
        same: What tells this training from those of other scenarios.
    """
    repeatable = not (job.private and scenario.privacy.rng == "secure")
    return UnderWay(folder, name, same, scenario.checkpoints, repeatable, best_device(scenario.device))


def _failed(job: Job, error: BaseException) -> Failed:
    """Return the training that an error ended, and tell of it."""
    reason = reason_of(error, job)
    if not isinstance(error, Mistake | RunFailed):
        _log.debug("%s failed", label_of(job), exc_info=error)
    _log.warning("%s failed: %s", label_of(job), reason.partition("\n")[0])
    return Failed(job, reason, isinstance(error, Mistake))


def reason_of(error: BaseException, job: Job) -> str:
    """Return why a training failed; what is neither a mistake nor foreseen is named with its place."""
    if isinstance(error, Mistake | RunFailed):
        return str(error)
    return said_by(error, job.private)


def _check_some_finished(finished: list[Finished], failed: list[Failed]) -> None:
    """Make sure that there is something to report.

    Raises:
        Mistake: There is nothing, and the user's mistake is among the reasons.
        RunFailed: There is nothing.
    """
    if finished or not failed:
        return
    for one in failed:
        if one.is_mistake:
            raise Mistake(one.reason)
    raise RunFailed(failed[0].reason)


def _name_of_same(scenario: Scenario) -> str:
    """Return what tells the trainings of a scenario from those of another."""
    keys = sha256(scenario.model_dump_json(exclude=_left_out_of_hash(scenario)).encode())
    return keys + catalog.code_hash(scenario.strategy.name)  # a file that was changed is another strategy


def _left_out_of_hash(scenario: Scenario) -> dict[str, Any]:
    """Return the keys that don't tell whether a checkpoint is of this scenario."""
    keys: dict[str, Any] = dict.fromkeys(("seed", "seeds", "arms", "references", "checkpoints", "limits"), True)
    if scenario.evaluation == Evaluation():
        keys["evaluation"] = True  # checkpoints of versions without this section are still good
    for section, empty in (("ray", Ray()), ("superlink", SuperLink())):  # nor without these
        if getattr(scenario, section) == empty:
            keys[section] = True
    keys |= scenario.unused_younger_keys()
    return keys


def _tensors(trained: Trained) -> results.Tensors:
    """Return all parameters by names that tell the model that all sites share from a site's, whatever it is called."""
    tensors = {}
    for model, held in trained.models.items():
        place = OF_ALL if isinstance(model, Shared) else of_site(model)
        tensors |= {f"{place}{name}": value for name, value in held.items()}
    return tensors


def of_site(site: str) -> str:
    """Return what stands before the names of a site's parameters: no slash of its own name ends it too early."""
    escaped = site.replace("%", "%25").replace("/", "%2F")
    return f"site/{escaped}/"


def with_todays_names(folder: Path, tensors: results.Tensors, values: dict[str, Any]) -> results.Tensors:
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
        if len(owners) + name.startswith(OF_ALL) != 1:
            raise Mistake(f"{folder}: expected checkpoints of this version, got an older one's, in which {name} may be "
                          "of more than one model; run the scenario into a new directory")  # fmt: skip
        renamed[of_site(owners[0]) + name.removeprefix(f"{owners[0]}/") if owners else name] = value
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
        **({} if trained.traffic is None else {"traffic": trained.traffic}),
        "seconds": round(seconds, 3),
        "tensor_names": "global/ or site/",
    }
