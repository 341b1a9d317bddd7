"""Sweeps and tuned comparisons from Python, as ``fedsim.sweep`` and ``fedsim.tune``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedsim.data.task import Task
from fedsim.experiments.deciding import files, tuned_files
from fedsim.experiments.deciding.decided import Decided
from fedsim.experiments.deciding.sweep import Axes
from fedsim.experiments.deciding.sweep import sweep as run_sweep
from fedsim.experiments.deciding.tune import Tuned, Wanted
from fedsim.experiments.deciding.tune import tune as run_tune
from fedsim.experiments.given import given_code
from fedsim.experiments.progress import Progress, told
from fedsim.scenario.schema import Arm
from fedsim.strategy.contract import Strategy

Values = Mapping[str, Sequence[Any] | str]
"""{setting: its values, or a text such as ``0.01..1:log``}."""


def sweep(
    scenario: str | Path,
    *changes: str,
    task: Task | str | None = None,
    strategy: Strategy | type | str | None = None,
    epsilon: Sequence[float | str] | None = None,
    vary: Values | None = None,
    arms: Sequence[Arm] | None = None,
    seeds: int | None = None,
    metric: str | None = None,
    out: str | Path | None = None,
    cache: str | Path = "runs/cache",
    progress: bool | Progress = True,
    jobs: int = 1,
) -> Decided:
    """Run a scenario's arms over epsilons and other settings, as ``fedsim sweep`` does.

    Args:
        scenario: The name of a scenario that comes with fedsim, or the path of a TOML file.
        changes: ``"key=value"`` for all trainings.
        task: A task in place of the scenario's, as in ``fedsim.run``.
        strategy: A strategy in place of the scenario's, as in ``fedsim.run``.
        epsilon: Privacy budgets, or ``"none"``; the others are compared with the first. None: the scenario's own.
        vary: {setting: values}, e.g. ``{"training.optimizer.lr": [0.1, 0.5]}``, which validation rows choose among.
        arms: The arms; None for those of the scenario.
        seeds: How many seeds; None for the scenario's.
        metric: The metric to compare by; None for the task's first.
        out: Where page, pictures and tables are written; None: nowhere.
        cache: Where finished trainings are kept.
        progress: Whether to show progress on the standard error stream, or a function, as in ``fedsim.run``.
        jobs: In how many processes trainings run beside each other.

    Returns:
        The findings: ``points``, ``by_epsilon`` and ``by_arm`` are pandas tables, ``answers`` sentences.

    Raises:
        Mistake: A key or value is wrong, or nothing could be run.
    """
    axes = Axes(
        scenario=str(scenario),
        arms=arms,
        epsilons=None if epsilon is None else [_text(value) for value in epsilon],
        varied=_texts(vary),
        changes=(*given_code(task, strategy), *changes),
        seeds=seeds,
    )
    if out is not None:
        files.check_place(Path(out))
    with told(progress) as tell:
        decided = run_sweep(axes, Path(cache), metric, tell, jobs)
    if out is not None:
        files.write(Path(out), decided, "sweep")
    return decided


def tune(
    scenario: str | Path,
    *changes: str,
    task: Task | str | None = None,
    strategy: Strategy | type | str | None = None,
    trials: int = 20,
    vary: Values | None = None,
    arms: Sequence[Arm] | None = None,
    epsilon: float | str | None = None,
    seeds: int | None = None,
    charged: bool = False,
    prune: bool = True,
    metric: str | None = None,
    out: str | Path | None = None,
    cache: str | Path = "runs/cache",
    progress: bool | Progress = True,
    jobs: int = 1,
) -> Tuned:
    """Tune each arm with the same number of trials and compare them on test rows, as ``fedsim tune`` does.

    Args:
        scenario: The name of a scenario that comes with fedsim, or the path of a TOML file.
        changes: ``"key=value"`` for all trainings.
        task: A task in place of the scenario's, as in ``fedsim.run``.
        strategy: A strategy in place of the scenario's, as in ``fedsim.run``.
        trials: How many settings are tried in each arm, under each seed.
        vary: {setting: its range or values}, e.g. ``{"training.optimizer.lr": "0.01..1:log"}``; None: the learning
            rate, the weight decay and the clip.
        arms: The arms; None for those of the scenario.
        epsilon: A privacy budget, or ``"none"``; None: the scenario's own.
        seeds: How many seeds; None for the scenario's.
        charged: Whether the noise is set so that all trials together stay within epsilon.
        prune: Whether trials that fall behind are cut short.
        metric: The metric to choose and compare by; None for the task's first.
        out: Where page, pictures and tables are written; None: nowhere.
        cache: Where finished trainings are kept.
        progress: Whether to show progress on the standard error stream, or a function, as in ``fedsim.run``.
        jobs: In how many processes studies run beside each other.

    Returns:
        ``decided``, as ``sweep`` returns it, the table of all ``trials``, and ``scenarios`` with what was chosen.

    Raises:
        Mistake: A setting is wrong, or no trial of an arm could be run.
    """
    wanted = Wanted(
        scenario=str(scenario),
        trials=trials,
        space=_texts(vary),
        arms=arms,
        epsilon=None if epsilon is None else _text(epsilon),
        changes=(*given_code(task, strategy), *changes),
        seeds=seeds,
        charged=charged,
        prune=prune,
    )
    if out is not None:
        files.check_place(Path(out))
    with told(progress) as tell:
        tuned = run_tune(wanted, Path(cache), metric, tell, jobs)
    if out is not None:
        tuned_files.write(Path(out), tuned)
    return tuned


def _texts(vary: Values | None) -> list[str]:
    """Return values as they would be typed."""
    texts = []
    for key, values in (vary or {}).items():
        typed = values if isinstance(values, str) else ",".join(_text(value) for value in values)
        texts.append(f"{key}={typed}")
    return texts


def _text(value: Any) -> str:  # noqa: ANN401  a number or a word
    return f"{value:g}" if isinstance(value, float) else str(value)
