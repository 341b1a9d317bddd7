"""Trainings that are kept, so that none is run twice: by ``compare``, ``sweep`` and ``tune`` alike.

The result of a training is kept under a key of all that decides it, which are the resolved scenario, the seed, the arm,
the source of the strategy and of fedsim, and the versions of the libraries. A training that was interrupted goes on
from its last checkpoint.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fedsim.experiments.arms import Job, run_job
from fedsim.experiments.processes import run_all
from fedsim.experiments.progress import Progress
from fedsim.experiments.trainings import label_of, reason_of, under_way_of
from fedsim.mistakes import STOPS, Mistake, RunFailed
from fedsim.planning.time_limit import limited
from fedsim.privacy.ledger import Ledger
from fedsim.results import run_directory as results
from fedsim.results.digests import sha256
from fedsim.results.whole_files import remove_leftovers
from fedsim.scenario import catalog
from fedsim.scenario.code.held import check_elsewhere
from fedsim.scenario.schema import Arm, Attack, Scenario, SecureAggregation, Strategy
from fedsim.tracking.contract import Round
from fedsim.training.model import best_device

_NO_MATTER: dict[str, Any] = {
    **dict.fromkeys(("name", "title", "about", "seed", "seeds", "arms", "checkpoints", "limits"), True),
    "evaluation": {"threshold"},
}
"""The keys of a scenario that change no figure which is kept."""

_VERSIONS = ("torch", "flwr", "opacus", "dp-accounting", "numpy")
_log = logging.getLogger(__name__)

Spent = Sequence[Sequence[Any]]
"""The segments of one training's releases, each as the tuple of its fields."""


@dataclass(frozen=True)
class Training:
    """One training that is wanted.

    Attributes:
        scenario: The scenario, settled.
        job: The arm, whether it is private, and the seed.
        label: What is shown while it runs.
    """

    scenario: Scenario
    job: Job
    label: str

    @cached_property
    def key(self) -> str:
        """A name for all that decides its result."""
        decides = {
            "scenario": self.scenario.model_dump_json(exclude=_NO_MATTER),
            "arm": self.job.arm,
            "private": self.job.private,
            "seed": self.job.seed,
            "strategy": catalog.source_hash(self.scenario.strategy.name),
            "code": _code(),
            "device": best_device(self.scenario.device),
        }
        return sha256(json.dumps(decides, sort_keys=True).encode())[:32]


@dataclass(frozen=True)
class Outcome:
    """The result of a training, as it is kept.

    Attributes:
        scores: A row for each site, and for all together, with the metrics on test rows.
        curve: A row for each round, with the metrics on validation rows.
        notes: Remarks on irregularities.
        spent: The releases of the site that spent most; none without privacy.
    """

    scores: Sequence[Mapping[str, Any]]
    curve: Sequence[Mapping[str, Any]]
    notes: Sequence[str]
    spent: Spent

    @property
    def validated(self) -> Mapping[str, Any]:
        """The figures on validation rows after the round whose models are kept; empty without validation rows."""
        for row in self.curve:
            if row.get("kept"):
                return row
        return self.curve[-1] if self.curve else {}


class CutShort(BaseException):
    """Ends a training that is not worth going on with. It is no error, so that nothing on the way catches it."""


@dataclass(frozen=True)
class Failed:
    """A training that failed, and why."""

    reason: str


def of_arm(scenario: Scenario, arm: Arm) -> Scenario:
    """Return what of a scenario decides the trainings of an arm.

    The centralized and the local arm have no server that aggregates, so nothing there is attacked or masked either: the
    same training stands for all strategies and attacks, and is run once.
    """
    if arm == "federated":
        return scenario
    plain = {"strategy": Strategy(), "attack": Attack(), "secure_aggregation": SecureAggregation()}
    return scenario.model_copy(update=plain)


