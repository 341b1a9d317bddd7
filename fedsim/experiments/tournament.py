"""A tournament: a grid of scenarios, strategies, attacks and privacy levels, all over the same seeds.

No training is run twice: its result is kept under a key of all that decides it, which are the resolved
scenario, the seed, the source of the strategy and of fedsim, and the versions of the libraries.
"""

import itertools
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import cache
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from fedsim.data.settling import settled
from fedsim.experiments.arms import Job, run_job
from fedsim.experiments.processes import run_all
from fedsim.experiments.trainings import reason_of, under_way_of
from fedsim.mistakes import STOPS, Mistake, RunFailed
from fedsim.planning.checks import check
from fedsim.planning.time_limit import limited
from fedsim.planning.trial import Trial
from fedsim.privacy.accounting import Neighbours, Segment
from fedsim.privacy.accounting import epsilon as epsilon_of
from fedsim.privacy.ledger import Ledger
from fedsim.privacy.unit import Protected
from fedsim.privacy.units import unit_of
from fedsim.results import run_directory as results
from fedsim.results.digests import sha256
from fedsim.results.whole_files import remove_leftovers
from fedsim.scenario import catalog
from fedsim.scenario.changes import value_of, with_attack, with_epsilon, with_strategy
from fedsim.scenario.files import read
from fedsim.scenario.schema import Scenario
from fedsim.scenario.unit_facts import UNIT_OF_RECORDS
from fedsim.training.model import best_device

NONE = "none"
OWN = "own"
Spent = Sequence[Sequence[Any]]
"""The segments of one training's releases, each as the tuple of its fields."""

_SHARE_OF_ATTACKERS = "0.2"  # of the sites, if nothing else is said
_SITES_OF = attrgetter("task", "data", "partition")  # all that decides which rows are at one site
_NO_MATTER: dict[str, Any] = {
    **dict.fromkeys(("name", "title", "about", "seed", "seeds", "arms", "checkpoints", "limits"), True),
    "evaluation": {"threshold"},
}
_FLOAT32_BYTES = 4
_log = logging.getLogger(__name__)
_VERSIONS = ("torch", "flwr", "opacus", "dp-accounting", "numpy")


@dataclass(frozen=True)
class Axes:
    """The axes of the grid, which are crossed.

    Attributes:
        scenarios: Names or paths.
        strategies: ``name``, ``name:key=value``, a file or ``package.module:Class``, each with
            ``:key=value`` or not.
        attacks: Names, or ``none``, each with ``:key=value`` or not; or ``own``, the scenario's own.
        epsilons: Numbers as text, or ``none``.
        varied: ``key=value,value,...``: any values of the scenario.
        changes: ``key=value`` for all.
        seeds: The number of seeds.
    """

    scenarios: Sequence[str]
    strategies: Sequence[str]
    attacks: Sequence[str] = (OWN,)
    epsilons: Sequence[str] = (NONE,)
    varied: Sequence[str] = ()
    changes: Sequence[str] = ()
    seeds: int = 5


@dataclass(frozen=True)
class Cell:
    """One field of the grid: its place, {axis: value}, and the scenario that is run there."""

    place: Mapping[str, str]
    scenario: Scenario

    @property
    def private(self) -> bool:
        """Whether it is trained under privacy."""
        return self.place["epsilon"] != NONE


@dataclass(frozen=True)
class Released:
    """The privacy that the private trainings on one scenario's records cost together.

    Attributes:
        scenario: The name of the scenario.
        trainings: The number of private trainings.
        epsilon: The epsilon of all of them together, each at the site where it spent most, by
            composition.
        delta: The delta of that epsilon; the least, where several were asked for.
        units: The privacy units of the trainings.
        protected: The thing that epsilon is for: ``record`` or ``whole site``.
    """

    scenario: str
    trainings: int
    epsilon: float
    delta: float
    units: Sequence[str]
    protected: str


