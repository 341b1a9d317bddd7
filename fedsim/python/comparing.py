"""Tournaments in Python, and what ``fedsim compare`` does as well."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from fedsim.data.task import Task
from fedsim.experiments import ranking, tournament, tournament_files
from fedsim.experiments.deciding.files import check_place
from fedsim.experiments.given import given_code
from fedsim.experiments.progress import Progress, told
from fedsim.experiments.tournament import Axes, Cell, Played
from fedsim.mistakes import Mistake
from fedsim.scenario.schema import Arm
from fedsim.strategy.contract import Strategy
from fedsim.strategy.given_strategy import text_of_strategy

AnyStrategy = Strategy | type | str


@dataclass(frozen=True)
class Compared:
    """What a tournament found.

    Attributes:
        ranks: A row for each strategy in each field of the grid: its rank, its mean figure with an interval, and how
            it differs from the best, in ``metric``.
        pairs: A row for each pair of strategies in a field: their paired difference.
        scores: The metrics on test rows of each strategy, seed and site.
        curves: The metrics on validation rows after each round.
        refused: What could not be run, with ``reason``.
        metric: The metric that was compared by.
        played: All that was trained.
        axes: The columns that tell the fields of the grid apart.
    """

    ranks: pd.DataFrame
    pairs: pd.DataFrame
    scores: pd.DataFrame
    curves: pd.DataFrame
    refused: pd.DataFrame
    metric: str
    played: Played
    axes: list[str]


def compete(
    grid: Sequence[Cell],
    metric: str | None,
    reach: float | None,
    cache: Path,
    progress: Progress | None = None,
    jobs: int = 1,
) -> Compared:
    """Play a tournament and rank what competed.

    Args:
        grid: The cells.
        metric: The metric to compare by; None for the task's first.
        reach: Count the rounds until validation reaches this value; None: not.
        cache: Where finished trainings are kept.
        progress: Called with (the place in the grid, trainings done, trainings in all).
        jobs: In how many processes trainings run beside each other.

    Raises:
        Mistake: Nothing could be run, or there is no such metric.
    """
    played = tournament.play(grid, cache, progress, jobs)
    if played.costs.empty:  # a training that failed at a later seed leaves scores, but does not compete
        raise Mistake("\n".join(dict.fromkeys(played.refused["reason"])))

    metric = ranking.metric_of(grid[0].scenario, metric)
    overlaps = ranking.overlaps_of(grid)
    return Compared(
        ranks=ranking.rank(played, metric, overlaps, reach),
        pairs=ranking.pairs(played, metric, overlaps),
        scores=played.scores,
        curves=played.curves,
        refused=played.refused,
        metric=metric,
        played=played,
        axes=ranking.axes_of(played.scores),
    )


def write(folder: Path, found: Compared, seeds: int, command: str) -> None:
    """Write the page, pictures and tables of a tournament.

    Args:
        folder: Where they go.
        found: What it found.
        seeds: How many there were.
        command: The command that makes all of this anew.
    """
    tournament_files.write(folder, found.played, found.ranks, found.pairs, found.axes, found.metric, seeds, command)


def compare(
    scenarios: str | Path | Sequence[str | Path],
    *changes: str,
    task: Task | str | None = None,
    strategy: AnyStrategy | Sequence[AnyStrategy] = "fedavg",
    attack: str | Sequence[str] = "own",
    epsilon: float | str | Sequence[float | str | None] | None = "none",
    arms: Sequence[Arm] = ("federated",),
    seeds: int = 5,
    vary: Any = None,  # noqa: ANN401  {setting: values}
    metric: str | None = None,
    reach: float | None = None,
    out: str | Path | None = None,
    cache: str | Path = "runs/cache",
    progress: bool | Progress = True,
    jobs: int = 1,
) -> Compared:
    """Run a tournament of strategies, as ``fedsim compare`` does. What has run before is not run again.

    Args:
        scenarios: The name of a scenario or the path of a TOML file, or several.
        changes: ``"key=value"`` for all trainings.
        task: A task in place of the scenarios', as in ``fedsim.run``.
        strategy: The strategies: names, files, classes, or objects with their hyperparameters, in a list.
        attack: Attacks by a fifth of the sites: ``["none", "sign-flip:factor=4"]``; ``own``: the scenario's.
        epsilon: Privacy budgets; ``none`` or None for trainings without privacy: ``[None, 8]`` runs both.
        arms: The arms that compete.
        seeds: How many seeds, for means and intervals, in place of the scenarios' own.
        vary: {setting: values} to cross with, e.g. ``{"attack.share": [0.1, 0.3]}``.
        metric: The metric to compare by; None for the task's first.
        reach: Count the rounds, and the time, until validation reaches this value.
        out: Where page, pictures and tables are written; None: nowhere.
        cache: Where finished trainings are kept.
        progress: Whether to show progress, or a function, as in ``fedsim.run``.
        jobs: In how many processes trainings run beside each other.

    Returns:
        The ranks, the pairs and the metrics. What could not be run is in ``refused``, and is warned of.

    Raises:
        Mistake: A name or value is wrong, or nothing could be run.
    """
    if scenarios is None:
        raise Mistake("scenarios: expected the name of a scenario, the path of a TOML file, or several, got None")
    if reach is not None and not math.isfinite(reach):
        raise Mistake(f"reach: expected a finite number, got {reach:g}")
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise Mistake(f"seeds: expected a whole number >= 1, got {seeds!r}")
    if out is not None:
        check_place(Path(out))
    axes = Axes(
        scenarios=[str(scenario) for scenario in _listed(scenarios)],
        strategies=[text_of_strategy(each) for each in _listed(strategy)],
        attacks=_listed(attack),
        epsilons=["none" if value is None else _text(value) for value in _listed(epsilon)],
        varied=[f"{key}={','.join(map(_text, _listed(values)))}" for key, values in (vary or {}).items()],
        changes=[*given_code(task, None), *changes],
        seeds=seeds,
        arms=arms,
    )
    with told(progress) as tell:
        grid = tournament.cells(axes)
        found = compete(grid, metric, reach, Path(cache), tell, jobs)
    for reason in dict.fromkeys(found.refused.get("reason", [])):
        warnings.warn(f"left out: {reason}", stacklevel=2)
    if out is not None:
        write(Path(out), found, seeds, tournament.command_of(axes, found.metric, reach))
    return replace(found, ranks=found.ranks.assign(metric=found.metric))


def _listed(given: Any) -> list[Any]:  # noqa: ANN401  one of something, or several
    return list(given) if isinstance(given, list | tuple) else [given]


def _text(value: Any) -> str:  # noqa: ANN401  a number or a word
    return f"{value:g}" if isinstance(value, float) else str(value)
