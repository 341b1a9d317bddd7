"""The story of one scenario at several privacy levels: how good it is, and what an attacker learns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from fedsim.audits.audit import Audit, audit
from fedsim.audits.claims import claim_in
from fedsim.audits.target import Effort, Training
from fedsim.experiments.experiment import execute
from fedsim.mistakes import Mistake
from fedsim.privacy.unit import Protected
from fedsim.privacy.units import unit_of
from fedsim.report.findings import Numbers
from fedsim.results.metrics import Metric
from fedsim.results.run_directory import Run
from fedsim.scenario.files import read
from fedsim.scenario.schema import Scenario
from fedsim.scenario.unit_facts import NO_UNIT, UNIT_OF_RECORDS, facts_of

NONE = "none"
_MOST = 6  # levels that fit a page
_ATTACKS = 7  # that are told of at each level, at most
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Level:
    """One privacy level: how it is called, the run that was trained at it, and what attacks gave."""

    name: str
    run: Run
    audit: Audit

    @property
    def private(self) -> bool:
        """Whether noise was asked for."""
        return self.name != NONE

    @property
    def kind(self) -> Training:
        """Which of the audit's trainings is the level's."""
        return "private" if self.private else "plain"

    @property
    def title(self) -> str:
        """What stands above its column."""
        return f"epsilon {self.name}" if self.private else "no privacy"

    @cached_property
    def numbers(self) -> Numbers:
        """The comparison of its run."""
        return Numbers(self.run)

    def mean(self, metric: Metric) -> dict[str, float | None]:
        """Return a metric of the federated model inside sites, with its 95 % interval at institutions like these."""
        found = self.numbers.of("mean", self.private, "federated", metric.name)
        values = {"mean": found.mean, "low": found.low, "high": found.high}
        return {key: None if math.isnan(value) else value for key, value in values.items()}

    @property
    def values(self) -> dict[str, Any]:
        """All figures as JSON holds them."""
        figures = {metric.name: self.mean(metric) for metric in self.run.metrics}
        return {"level": self.name, "run_dir": str(self.run.path), "test": figures, "audit": self.audit.values}


@dataclass(frozen=True)
class Story:
    """What became of a scenario at each level."""

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
        if text != NONE and not _is_epsilon(text):
            raise Mistake(f"--epsilon: expected none or numbers > 0, e.g. none,8,1, got {text!r}")
    if len(set(levels)) < len(levels) or len(levels) > _MOST:
        raise Mistake(f"--epsilon: expected up to {_MOST} different levels, got {epsilons}")
    own = read(name, changes).privacy.unit
    facts = facts_of(own)
    if facts.promises and unit_of(own).protects is not Protected.RECORD:
        raise Mistake(f'--epsilon: expected a scenario of privacy.unit = "{UNIT_OF_RECORDS}", whose records are '
                      f"attacked at each level, got {own!r}; without --epsilon whole sites are attacked")  # fmt: skip
    unit = [] if facts.promises else [f"privacy.unit={UNIT_OF_RECORDS}"]
    return {
        text: read(name, [*changes, 'arms=["federated"]',
                          *([f"privacy.epsilon={text}", *unit] if text != NONE else [f"privacy.unit={NO_UNIT}"])])
        for text in levels
    }  # fmt: skip


def tell(levels: dict[str, Scenario], folder: Path, effort: Effort, progress: Progress | None = None) -> Story:
    """Train and attack a scenario at each level.

    Args:
        levels: As ``scenarios`` returns them.
        folder: Where each level's run directory goes: ``none``, ``epsilon-8``.
        effort: Of each audit.
        progress: Called with (what is done, steps done, steps in all).
    """
    done = []
    for level, (name, scenario) in enumerate(levels.items()):
        steps = _Steps(name, level, len(levels), progress)
        run = execute(scenario, folder / (name if name == NONE else f"epsilon-{name}"), steps.train)
        claim = claim_in(run)
        released = claim is not None or name == NONE
        kinds: tuple[Training, ...] = ("plain",) if name == NONE else ("private",)
        found = audit(run.scenario, claim, effort, kinds if released else (), steps.attack)
        done.append(Level(name, run, found))
    return Story(done[0].run.scenario, done)


class _Steps:
    """Progress over all levels: one step for each attack, as many for the training before."""

    def __init__(self, name: str, level: int, levels: int, progress: Progress | None) -> None:
        self.name, self.before, self.total = name, 2 * _ATTACKS * level, 2 * _ATTACKS * levels
        self.tell = partial(progress) if progress else lambda label, done, total: None
        self.attacks: Iterator[int] = iter(range(_ATTACKS, 2 * _ATTACKS))

    def train(self, label: str, done: int, total: int) -> None:
        self.tell(f"{self.name}: {label}", self.before + _ATTACKS * done // total, self.total)

    def attack(self, label: str) -> None:
        self.tell(f"{self.name}: {label}", self.before + next(self.attacks, 2 * _ATTACKS - 1), self.total)


def _is_epsilon(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False
