"""A tournament: a grid of scenarios, strategies, attacks and privacy levels, all over the same seeds.

Strategies compete in each field of the grid, and so do the centralized and the local arm where they are asked for. No
training is run twice, see ``fedsim.experiments.deciding.kept``.
"""

import itertools
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fedsim.data.settling import settled
from fedsim.experiments.arms import Job
from fedsim.experiments.deciding.kept import Failed, Spent, Training, make_cache, of_arm, train_all
from fedsim.experiments.deciding.together import Released, together
from fedsim.mistakes import Mistake, RunFailed
from fedsim.planning.checks import check
from fedsim.planning.references import check_without_references
from fedsim.planning.trial import Trial
from fedsim.scenario import catalog
from fedsim.scenario.changes import as_typed, named, value_of, with_attack, with_epsilon, with_strategy
from fedsim.scenario.code.held import label_of
from fedsim.scenario.files import read
from fedsim.scenario.schema import Arm, Scenario

NONE = "none"
OWN = "own"
_FEDERATED: Arm = "federated"

_USUAL = "fedavg"  # where no strategy is named
_SHARE_OF_ATTACKERS = "0.2"  # of the sites, if nothing else is said
_FLOAT32_BYTES = 4


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
        arms: The arms that compete; the centralized and the local one are the same under every strategy.
    """

    scenarios: Sequence[str]
    strategies: Sequence[str]
    attacks: Sequence[str] = (OWN,)
    epsilons: Sequence[str] = (NONE,)
    varied: Sequence[str] = ()
    changes: Sequence[str] = ()
    seeds: int = 5
    arms: Sequence[Arm] = (_FEDERATED,)


@dataclass(frozen=True)
class Cell:
    """One cell of a grid.

    Attributes:
        place: {axis: value}.
        scenario: The scenario that is run there.
        arm: The arm that is trained.
    """

    place: Mapping[str, str]
    scenario: Scenario
    arm: Arm = _FEDERATED

    @property
    def private(self) -> bool:
        """Whether it is trained under privacy."""
        return self.scenario.private

    def training(self, seed: int) -> Training:
        """Return its training under a seed."""
        label = ", ".join(value for value in self.place.values() if value != NONE)
        return Training(of_arm(self.scenario, self.arm), Job(self.arm, self.private, seed), label)


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
    labels = _labels(axes.strategies)
    units = {name: read(name, axes.changes, all_used=False).privacy.unit for name in axes.scenarios}
    varied = itertools.product(*(_values(text) for text in axes.varied))
    grid: list[Cell] = []
    competitors: list[tuple[Arm, str]] = []
    for arm in axes.arms:
        strategies = axes.strategies if arm == _FEDERATED else axes.strategies[:1]
        for strategy in strategies:
            competitors.append((arm, strategy))
    fields = itertools.product(axes.scenarios, axes.attacks, axes.epsilons, varied, competitors)
    for name, attack, epsilon, settings, (arm, strategy) in fields:
        # In this order: a later override wins over an earlier one.
        changed_attack = [] if attack == OWN else [with_attack(attack, _SHARE_OF_ATTACKERS)]
        overrides = [
            with_strategy(strategy),
            *changed_attack,
            *axes.changes,
            *with_epsilon(epsilon, units[name]),
            *(f"{key}={value}" for key, value in settings),
            f"seeds={axes.seeds}",
            f'arms=["{arm}"]',
        ]
        scenario = settled(read(name, overrides))
        check_without_references(scenario)
        catalog.load("strategies", scenario.strategy.name)  # a wrong name is no cell that can't be run

        place = {
            "scenario": name,
            "attack": _shown_attack(attack, scenario),
            "epsilon": epsilon,
            **dict(settings),
            "strategy": labels[strategy] if arm == _FEDERATED else label_of_arm(arm),
        }
        if any(place == cell.place for cell in grid):
            field = ", ".join(place.values())
            raise Mistake(f"compare: expected each field of the grid once, got {field} twice")
        grid.append(Cell(place, scenario, arm))
    return grid


def command_of(axes: Axes, metric: str, reach: float | None = None) -> str:
    """Return the command line that plays the same tournament.

    Args:
        axes: The axes.
        metric: The name of the metric.
        reach: The validation value whose rounds are counted; None for none.
    """
    parts = ["fedsim", "compare", *axes.scenarios, "--strategy", ",".join(map(strategy_label, axes.strategies))]
    parts += ["--attack", ",".join(axes.attacks), "--epsilon", ",".join(axes.epsilons)]
    for text in axes.varied:
        parts += ["--vary", text]
    parts += as_typed(axes.changes)
    parts += ["--arms", ",".join(axes.arms), "--seeds", str(axes.seeds), "--metric", metric]
    if reach is not None:
        parts += ["--reach", f"{reach:g}"]
    return shlex.join(parts)


def strategy_label(text: str) -> str:
    """Return a strategy as tables have it: of a class that is given in Python, without the digest."""
    name, parameters = named(text)
    return ":".join([label_of(name), *parameters])


def _labels(strategies: Sequence[str]) -> dict[str, str]:
    """Return {strategy: what it is called in tables}; two classes of one name keep their digests."""
    labels = {text: strategy_label(text) for text in strategies}
    times = Counter(labels.values())
    return {text: label if times[label] == 1 else text for text, label in labels.items()}


def label_of_arm(arm: str) -> str:
    """Return what stands in the column of strategies for an arm that has none; no strategy's name has brackets."""
    return f"({arm})"


