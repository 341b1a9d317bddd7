"""A tournament: a grid of scenarios, strategies, attacks and privacy levels, all over the same seeds.

What has run is not run again: each training is kept under a key of all that decides what it gives, which are the
resolved scenario, the seed, the source of the strategy and of fedsim, and the versions of the libraries.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from fedsim.data.loading import settled
from fedsim.experiments.arms import Job, run_job
from fedsim.mistakes import Mistake, RunFailed
from fedsim.planning.checks import check
from fedsim.planning.trial import Trial
from fedsim.privacy.accounting import Neighbours, Segment
from fedsim.privacy.accounting import epsilon as epsilon_of
from fedsim.privacy.unit import Protected
from fedsim.privacy.units import unit_of
from fedsim.results import run_directory as results
from fedsim.scenario import catalog
from fedsim.scenario.changes import value_of, with_attack, with_epsilon, with_strategy
from fedsim.scenario.files import read
from fedsim.scenario.schema import Scenario
from fedsim.scenario.unit_facts import UNIT_OF_RECORDS
from fedsim.training.model import best_device

NONE, OWN = "none", "own"
_SHARE = "0.2"  # of the sites attack, if nothing else is said
_SITES_OF = attrgetter("task", "data", "partition")  # all that decides which rows are at one site
_NO_MATTER = {"name", "title", "about", "seed", "seeds", "arms"}
_VERSIONS = ("torch", "flwr", "opacus", "dp-accounting", "numpy")


@dataclass(frozen=True)
class Axes:
    """What is crossed.

    Attributes:
        scenarios: Names or paths.
        strategies: ``name``, ``name:key=value``, a file or ``package.module:Class``, each with ``:key=value`` or not.
        attacks: Names, or ``none``, each with ``:key=value`` or not; or ``own``, the scenario's own.
        epsilons: Numbers as text, or ``none``.
        varied: ``key=value,value,...``: any values of the scenario.
        changes: ``key=value`` for all.
        seeds: How many.
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
    """One field of the grid: where it is, {axis: value}, and the scenario that is run there."""

    place: Mapping[str, str]
    scenario: Scenario

    @property
    def private(self) -> bool:
        """Whether it is trained under privacy."""
        return self.place["epsilon"] != NONE


@dataclass(frozen=True)
class Released:
    """All that the private trainings on one scenario's records released.

    Attributes:
        scenario: Its name.
        trainings: How many there were.
        epsilon: Of all of them together, each at the site where it spent most, by composition.
        delta: At which; the least, where several were asked for.
        units: The privacy units they had.
        protected: For whom that epsilon is: ``record`` or ``whole site``.
    """

    scenario: str
    trainings: int
    epsilon: float
    delta: float
    units: Sequence[str]
    protected: str


@dataclass(frozen=True)
class Played:
    """What came of a tournament.

    Attributes:
        scores: A row for each cell, seed and site: the axes, ``seed``, ``site`` and the metrics on test rows.
        curves: A row for each cell, seed and round: the axes, ``seed``, ``round`` and the metrics on validation rows.
        costs: A row for each cell: the axes, and ``megabytes`` that are sent in one training.
        refused: A row for each cell that can't be run or whose model was lost: the axes, and ``reason``.
        released: What the private trainings of each scenario come to together.
    """

    scores: pd.DataFrame
    curves: pd.DataFrame
    costs: pd.DataFrame
    refused: pd.DataFrame
    released: Sequence[Released] = ()


def cells(axes: Axes) -> list[Cell]:
    """Return the grid, in the order in which it is run.

    Raises:
        Mistake: A name or value is wrong.
    """
    varied = [_values(text) for text in axes.varied]
    units = {name: read(name, axes.changes, all_used=False).privacy.unit for name in axes.scenarios}
    found = []
    fields = itertools.product(axes.scenarios, axes.attacks, axes.epsilons, itertools.product(*varied), axes.strategies)
    for name, attack, epsilon, settings, strategy in fields:
        overrides = [
            with_strategy(strategy),
            *([] if attack == OWN else [with_attack(attack, _SHARE)]),
            *axes.changes,
            *with_epsilon(epsilon, units[name]),
            *(f"{key}={value}" for key, value in settings),
            f"seeds={axes.seeds}",
            'arms=["federated"]',
        ]
        scenario = settled(read(name, overrides))
        attacked = f"{scenario.attack.name} (own)" if attack == OWN and scenario.attack.name != NONE else attack
        attacked = NONE if attacked == OWN else attacked
        place = {"scenario": name, "attack": attacked, "epsilon": epsilon, **dict(settings), "strategy": strategy}
        if any(place == cell.place for cell in found):
            raise Mistake(f"compare: expected each field of the grid once, got {', '.join(place.values())} twice")
        found.append(Cell(place, scenario))
    return found


def _values(text: str) -> list[tuple[str, str]]:
    key, values = value_of(text.replace("=", '="', 1) + '"')
    return [(key, value) for value in str(values).split(",")]


