"""A sweep: one scenario's arms over epsilons and any other settings, each chosen by validation rows."""

import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedsim.data.settling import settled
from fedsim.experiments.deciding import words
from fedsim.experiments.deciding.choice import NOT_FOR_IT, QUESTIONS, choose
from fedsim.experiments.deciding.decided import Decided
from fedsim.experiments.progress import Progress
from fedsim.experiments.ranking import metric_of, overlap_of
from fedsim.experiments.tournament import Cell, Played, play
from fedsim.mistakes import Mistake
from fedsim.planning.references import check_without_references
from fedsim.scenario import catalog
from fedsim.scenario.changes import NONE, as_typed, value_of, with_epsilon, with_strategy
from fedsim.scenario.files import read
from fedsim.scenario.schema import Arm, Scenario

_ELSEWHERE = {
    "seeds": "--seeds",
    "seed": "--set seed, since seeds are what is averaged over",
    "arms": "--arms",
    "references": "fedsim run --references",
    "name": "nothing, since the name is the scenario's",
    "strategy": "strategy.name",
    "attack.name": "fedsim compare --attack",
    "privacy.unit": "--set privacy.unit, since epsilons of several units can't be compared",
    "privacy.tuning.runs": "fedsim tune",
}
"""{a key that is no axis of a sweep: what is to be typed in its place}."""

OTHER_ROWS = ("task", "data", "partition", "split", "evaluation")
"""Sections and keys that decide which rows are learned from and judged: figures on other rows can't be chosen among."""

_ALLOWED_OF_DATA = ("data.model",)

_EPSILON = "privacy.epsilon"
_STRATEGY = "strategy.name"
_OF_THE_SERVER = ("strategy.", "attack.", "secure_aggregation.")
"""Settings that only the federated arm has."""

_OF_PRIVACY = "privacy."


@dataclass(frozen=True)
class Axes:
    """What a sweep crosses.

    Attributes:
        scenario: A name or path.
        arms: The arms; None for those of the scenario.
        epsilons: Numbers as text, or ``none``; None for the scenario's own budget.
        varied: ``key=value,value,...``, the settings that are chosen among.
        changes: ``key=value`` for all.
        seeds: The number of seeds; None for the scenario's.
    """

    scenario: str
    arms: Sequence[Arm] | None = None
    epsilons: Sequence[str] | None = None
    varied: Sequence[str] = ()
    changes: Sequence[str] = ()
    seeds: int | None = None


@dataclass(frozen=True)
class Grid:
    """The cells of a sweep.

    Attributes:
        cells: The cells, in the order in which they are run.
        settings: The names of the settings that are chosen among.
        left_out: What is not run, a sentence each.
    """

    cells: Sequence[Cell]
    settings: Sequence[str]
    left_out: Sequence[str]

    @property
    def scenario(self) -> Scenario:
        """The scenario of the first cell."""
        return self.cells[0].scenario


def grid_of(axes: Axes) -> Grid:
    """Return the cells of a sweep.

    Raises:
        Mistake: A key or value is wrong, or no arm is left.
    """
    values = _values_of(axes.varied)
    _check_changes(axes, values)
    epsilons = values.pop(_EPSILON, None)
    if epsilons is not None and axes.epsilons is not None:
        raise Mistake(f"--vary {_EPSILON}: expected none beside --epsilon, which says the same")
    epsilons = axes.epsilons or epsilons

    seeds = [] if axes.seeds is None else [f"seeds={axes.seeds}"]
    changes = [*axes.changes, *seeds]
    base = read(axes.scenario, changes, all_used=False)
    check_without_references(base)
    arms = axes.arms or base.arms
    if epsilons is None:
        epsilons = [own_epsilon(base)]
    _check_twins("--epsilon", [_number(epsilon) for epsilon in epsilons])

    found: dict[tuple[str, ...], Cell] = {}
    left_out: dict[str, None] = {}
    settings = list(values)
    for epsilon, arm in itertools.product(epsilons, arms):
        if not protects(axes.scenario, base, changes, epsilon, arm):
            left_out[f"There is no {arm} arm under epsilon {epsilon}: the privacy unit does not protect it."] = None
            continue
        for combination in itertools.product(*values.values()):
            place = {"scenario": axes.scenario, "arm": arm, "epsilon": epsilon}
            given = dict(zip(settings, combination, strict=True))
            for key, value in given.items():
                place[key] = value if matters(key, arm, epsilon) else NOT_FOR_IT
            if tuple(place.values()) not in found:
                scenario = _scenario(axes.scenario, base, changes, epsilon, arm, given)
                found[tuple(place.values())] = Cell(place, scenario, arm)
    if not found:
        raise Mistake("\n".join(f"sweep: {sentence}" for sentence in left_out))
    cells = list(found.values())
    idle = [key for key in settings if all(cell.place[key] == NOT_FOR_IT for cell in cells)]
    if idle:
        raise Mistake("\n".join(f"--vary {key}: expected a setting that changes something here" for key in idle))
    _check_choice(cells, settings)
    return Grid(cells, settings, list(left_out))