_SET_BY_OPTIONS = {
    "seeds": "--seeds",
    "strategy": "--strategy",
    "strategy.name": "--strategy",
    "attack.name": "--attack",
    "arms": "--arms",
    "name": "nothing, since the name is the scenario's",
}
"""{a key: what is to be typed in its place}."""


def _check_keys(axes: Axes) -> None:
    """Make sure that every setting has an effect.

    Raises:
        Mistake: Some have not; each has a line.
    """
    faults = []
    changed = [_key_of(text) for text in axes.changes if value_of(text) != ("arms", list(axes.arms))]
    varied = [_key_of(text) for text in axes.varied]
    for option, keys in (("--set", changed), ("--vary", varied)):
        faults += [f"{option} {key}: expected {_SET_BY_OPTIONS[key]}" for key in keys if key in _SET_BY_OPTIONS]
    if _FEDERATED not in axes.arms and list(axes.strategies) != [_USUAL]:
        faults.append(f"--strategy {','.join(axes.strategies)}: expected the federated arm among --arms beside it")
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
    make_cache(folder)
    refusals: dict[int, str] = {}
    megabytes: dict[int, float] = {}
    for number, cell in enumerate(grid):
        try:
            check(cell.scenario)
            megabytes[number] = _megabytes(cell)
        except (Mistake, RunFailed) as error:  # the other cells are worth their figures all the same
            refusals[number] = str(error)

    wanted = [(number, seed) for number in megabytes for seed in grid[number].scenario.all_seeds]
    trainings = [grid[number].training(seed) for number, seed in wanted]
    trained = dict(zip(wanted, train_all(trainings, folder, progress, jobs), strict=True))

    scores: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    costs: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    spent: dict[str, dict[str, tuple[Scenario, Spent]]] = {}  # {scenario: {key of a training: its releases}}
    failures = 0
    for number, cell in enumerate(grid):
        kept = {}
        for seed in cell.scenario.all_seeds if number in megabytes else ():
            came = trained[number, seed]
            if isinstance(came, Failed):
                refusals.setdefault(number, came.reason)
                continue
            kept[seed] = came
            if came.spent:  # also where another seed fails: it was released
                key = cell.training(seed).key
                spent.setdefault(cell.place["scenario"], {})[key] = (cell.scenario, came.spent)

        # A budget that allows no round leaves an untrained model, which is no result.
        unspent = [seed for seed, came in kept.items() if cell.scenario.split.validation and not came.curve]
        if unspent:
            refused.append(
                {**cell.place, "reason": f"seed {unspent[0]}: no round was run: {'; '.join(kept[unspent[0]].notes)}"}
            )
            continue

        # A cell is compared by all its seeds, or not at all.
        if number in refusals:
            refused.append({**cell.place, "reason": " ".join(refusals[number].split())})
            failures += number in megabytes
            continue
        for seed, training in kept.items():
            scores += [{**cell.place, "seed": seed, **row} for row in training.scores]
            curves += [{**cell.place, "seed": seed, **row} for row in training.curve]
        costs.append({**cell.place, "megabytes": megabytes[number]})

    return Played(
        scores=pd.DataFrame(scores),
        curves=pd.DataFrame(curves),
        costs=pd.DataFrame(costs),
        refused=pd.DataFrame(refused),
        released=together({name: list(found.values()) for name, found in spent.items()}),
        failures=failures,
    )


def _megabytes(cell: Cell) -> float:
    """Compute the megabytes that are sent in one training, both ways; the other arms send no model."""
    if cell.arm != _FEDERATED:
        return 0.0
    scenario = cell.scenario
    trial = Trial(scenario, scenario.seed, cell.arm)
    asked = trial.share_of_sites * len(trial.names)
    vectors = 2 + len(trial.strategy.tells)  # there and back, and those that the strategy tells
    return scenario.training.rounds * asked * vectors * _FLOAT32_BYTES * len(trial.start) / 1e6
