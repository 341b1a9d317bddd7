"""Pictures of the pages as numbers for SVG: curves over rounds, and intervals on a common scale."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedsim import figures
from fedsim.report.charts import PRIVACY

WIDTH, HEIGHT = 440, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 26
BAR = 200  # the width of a picture of an interval

_MOST_POINTS = 400  # of a line; more can't be told apart
_TICKS = 4

Curves = Mapping[tuple[str, bool, int], Mapping[int, float]]
"""{(arm, private, seed): {round: the figure after it}}."""

_Lines = Mapping[tuple[str, bool, int], Mapping[int, float]] | Mapping[tuple[str, bool], Mapping[int, float]]


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        arm: The arm, which has a colour and a pattern.
        points: As SVG has them.
        end: The last point, (x, y).
        last: The last figure, in words.
        round: Its round.
    """

    arm: str
    points: str
    end: tuple[float, float]
    last: str
    round: int


@dataclass(frozen=True)
class Panel:
    """A chart of the trainings with privacy, or without.

    Attributes:
        title: With or without privacy.
        lines: The lines, each the mean over the seeds that have the round.
        rows: The ticks of the figure: (y, text).
        columns: The ticks of the rounds: (x, text).
        told: What the picture shows, in words.
    """

    title: str
    lines: Sequence[Line]
    rows: Sequence[tuple[float, str]]
    columns: Sequence[tuple[float, str]]
    told: str

    @property
    def arms(self) -> list[str]:
        """The arms that have a line."""
        return list(dict.fromkeys(line.arm for line in self.lines))


def panels(curves: Curves, rounds: int, label: str, by_seed: bool = False) -> list[Panel]:
    """Draw curves: a panel without privacy and one with it, on one scale.

    Args:
        curves: The curves of all trainings.
        rounds: The rounds of a training.
        label: The name of the figure.
        by_seed: Whether each seed has a line of its own; else there is one for the mean over seeds.
    """
    means: _Lines = curves if by_seed else _means(curves)
    values = [value for line in means.values() for value in line.values()]
    if not values:
        return []
    ticks = _ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]
    last_round = max(rounds, max(number for line in means.values() for number in line), 1)

    def across(number: int) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * number / last_round, 1)

    def down(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low), 1)

    drawn = []
    for private in (False, True):
        own = [(key[0], line) for key, line in means.items() if key[1] == private and line]
        if not own:
            continue
        lines = []
        for arm, line in own:
            numbers = _thinned(sorted(line))
            points = " ".join(f"{across(number)},{down(line[number])}" for number in numbers)
            last = numbers[-1]
            lines.append(Line(arm, points, (across(last), down(line[last])), figures.figure(line[last]), last))
        ends = ", ".join(f"{line.arm} {line.last} after round {line.round}" for line in lines)
        halfway = last_round // 2
        columns = [(across(number), str(number)) for number in dict.fromkeys((0, halfway, last_round))]
        rows = [(down(tick), f"{tick:g}".replace("-", "−")) for tick in ticks]
        drawn.append(Panel(PRIVACY[private], lines, rows, columns, f"Validation {label}, {PRIVACY[private]}: {ends}"))
    return drawn


def _means(curves: Curves) -> dict[tuple[str, bool], dict[int, float]]:
    """Return the mean over seeds at each round that all seeds have."""
    grouped: dict[tuple[str, bool], list[Mapping[int, float]]] = {}
    for (arm, private, _), curve in curves.items():
        if curve:
            grouped.setdefault((arm, private), []).append(curve)
    means = {}
    for key, of_seeds in grouped.items():
        shared = set(of_seeds[0]).intersection(*of_seeds[1:])
        means[key] = {number: sum(curve[number] for curve in of_seeds) / len(of_seeds) for number in shared}
    return means


def _thinned(numbers: Sequence[int]) -> list[int]:
    step = max(1, math.ceil(len(numbers) / _MOST_POINTS))
    kept = list(numbers[::step])
    return kept if kept[-1] == numbers[-1] else [*kept, numbers[-1]]


def _ticks(least: float, most: float) -> list[float]:
    """Return round numbers from at most the least value to at least the largest."""
    span = most - least
    if not span > 1e-9 * max(1.0, abs(least)):
        span = max(abs(least) * 0.1, 0.01)
    rough = span / _TICKS
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough)
    first = math.floor(least / step)
    last = max(math.ceil(most / step), first + 1)
    return [round(number * step, 12) for number in range(first, last + 1)]


@dataclass(frozen=True)
class Interval:
    """A figure with its interval on a scale, in units of the picture; low and high are None without an interval."""

    middle: float
    low: float | None
    high: float | None


def intervals(values: Sequence[tuple[float, float, float]]) -> list[Interval | None]:
    """Draw (mean, low, high) of several figures on one scale; None where the mean is not known."""
    known = [end for mean, low, high in values if not math.isnan(mean) for end in _ends(mean, low, high)]
    if not known:
        return [None] * len(values)
    least, most = min(known), max(known)
    span = (most - least) or 1.0

    def across(value: float) -> float:
        return round(6 + (BAR - 12) * (value - least) / span, 1)

    drawn: list[Interval | None] = []
    for mean, low, high in values:
        if math.isnan(mean):
            drawn.append(None)
        elif math.isnan(low) or math.isnan(high):
            drawn.append(Interval(across(mean), None, None))
        else:
            drawn.append(Interval(across(mean), across(low), across(high)))
    return drawn


def _ends(mean: float, low: float, high: float) -> Iterable[float]:
    return (mean,) if math.isnan(low) or math.isnan(high) else (mean, low, high)
