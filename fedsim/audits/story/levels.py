"""Levels of a story: one scenario, trained and attacked with several budgets of privacy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from fedsim.audits.audit import Audit, audit, most_runs
from fedsim.audits.claims import claim_in
from fedsim.audits.target import Effort, Training
from fedsim.experiments.experiment import execute
from fedsim.mistakes import Mistake
from fedsim.outcomes.metric import Metric
from fedsim.privacy.unit import Place, Protected
from fedsim.privacy.units import unit_of
from fedsim.report.findings import Numbers
from fedsim.results.run_directory import Run
from fedsim.scenario.files import read
from fedsim.scenario.schema import Scenario
from fedsim.scenario.unit_facts import NO_UNIT, UNIT_OF_RECORDS, facts_of

_MOST = 6  # levels that fit a page


class Progress(Protocol):
    """Progress of a story."""

    def __call__(self, label: str, done: int, total: int, /) -> None:
        """Say what is done now, how many steps are done, and how many there are in all."""
        ...


@dataclass(frozen=True)
class Level:
    """One privacy level.

    Attributes:
        name: ``none``, or its epsilon.
        run: The run that was trained at it.
        audit: The findings of attacks on it.
    """

    name: str
    run: Run
    audit: Audit

    @property
    def private(self) -> bool:
        """Whether noise was asked for."""
        return self.name != NO_UNIT

    @property
    def kind(self) -> Training:
        """The training that the audit attacks."""
        return "private" if self.private else "plain"

    @property
    def title(self) -> str:
        """The heading of its column."""
        return f"epsilon {self.name}" if self.private else "no privacy"

    @cached_property
    def numbers(self) -> Numbers:
        """The comparison of its run."""
        return Numbers(self.run)

    def mean(self, metric: Metric) -> dict[str, float | None]:
        """Return a metric of the federated model inside sites, with its 95 % interval at institutions like these."""
        estimate = self.numbers.of("mean", self.private, "federated", metric.name)
        values = {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}
        return {key: None if math.isnan(value) else value for key, value in values.items()}

    @property
    def values(self) -> dict[str, Any]:
        """All figures as JSON holds them."""
        figures = {metric.name: self.mean(metric) for metric in self.run.metrics}
        return {"level": self.name, "run_dir": str(self.run.path), "test": figures, "audit": self.audit.values}


@dataclass(frozen=True)
class Story:
    """A scenario at each level."""

    scenario: Scenario
    levels: Sequence[Level]

    @property
    def broken(self) -> list[Level]:
        """The levels whose claim an attack refuted."""
        return [level for level in self.levels if level.audit.broken]

    @property
    def values(self) -> dict[str, Any]:
        """All figures as JSON holds them."""
        return {
            "scenario": self.scenario.name,
            "title": self.scenario.title,
            "seeds": self.scenario.all_seeds,
            "broken": bool(self.broken),
            "levels": [level.values for level in self.levels],
        }


def scenarios(name: str, changes: Sequence[str], epsilons: str) -> dict[str, Scenario]:
    """Return {level: the scenario at it}, of which the federated arm alone is trained.

    Args:
        name: A scenario's name or file.
        changes: ``key=value`` for all levels.
        epsilons: ``none`` and numbers, e.g. ``none,8,1``.

    Raises:
        Mistake: A level is neither, or there are too many.
    """
    levels = [text.strip() for text in epsilons.split(",")]
    for text in levels:
        if text != NO_UNIT and not _is_epsilon(text):
            raise Mistake(f"--epsilon: expected none or numbers > 0, e.g. none,8,1, got {text!r}")
    if len(set(levels)) < len(levels) or len(levels) > _MOST:
        raise Mistake(f"--epsilon: expected up to {_MOST} different levels, got {epsilons}")
    unit = read(name, changes, all_used=False).privacy.unit
    promises = facts_of(unit).promises
    if promises and unit_of(unit).protects is not Protected.RECORD:
        raise Mistake(
            f'--epsilon: expected a scenario of privacy.unit = "{UNIT_OF_RECORDS}", whose records are attacked at each '
            f"level, got {unit!r}; without --epsilon whole sites are attacked"
        )

    chosen = {}
    for text in levels:
        if text == NO_UNIT:
            settings = [f"privacy.unit={NO_UNIT}"]
        elif promises:
            settings = [f"privacy.epsilon={text}"]
        else:
            settings = [f"privacy.epsilon={text}", f"privacy.unit={UNIT_OF_RECORDS}"]
        chosen[text] = read(name, [*changes, 'arms=["federated"]', *settings])
    return chosen


def tell(levels: dict[str, Scenario], folder: Path, effort: Effort, progress: Progress | None = None) -> Story:
    """Train and attack a scenario at each level.

    Args:
        levels: As ``scenarios`` returns them.
        folder: Where each level's run directory goes: ``none``, ``epsilon-8``.
        effort: Of each audit.
        progress: Called with (what is done, steps done, steps in all).
    """
    told = []
    for number, (name, scenario) in enumerate(levels.items()):
        steps = _Steps(name, number, len(levels), progress)
        run = execute(scenario, folder / (name if name == NO_UNIT else f"epsilon-{name}"), steps.train)
        claim = claim_in(run)

        # A budget that not even the first round fits into leaves nothing to attack.
        trainings: tuple[Training, ...] = ()
        if name == NO_UNIT:
            trainings = ("plain",)
        elif claim is not None:
            trainings = ("private",)
        told.append(Level(name, run, audit(run.scenario, claim, effort, trainings, steps.attack)))
    return Story(told[0].run.scenario, told)


class _Steps:
    """Progress over all levels: one step for each attack, as many for the training before."""

    def __init__(self, name: str, level: int, levels: int, progress: Progress | None) -> None:
        self.name = name
        self.attacks = most_runs(Place.IN_STEPS, ("private",))
        self.before = 2 * self.attacks * level
        self.total = 2 * self.attacks * levels
        self.attacked = 0
        self.progress = progress

    def train(self, label: str, done: int, total: int) -> None:
        self._tell(label, self.before + self.attacks * done // total)

    def attack(self, label: str) -> None:
        self._tell(label, self.before + self.attacks + self.attacked)
        self.attacked += 1

    def _tell(self, label: str, done: int) -> None:
        if self.progress:
            self.progress(f"{self.name}: {label}", done, self.total)


def _is_epsilon(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False