@dataclass(frozen=True)
class Played:
    """The result of a tournament.

    Attributes:
        scores: A row for each cell, seed and site: the axes, ``seed``, ``site`` and the metrics on test
            rows.
        curves: A row for each cell, seed and round: the axes, ``seed``, ``round`` and the metrics on
            validation rows.
        costs: A row for each cell: the axes, and ``megabytes`` that are sent in one training.
        refused: A row for each cell that can't be run or whose model was lost: the axes, and ``reason``.
        released: The privacy that the private trainings of each scenario cost together.
        failures: How many of the refused cells failed in training.
    """

    scores: pd.DataFrame
    curves: pd.DataFrame
    costs: pd.DataFrame
    refused: pd.DataFrame
    released: Sequence[Released] = ()
    failures: int = 0


def cells(axes: Axes) -> list[Cell]:
    """Return the grid, in the order in which it is run.

    Raises:
        Mistake: A name or value is wrong.
    """
    _check_keys(axes)
    units = {name: read(name, axes.changes, all_used=False).privacy.unit for name in axes.scenarios}
    varied = itertools.product(*(_values(text) for text in axes.varied))
    fields = itertools.product(axes.scenarios, axes.attacks, axes.epsilons, varied, axes.strategies)

    grid: list[Cell] = []
    for name, attack, epsilon, settings, strategy in fields:
        # In this order: a later override wins over an earlier one.
        changed_attack = [] if attack == OWN else [with_attack(attack, _SHARE_OF_ATTACKERS)]
        overrides = [
            with_strategy(strategy),
            *changed_attack,
            *axes.changes,
            *with_epsilon(epsilon, units[name]),
            *(f"{key}={value}" for key, value in settings),
            f"seeds={axes.seeds}",
            'arms=["federated"]',
        ]
        scenario = settled(read(name, overrides))
        catalog.load("strategies", scenario.strategy.name)  # a wrong name is no cell that can't be run

        place = {
            "scenario": name,
            "attack": _shown_attack(attack, scenario),
            "epsilon": epsilon,
            **dict(settings),
            "strategy": strategy,
        }
        if any(place == cell.place for cell in grid):
            field = ", ".join(place.values())
            raise Mistake(f"compare: expected each field of the grid once, got {field} twice")
        grid.append(Cell(place, scenario))
    return grid


_SET_BY_OPTIONS = {
    "seeds": "--seeds",
    "strategy": "--strategy",
    "strategy.name": "--strategy",
    "attack.name": "--attack",
    "arms": "nothing, since the federated arm alone is trained",
    "name": "nothing, since the name is the scenario's",
}
"""{a key: what is to be typed in its place}."""


def _check_keys(axes: Axes) -> None:
    """Make sure that every setting has an effect.

    Raises:
        Mistake: Some have not; each has a line.
    """
    faults = []
    changed = [_key_of(text) for text in axes.changes if value_of(text) != ("arms", ["federated"])]
    varied = [_key_of(text) for text in axes.varied]
    for option, keys in (("--set", changed), ("--vary", varied)):
        faults += [f"{option} {key}: expected {_SET_BY_OPTIONS[key]}" for key in keys if key in _SET_BY_OPTIONS]
    twice = [key for key, count in Counter(varied).items() if count > 1]
    faults += [f"--vary {key}: expected once, with all values, as in {key}=1,2" for key in twice]
    if faults:
        raise Mistake("\n".join(faults))


def _key_of(setting: str) -> str:
    return setting.partition("=")[0].strip()


def _shown_attack(attack: str, scenario: Scenario) -> str:
    """Return the name of an attack in tables: ``sign-flip (own)`` for one that the scenario has."""
    if attack != OWN:
        return attack
    if scenario.attack.name == NONE:
        return NONE
    return f"{scenario.attack.name} (own)"


def _values(text: str) -> list[tuple[str, str]]:
    """Read ``key=value,value,...`` as pairs of the key and one value."""
    key, values = value_of(text.replace("=", '="', 1) + '"')
    return [(key, value) for value in str(values).split(",")]


