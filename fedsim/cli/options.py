"""The grammar of the command line: arguments and options that several commands share, each with one meaning."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from fedsim.mistakes import Mistake
from fedsim.scenario import catalog
from fedsim.scenario.changes import Change, allow_strategy, allow_task, with_strategy, with_task

if TYPE_CHECKING:
    from fedsim.scenario.schema import Arm

KINDS = ("scenario", "task", "strategy", "attack", "engine", "audit", "unit", "tracker", "run")
"""Kinds of things that can be shown."""


def _names_of(kind: str) -> Callable[[str], list[str]]:
    """Return the shell's completion of a name."""

    def complete(incomplete: str) -> list[str]:
        start, comma, last = incomplete.rpartition(",")
        return [f"{start}{comma}{name}" for name in catalog.titles(kind) if name.startswith(last)]

    return complete


scenarios = _names_of("scenarios")
strategies = _names_of("strategies")
attacks = _names_of("attacks")
engines = _names_of("engines")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]

Jobs = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=1,
        help="Run trainings in so many processes, each on its own cores and GPU. The result is the same for any N.",
    ),
]

Arms = Annotated[
    str,
    typer.Option(metavar="ARM,...", help="The arms that are trained: federated, centralized, local, or several."),
]

OneScenario = Annotated[str, typer.Argument(help="A scenario's name, or a .toml file.", autocompletion=scenarios)]

SomeArms = Annotated[
    str | None,
    typer.Option(
        "--arms",
        metavar="ARM,...",
        help="The arms that are trained: federated, centralized, local, or several.",
        show_default="the scenario's",
    ),
]

SomeSeeds = Annotated[
    int | None,
    typer.Option("--seeds", help="How many seeds, for means and intervals.", show_default="the scenario's", min=1),
]

MetricName = Annotated[
    str | None,
    typer.Option("--metric", help="The metric to compare by, e.g. accuracy.", show_default="the first of the task"),
]

References = Annotated[
    str | None,
    typer.Option(
        "--references",
        metavar="NAME,...",
        help="Train models of scikit-learn beside the arms, pooled and at each site alone: linear, boosting, or both. "
        "Nothing protects them.",
        show_default="the scenario's",
    ),
]

Cache = Annotated[Path, typer.Option("--cache", metavar="DIR", help="The directory where finished trainings are kept.")]

Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="NAME",
        help="Write every round's figures, and the epsilon spent, where tensorboard, mlflow or wandb (offline) shows "
        "them. Several: --track tensorboard,mlflow.",
        autocompletion=_names_of("trackers"),
    ),
]

TrackTo = Annotated[
    Path | None,
    typer.Option(
        "--track-to",
        metavar="DIR",
        help="With --track: the folder to write into, for several runs beside each other.",
        show_default="RUN_DIR/tracking",
    ),
]

Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]


def _each_once(changes: list[str] | None) -> list[str] | None:
    """Make sure that no key is set twice: the first value would have no effect.

    Raises:
        Mistake: Some are.
    """
    times = Counter(text.partition("=")[0].strip() for text in changes or [])
    twice = [f"--set {key}: expected once, got it {count} times" for key, count in times.items() if count > 1]
    if twice:
        raise Mistake("\n".join(twice))
    return changes


Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        callback=_each_once,
        metavar="KEY=VALUE",
        help="Change a value of the scenario, e.g. training.rounds=3. May be given several times.",
    ),
]

StrategyCode = Annotated[
    str | None,
    typer.Option(
        "--strategy",
        metavar="NAME",
        help="Another strategy than the scenario's: krum, krum:f=2, a file of your own, or package.module:Class.",
        autocompletion=strategies,
    ),
]

TaskCode = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="NAME",
        help="Another task than the scenario's: hospital/heart, or one in a file of your own, my_tasks.py:falls.",
        autocompletion=_names_of("tasks"),
    ),
]

TaskOfRun = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="NAME",
        help="The task the run was begun with, if it is in a file of your own: my_tasks.py:falls.",
    ),
]

StrategyOfRun = Annotated[
    str | None,
    typer.Option(
        "--strategy", metavar="NAME", help="The code the run was begun with, if its strategy is code of your own."
    ),
]

Epsilon = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBER",
        help="Another privacy budget than the scenario's, for its privacy unit, or for records if it has none; "
        "none: no privacy.",
    ),
]

OwnTable = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="A table of your own, CSV or Parquet, or a folder of images site/class/*.png."),
]

OutcomeColumn = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="The column with the outcome; none for a folder of images.")
]

SiteColumn = Annotated[str | None, typer.Option(metavar="COLUMN", help="The column that names each row's site.")]

TimeColumn = Annotated[str | None, typer.Option(metavar="COLUMN", help="The column with the moment of each row.")]

Ranges = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="A TOML file with the columns' public ranges, or from-data.",
        show_default="FILE.ranges.toml",
    ),
]

RunDirectory = Annotated[
    Path | None,
    typer.Argument(metavar="[RUN_DIR]", help="A run directory; by default the newest finished run under runs/."),
]


def arms_of(text: str) -> "list[Arm]":
    """Read a list of arms.

    Raises:
        Mistake: One is no arm, or is named twice.
    """
    from fedsim.scenario.schema import Arm

    names = text.split(",")
    known = get_args(Arm)
    wrong = [name for name in names if name not in known]
    if wrong or len(set(names)) < len(names):
        raise Mistake(f"--arms: expected some of {', '.join(known)}, each once, got {text!r}")
    return [arm for arm in known if arm in names]


def code_from(task: str | None, strategy: str | None = None) -> list[str]:
    """Return the changes that ``--task`` and ``--strategy`` stand for."""
    changes: list[str] = []
    if task is not None:
        changes.append(with_task(task))
    if strategy is not None:
        changes.append(with_strategy(strategy))
    return changes


def allow_code(task: str | None, strategy: str | None) -> None:
    """Let the code be loaded that a run was begun with, as ``--task`` and ``--strategy`` name it."""
    if task is not None:
        allow_task(task)
    if strategy is not None:
        allow_strategy(strategy)


def changes_from(options: Mapping[str, tuple[str, Any]]) -> list[str]:
    """Return the changes of a scenario that options stand for.

    Args:
        options: {key: (name of the option, value)}; a value of None was not given.
    """
    changes: list[str] = []
    for key, (option, value) in options.items():
        if value is not None:
            changes.append(Change(f"{key}={_as_toml(value)}", f"{option} {value}"))
    return changes


def references_from(given: str | None) -> list[str]:
    """Return the change that ``--references linear,boosting`` stands for; none where it was not given."""
    if given is None:
        return []
    names = [name.strip() for name in given.split(",")]
    return [Change(f"references={json.dumps(names)}", f"--references {given}")]


def _as_toml(value: Any) -> str:  # noqa: ANN401  a number, a path or a word
    """Return a value as ``--set`` takes it: text that looks like a number stays text."""
    return str(value) if isinstance(value, int) else json.dumps(str(value), ensure_ascii=False)