def sweep(
    axes: Axes,
    cache: Path,
    metric: str | None = None,
    progress: Progress | None = None,
    jobs: int = 1,
) -> Decided:
    """Run a sweep; what has run before is not run again.

    Args:
        axes: What is crossed.
        cache: The folder where finished trainings are kept.
        metric: The metric to choose and compare by; None for the task's first.
        progress: Called with (the place in the grid, trainings done, trainings in all).
        jobs: In how many processes trainings run beside each other.

    Raises:
        Mistake: A key or value is wrong, or nothing could be run.
        OSError: Something can't be written.
    """
    grid = grid_of(axes)
    metric = metric_of(grid.scenario, metric)
    played = play(grid.cells, cache, progress, jobs)
    if played.costs.empty:
        raise Mistake("\n".join(dict.fromkeys(played.refused["reason"])))
    complete = [*QUESTIONS, *grid.settings]
    scores = played.scores.merge(played.costs[complete], on=complete)
    return Decided(
        scenario=axes.scenario,
        title=grid.scenario.title,
        chosen=choose(scores, played.curves, grid.settings, metric, overlap_of(grid.scenario)),
        scores=played.scores,
        curves=played.curves,
        cautions=[*grid.left_out, *_refused(played, complete)],
        released=played.released,
        about_privacy=list(words.of_privacy(played.released, grid.scenario.privacy.tuning)),
        how=list(_how(grid)),
        command=command_of(axes),
    )


def _refused(played: Played, axes: Sequence[str]) -> Iterator[str]:
    """Yield the cells that have no figures, each with the reason."""
    for row in played.refused.to_dict("records"):
        place = ", ".join(str(row[name]) for name in axes if row[name] not in (NONE, NOT_FOR_IT))
        yield f"There are no figures of {place}: {row['reason']}"


def _how(grid: Grid) -> Iterator[str]:
    """Say what was chosen by what, and compared with what."""
    scenario = grid.scenario
    seeds = scenario.seeds
    yield (
        f"All trainings share the splits and the starting weights of {seeds} seeds. Test figures are those of the last "
        "round, or of the round that training.stopping keeps. The first epsilon is the one that the others are "
        "compared with. Intervals are adjusted (Bonferroni) for the comparisons inside one arm, and for those with one "
        "arm at one epsilon: each of these sets holds together with 95 % confidence, all of them together do not."
        if seeds > 1
        else "There is one seed, so nothing can be told apart."
    )
    if grid.settings:
        yield (
            f"Values of {', '.join(grid.settings)} were chosen for each arm, epsilon and seed by the validation rows "
            "of that seed, and tested on its test rows, which chose nothing."
        )


def command_of(axes: Axes) -> str:
    """Return the command line that runs a sweep."""
    parts = ["fedsim", "sweep", axes.scenario]
    if axes.epsilons is not None:
        parts += ["--epsilon", ",".join(axes.epsilons)]
    for text in axes.varied:
        parts += ["--vary", text]
    parts += as_typed(axes.changes)
    if axes.arms is not None:
        parts += ["--arms", ",".join(axes.arms)]
    if axes.seeds is not None:
        parts += ["--seeds", str(axes.seeds)]
    return shlex.join(parts)


def own_epsilon(scenario: Scenario) -> str:
    """Return the scenario's own budget as it would be typed."""
    if not scenario.private:
        return NONE
    epsilon = scenario.privacy.epsilon
    if epsilon is None:
        raise Mistake("sweep: expected privacy.epsilon in the scenario, or --epsilon, got neither")
    return f"{epsilon:g}"


def _number(text: str) -> str:
    """Return a budget in one form, so that 2 and 2.0 are seen to be the same."""
    try:
        return f"{float(text):g}"
    except ValueError:
        return text


