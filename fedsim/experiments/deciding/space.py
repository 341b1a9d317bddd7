"""The space of a hyperparameter search: which settings are varied, between which values."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fedsim.mistakes import Mistake
from fedsim.scenario.changes import value_of
from fedsim.scenario.schema import Scenario

_DIGITS = 3
"""Numbers are tried with so many significant digits: more say nothing, and are hard to read."""

_RATE = "training.optimizer.lr"
_DECAY = "training.optimizer.weight_decay"
_CLIP = "privacy.clip"
_EXAMPLE = "e.g. training.optimizer.lr=0.01..1:log, training.local_steps=1..8 or strategy.name=fedavg,scaffold"


class Suggesting(Protocol):
    """What proposes values: a trial of Optuna."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Propose a number."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Propose a whole number."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> Any:  # noqa: ANN401  one of the choices
        """Propose one of some values."""
        ...


@dataclass(frozen=True)
class Dimension:
    """One setting that is varied.

    Attributes:
        key: The setting, e.g. ``training.optimizer.lr``.
        choices: The values to choose among, as text; empty for a range.
        low: The least value of a range.
        high: The largest.
        whole: Whether the values are whole numbers.
        log: Whether each factor is as likely as the next, and not each difference.
    """

    key: str
    choices: Sequence[str] = ()
    low: float = math.nan
    high: float = math.nan
    whole: bool = False
    log: bool = False

    def suggest(self, trial: Suggesting) -> str:
        """Return a value as it would be typed."""
        if self.choices:
            return str(trial.suggest_categorical(self.key, list(self.choices)))
        if self.whole:
            return str(trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log))
        value = trial.suggest_float(self.key, self.low, self.high, log=self.log)
        return f"{float(f'{value:.{_DIGITS}g}'):g}"

    @property
    def ends(self) -> Sequence[str]:
        """The choices, or both ends of the range, as they would be typed."""
        if self.choices:
            return self.choices
        if self.whole:
            return [str(int(self.low)), str(int(self.high))]
        return [f"{self.low:g}", f"{self.high:g}"]

    def nearest(self, value: Any) -> Any:  # noqa: ANN401  of any setting
        """Return the value of the space that is nearest to a scenario's own; None if nothing is near."""
        if self.choices:
            return str(value) if str(value) in self.choices else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        inside = min(max(float(value), self.low), self.high)
        return int(inside) if self.whole else inside

    def __str__(self) -> str:
        """Return it as it would be typed."""
        if self.choices:
            return f"{self.key}={','.join(self.choices)}"
        return f"{self.key}={self.low:g}..{self.high:g}{':log' if self.log else ''}"


def usual(scenario: Scenario) -> list[Dimension]:
    """Return the space where none is given: the learning rate, the weight decay and, under privacy, the clip.

    The learning rate reaches a factor of 30 to both sides of the scenario's, the clip a factor of 10.
    """
    rate = scenario.training.optimizer.lr
    space = [
        Dimension(_RATE, low=_rounded(rate / 30), high=_rounded(rate * 30), log=True),
        Dimension(_DECAY, low=1e-6, high=1e-1, log=True),
    ]
    if scenario.private:
        clip = scenario.privacy.clip
        space.append(Dimension(_CLIP, low=_rounded(clip / 10), high=_rounded(clip * 10), log=True))
    return space


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def space_of(texts: Sequence[str]) -> list[Dimension]:
    """Read ``KEY=LOW..HIGH``, ``KEY=LOW..HIGH:log`` and ``KEY=V1,V2``.

    Raises:
        Mistake: A text is none of these, or a key comes twice: all faults.
    """
    space: dict[str, Dimension] = {}
    faults = []
    for text in texts:
        try:
            dimension = _dimension(text)
        except Mistake as mistake:
            faults.append(str(mistake))
            continue
        if dimension.key in space:
            faults.append(f"--vary {dimension.key}: expected once")
        space[dimension.key] = dimension
    if faults:
        raise Mistake("\n".join(faults))
    return list(space.values())


def _dimension(text: str) -> Dimension:
    if not re.match(r"[\w.-]+=", text):
        raise Mistake(f"--vary {text}: expected KEY=VALUES, {_EXAMPLE}")
    key, values = value_of(text.replace("=", '="', 1) + '"')
    said = str(values)
    low, dots, rest = said.partition("..")
    if not dots:
        choices = said.split(",")
        if len(set(choices)) < max(2, len(choices)):
            raise Mistake(f"--vary {text}: expected two or more values, each once, or a range, {_EXAMPLE}")
        return Dimension(key, choices)

    high, _, how = rest.partition(":")
    whole = _is(int, low) and _is(int, high)
    if how not in ("", "log") or not (_is(float, low) and _is(float, high)):
        raise Mistake(f"--vary {text}: expected a range LOW..HIGH or LOW..HIGH:log, {_EXAMPLE}")
    log = how == "log"
    if not float(low) < float(high) or (log and float(low) <= 0):
        least = "0 < LOW < HIGH" if log else "LOW < HIGH"
        raise Mistake(f"--vary {text}: expected {least}")
    return Dimension(key, (), float(low), float(high), whole, log)


def _is(kind: type[int] | type[float], text: str) -> bool:
    try:
        return math.isfinite(kind(text))
    except ValueError:
        return False