def play(grid: Sequence[Cell], folder: Path, progress: Callable[[str, int, int], None] | None = None) -> Played:
    """Run every cell for its seeds, except what is in the folder already.

    Args:
        grid: The cells.
        folder: Where trainings are kept.
        progress: Called with (what is trained, trainings done, trainings in all).
    """
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(cell.scenario.seeds for cell in grid)
    done = 0
    scores: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    costs: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    spent: list[tuple[Cell, Sequence[Sequence[Any]]]] = []
    for cell in grid:
        try:
            check(cell.scenario)
            megabytes = _megabytes(cell.scenario)
            for seed in cell.scenario.all_seeds:
                if progress:
                    progress(", ".join(value for value in cell.place.values() if value != NONE), done, total)
                kept = _training(cell, seed, folder)
                done += 1
                if kept["spent"]:
                    spent.append((cell, kept["spent"]))
                scores += [{**cell.place, "seed": seed, **row} for row in kept["scores"]]
                curves += [{**cell.place, "seed": seed, **row} for row in kept["curve"]]
            costs.append({**cell.place, "megabytes": megabytes})
        except (Mistake, RunFailed) as error:
            refused.append({**cell.place, "reason": " ".join(str(error).split())})
            total -= cell.scenario.seeds
    tables = (pd.DataFrame(rows) for rows in (scores, curves, costs, refused))
    return Played(*tables, released=_together(spent))


def _together(spent: Sequence[tuple[Cell, Sequence[Sequence[Any]]]]) -> list[Released]:
    """Compose what the private trainings on each scenario's records released, each at its costliest site."""
    found = []
    for name in dict.fromkeys(cell.place["scenario"] for cell, _ in spent):
        own = [(cell.scenario, released) for cell, released in spent if cell.place["scenario"] == name]
        scenarios = [scenario for scenario, _ in own]
        delta = min(one.privacy.delta for one in scenarios if one.privacy.delta)
        protected, neighbours = _protected(scenarios)
        segments = [Segment(*values) for _, released in own for values in released]
        together = epsilon_of(segments, delta, neighbours)
        units = sorted({one.privacy.unit for one in scenarios})
        found.append(Released(name, len(own), together, delta, units, protected))
    return found


def _protected(scenarios: Sequence[Scenario]) -> tuple[str, Neighbours]:
    """Return for whom some trainings can be composed, and between which data sets.

    For a whole site if all of them protect one and have the same sites, else for one record: where whole sites are
    protected, a record that changes replaces its site's update. What is replaced costs at least as much as what is
    added or removed, so if anything is, all counts as replaced.
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
    return " or ".join(sorted(protected)), "replace-one" if replaced else "add-or-remove-one"


def _megabytes(scenario: Scenario) -> float:
    """Return the megabytes that are sent in one training, both ways."""
    trial = Trial(scenario, scenario.seed, "federated")
    asked = trial.share_of_sites * len(trial.names)
    vectors = 2 + len(trial.strategy.tells)
    return scenario.training.rounds * asked * vectors * 4 * len(trial.start) / 1e6


def _training(cell: Cell, seed: int, folder: Path) -> dict[str, Any]:
    """Return one training's scores and curve: from the folder, or by running it."""
    path = folder / f"{_key(cell, seed)}.json"
    if path.exists():
        return results.read_json(path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the number of threads changes the order of sums, so the last bits
    try:
        trained = run_job(cell.scenario, Job("federated", cell.private, seed), lambda: None)
    finally:
        torch.set_num_threads(threads)
    ledger = trained.ledger
    sites = sorted({entry.site for entry in ledger.entries}, key=str) if ledger else []
    kept = {
        "scores": results.as_rows(trained.scores),
        "curve": results.as_rows(trained.curve),
        "notes": trained.notes,
        "spent": [astuple(one) for one in ledger.spent(max(sites, key=ledger.epsilon))] if ledger and sites else [],
    }
    results.write_json(path, kept)
    return kept


def _key(cell: Cell, seed: int) -> str:
    """Return a name for all that decides what a training gives."""
    decides = {
        "scenario": cell.scenario.model_dump_json(exclude=_NO_MATTER),
        "private": cell.private,
        "seed": seed,
        "strategy": catalog.source_hash(cell.scenario.strategy.name),
        "code": _code(),
        "device": best_device(cell.scenario.device),
    }
    return results.sha256(json.dumps(decides, sort_keys=True).encode())[:32]


@cache
def _code() -> str:
    """Return a hash of fedsim's and the clients' source, their data, and the versions of the libraries."""
    parts = [f"{name} {version(name)}".encode() for name in _VERSIONS]
    for folder in catalog.source_folders():
        parts += [path.read_bytes() for path in sorted(folder.rglob("*")) if path.suffix in (".py", ".csv", ".gz")]
    return results.sha256(b"\0".join(parts))