def protects(name: str, base: Scenario, changes: Sequence[str], epsilon: str, arm: Arm) -> bool:
    """Whether an arm can be trained under an epsilon, or without."""
    if epsilon == NONE:
        return True
    everything = 'arms=["federated", "centralized", "local"]'
    changed = [*changes, *with_epsilon(epsilon, base.privacy.unit), everything]
    return arm in read(name, changed, all_used=False).private_arms


def matters(key: str, arm: Arm, epsilon: str) -> bool:
    """Whether a setting changes anything in an arm under an epsilon."""
    if key.startswith(_OF_PRIVACY):
        return epsilon != NONE
    return arm == "federated" or not key.startswith(_OF_THE_SERVER)


def _scenario(
    name: str, base: Scenario, changes: Sequence[str], epsilon: str, arm: Arm, given: Mapping[str, str]
) -> Scenario:
    """Return the scenario of a cell.

    Args:
        name: The scenario.
        base: The same, read.
        changes: Changes for all cells.
        epsilon: The budget.
        arm: The arm.
        given: {setting: its value}.
    """
    wanted = {key: value for key, value in given.items() if matters(key, arm, epsilon)}
    strategy = wanted.pop(_STRATEGY, None)
    budget = [] if base.private and epsilon == own_epsilon(base) else with_epsilon(epsilon, base.privacy.unit)
    overrides = [
        *([] if strategy is None else [with_strategy(strategy)]),
        *changes,
        *budget,
        *(f"{key}={value}" for key, value in wanted.items()),
        f'arms=["{arm}"]',
    ]
    scenario = settled(read(name, overrides, all_used=arm == "federated"))
    catalog.load("strategies", scenario.strategy.name)  # a wrong name is no cell that can't be run
    return scenario


def _values_of(varied: Sequence[str]) -> dict[str, list[str]]:
    """Read ``key=value,value,...`` of each axis as {key: values}.

    Raises:
        Mistake: A key can't be an axis, or comes twice; all faults.
    """
    check_assignments(varied)
    found: dict[str, list[str]] = {}
    faults = []
    for text in varied:
        key, values = value_of(text.replace("=", '="', 1) + '"')
        if key in _ELSEWHERE:
            faults.append(f"--vary {key}: expected {_ELSEWHERE[key]}")
        elif decides_rows(key):
            faults.append(f"--vary {key}: expected a setting of the training, the model or the strategy; figures on "
                          "other rows can't be compared")  # fmt: skip
        elif key in found:
            faults.append(f"--vary {key}: expected once, with all values, as in {key}=1,2")
        found[key] = str(values).split(",")
    if faults:
        raise Mistake("\n".join(faults))
    for key, values in found.items():
        _check_twins(f"--vary {key}", values)
    return found


def decides_rows(key: str) -> bool:
    """Whether a setting decides which rows are learned from or judged."""
    return key.split(".")[0] in OTHER_ROWS and key not in _ALLOWED_OF_DATA


def check_assignments(texts: Sequence[str]) -> None:
    """Make sure that each axis is of the form ``KEY=...``.

    Raises:
        Mistake: Some are not: all of them.
    """
    wrong = [text for text in texts if not re.match(r"[\w.-]+=", text)]
    if wrong:
        raise Mistake("\n".join(f"--vary: expected KEY=VALUES, got {text!r}" for text in wrong))


def _check_changes(axes: Axes, varied: Mapping[str, object]) -> None:
    """Make sure that every change has an effect.

    Raises:
        Mistake: An option or an axis says the same; all of them.
    """
    faults = []
    for text in axes.changes:
        key = text.partition("=")[0].strip()
        if key == "arms":
            faults.append("--set arms: expected --arms")
        elif key in varied:
            faults.append(f"--set {key}: expected none beside --vary {key}")
        elif key == _EPSILON and axes.epsilons is not None:
            faults.append(f"--set {key}: expected none beside --epsilon")
        elif key == "seeds" and axes.seeds is not None:
            faults.append("--set seeds: expected none beside --seeds")
    if faults:
        raise Mistake("\n".join(faults))


def _check_twins(option: str, values: Sequence[str]) -> None:
    if len(set(values)) < len(values):
        raise Mistake(f"{option}: expected each value once, got {','.join(values)}")


def _check_choice(cells: Sequence[Cell], settings: Sequence[str]) -> None:
    """Make sure that there are validation rows where there is something to choose.

    Raises:
        Mistake: There are none.
    """
    split = cells[0].scenario.split
    if settings and not split.validation:
        raise Mistake(f"split.validation: expected more than 0, since validation rows choose among the values of "
                      f"{', '.join(settings)}, got 0")  # fmt: skip