def play(
    grid: Sequence[Cell],
    folder: Path,
    progress: Callable[[str, int, int], None] | None = None,
    jobs: int = 1,
) -> Played:
    """Run every cell for its seeds, except what is in the folder already.

    Args:
        grid: The cells.
        folder: The folder where trainings are kept.
        progress: Called with (the place in the grid, trainings done, trainings in all).
        jobs: In how many processes trainings run beside each other.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder, shared=True)
    refusals: dict[int, str] = {}
    megabytes: dict[int, float] = {}
    for number, cell in enumerate(grid):
        try:
            check(cell.scenario)
            megabytes[number] = _megabytes(cell.scenario)
        except (Mistake, RunFailed) as error:  # the other cells are worth their figures all the same
            refusals[number] = str(error)

    wanted = [(number, seed) for number in megabytes for seed in grid[number].scenario.all_seeds]
    attempts = [_Attempt(grid[number], seed, folder) for number, seed in wanted]
    trained = dict(zip(wanted, _all(attempts, progress, jobs), strict=True))

    scores: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    costs: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    spent: list[tuple[Cell, Spent]] = []
    failures = 0
    for number, cell in enumerate(grid):
        kept = {}
        for seed in cell.scenario.all_seeds if number in megabytes else ():
            came = trained[number, seed]
            if isinstance(came, _Failed):
                refusals.setdefault(number, came.reason)
                continue
            kept[seed] = came
            if came["spent"]:
                spent.append((cell, came["spent"]))  # also where another seed fails: it was released

        # A cell is compared by all its seeds, or not at all.
        if number in refusals:
            refused.append({**cell.place, "reason": " ".join(refusals[number].split())})
            failures += number in megabytes
            continue
        for seed, training in kept.items():
            scores += [{**cell.place, "seed": seed, **row} for row in training["scores"]]
            curves += [{**cell.place, "seed": seed, **row} for row in training["curve"]]
        costs.append({**cell.place, "megabytes": megabytes[number]})

    return Played(
        scores=pd.DataFrame(scores),
        curves=pd.DataFrame(curves),
        costs=pd.DataFrame(costs),
        refused=pd.DataFrame(refused),
        released=_together(spent),
        failures=failures,
    )


@dataclass(frozen=True)
class _Failed:
    """A training that failed, and why."""

    reason: str


@dataclass(frozen=True)
class _Attempt:
    """One training of a cell, to be tried."""

    cell: Cell
    seed: int
    folder: Path

    def __call__(self, tell: Callable[[int], None]) -> dict[str, Any] | _Failed:
        tell(0)
        try:
            return _training(self.cell, self.seed, self.folder)
        except RunFailed as error:
            return _Failed(str(error))

    def kept(self) -> dict[str, Any] | None:
        """Return what came of it, if it was done before."""
        return _read_kept(self.folder / f"{_key(self.cell, self.seed)}.json")


def _all(
    attempts: Sequence[_Attempt], progress: Callable[[str, int, int], None] | None, jobs: int
) -> list[dict[str, Any] | _Failed]:
    """Return what came of each attempt; what is not kept is trained."""
    kept = [attempt.kept() for attempt in attempts]
    left = [attempt for attempt, found in zip(attempts, kept, strict=True) if found is None]
    at_work = min(jobs, len(left))
    begun: set[int] = set()

    def tell(number: int, step: int) -> None:
        begun.add(number)
        place = ", ".join(value for value in left[number].cell.place.values() if value != NONE)
        if progress:
            done = len(attempts) - len(left) + max(0, len(begun) - at_work)
            progress(place, done, len(attempts))

    def lost(number: int, how: str) -> _Failed:
        return _Failed(f"seed {left[number].seed}: {how}")

    trained = iter(run_all(left, jobs, tell, lost))
    return [next(trained) if found is None else found for found in kept]


def _together(spent: Sequence[tuple[Cell, Spent]]) -> list[Released]:
    """Compose the releases of the private trainings on each scenario's records.

    Args:
        spent: The private trainings: the cell of each, and its releases at its costliest site.
    """
    trainings_on: dict[str, list[tuple[Scenario, Spent]]] = {}
    for cell, releases in spent:
        trainings = trainings_on.setdefault(cell.place["scenario"], [])
        trainings.append((cell.scenario, releases))

    composed = []
    for name, trainings in trainings_on.items():
        scenarios = [scenario for scenario, _ in trainings]
        segments = []
        for _, releases in trainings:
            segments += [Segment(*values) for values in releases]

        delta = min(scenario.privacy.delta for scenario in scenarios if scenario.privacy.delta)
        protected, neighbours = _protected(scenarios)
        released = Released(
            scenario=name,
            trainings=len(trainings),
            epsilon=epsilon_of(segments, delta, neighbours),
            delta=delta,
            units=sorted({scenario.privacy.unit for scenario in scenarios}),
            protected=protected,
        )
        composed.append(released)
    return composed


def _protected(scenarios: Sequence[Scenario]) -> tuple[str, Neighbours]:
    """Return the thing that some trainings together protect, and the neighbouring relation.

    It is a whole site if all of them protect one and have the same sites, else one record: where whole
    sites are protected, a record that changes replaces its site's update. To be replaced costs at least
    as much as to be added or removed, so if anything is replaced, all counts as replaced.
    """
    units = {unit_of(scenario.privacy.unit) for scenario in scenarios}
    protected = {unit.promise.protected for unit in units}
    first = scenarios[0]
    same_sites = all(_SITES_OF(other) == _SITES_OF(first) for other in scenarios)
    replaced = any(scenario.privacy.relation == "replace-one" for scenario in scenarios)

    all_protect_sites = all(unit.protects is Protected.SITE for unit in units)
    if not all_protect_sites or not same_sites:
        record = unit_of(UNIT_OF_RECORDS).promise.protected
        replaced = replaced or protected != {record}
        protected = {record}

    whom = " or ".join(sorted(protected))
    return whom, "replace-one" if replaced else "add-or-remove-one"


def _megabytes(scenario: Scenario) -> float:
    """Compute the megabytes that are sent in one training, both ways."""
    trial = Trial(scenario, scenario.seed, "federated")
    asked = trial.share_of_sites * len(trial.names)
    vectors = 2 + len(trial.strategy.tells)  # there and back, and those that the strategy tells
    return scenario.training.rounds * asked * vectors * _FLOAT32_BYTES * len(trial.start) / 1e6


def _training(cell: Cell, seed: int, folder: Path) -> dict[str, Any]:
    """Run one training, from where it was interrupted; keep and return its scores, curve and releases.

    Raises:
        RunFailed: It failed.
        OSError: Something can't be written.
    """
    key = _key(cell, seed)
    scenario = cell.scenario
    job = Job("federated", cell.private, seed)
    under_way = under_way_of(folder, scenario, job, key, same=key)
    try:
        with _one_thread(), limited(scenario.limits.round_seconds, lambda number: None) as tell:
            trained = run_job(scenario, job, tell, under_way)
    except (OSError, *STOPS):
        raise  # a fault of the disk would meet whoever comes next, too
    except BaseException as error:
        raise RunFailed(f"seed {seed}: {reason_of(error, job)}") from error
    kept = {
        "scores": results.as_rows(trained.scores),
        "curve": results.as_rows(trained.curve),
        "notes": trained.notes,
        "spent": _spent_most(trained.ledger),
    }
    body = json.dumps(kept, allow_nan=False)
    results.write_json(folder / f"{key}.json", {"sha256": sha256(body.encode()), "body": body})
    under_way.forget()
    return json.loads(body)


def _read_kept(path: Path) -> dict[str, Any] | None:
    """Return what was kept of a training; None if it is not there, or not as it was written: it is trained again."""
    if not path.exists():
        return None
    try:
        kept = results.read_json(path)
        body = str(kept["body"])
        if kept["sha256"] != sha256(body.encode()):
            raise ValueError("its SHA-256 differs")
        return json.loads(body)
    except (KeyError, TypeError, ValueError) as error:  # so are the Mistakes of a file that is no JSON
        _log.warning("%s is trained again: %s", path, error)
        return None


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


def _key(cell: Cell, seed: int) -> str:
    """Return a name for all that decides the result of a training."""
    decides = {
        "scenario": cell.scenario.model_dump_json(exclude=_NO_MATTER),
        "private": cell.private,
        "seed": seed,
        "strategy": catalog.source_hash(cell.scenario.strategy.name),
        "code": _code(),
        "device": best_device(cell.scenario.device),
    }
    return sha256(json.dumps(decides, sort_keys=True).encode())[:32]


@cache
def _code() -> str:
    """Hash fedsim's and the clients' source, their data, and the versions of the libraries."""
    versions = [f"{name} {version(name)}" for name in _VERSIONS]
    return sha256("\0".join([*versions, catalog.source_digest()]).encode())