def make_cache(folder: Path) -> None:
    """Make the folder of trainings ready.

    Raises:
        Mistake: It can't be one.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Mistake(f"--cache: {folder}: expected a folder that can be written, got: {error.strerror}") from None
    remove_leftovers(folder, shared=True)


def train_all(
    trainings: Sequence[Training],
    folder: Path,
    progress: Progress | None = None,
    jobs: int = 1,
) -> list[Outcome | Failed]:
    """Return what came of each training, in their order; what is not kept is run, each once.

    Args:
        trainings: The trainings; several of one key are one training.
        folder: Where they are kept.
        progress: Called with (the training's label, trainings done, trainings in all).
        jobs: In how many processes trainings run beside each other.

    Raises:
        Mistake: Another process can't have a task or strategy that is given in Python.
        OSError: Something can't be written.
    """
    for training in trainings:
        check_elsewhere(training.scenario.own_code, jobs)
    found: dict[str, Outcome | Failed] = {}
    left: dict[str, Training] = {}
    for training in trainings:
        kept = read_kept(folder, training)
        if kept is None:
            left.setdefault(training.key, training)
        else:
            found[training.key] = kept
    at_work = min(jobs, len(left))
    already = len({training.key for training in trainings}) - len(left)
    attempts = [_Attempt(training, folder) for training in left.values()]
    begun: set[int] = set()

    def tell(number: int, step: int) -> None:
        begun.add(number)
        if progress:
            done = already + max(0, len(begun) - at_work)
            progress(attempts[number].training.label, done, already + len(left))

    def lost(number: int, how: str) -> Failed:
        return Failed(f"{_place(attempts[number].training)}: {how}")

    found |= dict(zip(left, run_all(attempts, jobs, tell, lost), strict=True))
    return [found[training.key] for training in trainings]


@dataclass(frozen=True)
class _Attempt:
    """One training, to be tried."""

    training: Training
    folder: Path

    def __call__(self, tell: Callable[[int], None]) -> Outcome | Failed:
        tell(0)
        try:
            return train(self.training, self.folder)
        except RunFailed as error:
            return Failed(str(error))


def train(training: Training, folder: Path, watch: Callable[[Round], None] | None = None) -> Outcome:
    """Run one training, from where it was interrupted; keep and return its result.

    Args:
        training: The training.
        folder: Where it is kept.
        watch: Called after each round with its figures; it may raise ``CutShort``.

    Raises:
        CutShort: It was cut short, and nothing of it is kept.
        RunFailed: It failed.
        OSError: Something can't be written.
    """
    key = training.key
    job = training.job
    scenario = training.scenario
    under_way = under_way_of(folder, scenario, job, key, same=key)
    try:
        with _one_thread(), limited(scenario.limits.round_seconds, lambda number: None) as tell:
            trained = run_job(scenario, job, tell, under_way, watch)
    except CutShort:
        under_way.forget()
        raise
    except (OSError, *STOPS):
        raise  # a fault of the disk would meet whoever comes next, too
    except BaseException as error:
        raise RunFailed(f"{_place(training)}: {reason_of(error, job)}") from error

    outcome = {
        "scores": results.as_rows(trained.scores),
        "curve": results.as_rows(trained.curve),
        "notes": trained.notes,
        "spent": _spent_most(trained.ledger),
    }
    body = json.dumps(outcome, allow_nan=False)
    results.write_json(_path(folder, training), {"sha256": sha256(body.encode()), "body": body})
    under_way.forget()
    return Outcome(**json.loads(body))


def read_kept(folder: Path, training: Training) -> Outcome | None:
    """Return what was kept of a training; None if it is not there, or not as it was written: it is trained again."""
    path = _path(folder, training)
    if not path.exists():
        return None
    try:
        kept = results.read_json(path)
        body = str(kept["body"])
        if kept["sha256"] != sha256(body.encode()):
            raise ValueError("its SHA-256 differs")
        return Outcome(**json.loads(body))
    except (KeyError, TypeError, ValueError) as error:  # so are the Mistakes of a file that is no JSON
        _log.warning("%s is trained again: %s", path, error)
        return None


def _path(folder: Path, training: Training) -> Path:
    return folder / f"{training.key}.json"


def _place(training: Training) -> str:
    """Return which training of a cell of the grid it is, for messages."""
    job = training.job
    return f"seed {job.seed}" if job.arm == "federated" else label_of(job)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread: their number changes the order of sums, and so the last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _spent_most(ledger: Ledger | None) -> list[tuple[Any, ...]]:
    """Return the releases of the site that spent most; none without a ledger or an entry in it."""
    if ledger is None or not ledger.entries:
        return []
    sites = sorted({entry.site for entry in ledger.entries}, key=str)  # so that a tie has one winner
    costliest = max(sites, key=ledger.epsilon)
    return [astuple(segment) for segment in ledger.spent(costliest)]


@cache
def _code() -> str:
    """Hash fedsim's and the clients' source, their data, and the versions of the libraries."""
    versions = [f"{name} {version(name)}" for name in _VERSIONS]
    return sha256("\0".join([*versions, catalog.source_digest()]).encode())
