"""The kinds of outcomes. The folder ``kinds`` is their list: to add a kind is to add a file.

``fedsim.outcomes.outcome`` says what a kind has to have.
"""

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

from fedsim.classes import classes_in
from fedsim.mistakes import Mistake
from fedsim.outcomes import kinds
from fedsim.outcomes.metric import Metric
from fedsim.outcomes.outcome import Outcome

_own: dict[str, Outcome] = {}


@cache
def names() -> tuple[str, ...]:
    """Return the names of the ready-made kinds, sorted; the folder is read once."""
    found = []
    for folder in kinds.__path__:
        found += [path.stem.replace("_", "-") for path in Path(folder).glob("[!_]*.py")]
    return tuple(sorted(found))


def outcome_of(kind: str) -> Outcome:
    """Return a kind of outcome by its name.

    Raises:
        Mistake: There is no such kind; none stands in for it.
    """
    if kind in _own:
        return _own[kind]
    return _ready_made(kind)


@cache
def _ready_made(kind: str) -> Outcome:
    known = names()
    if kind not in known:
        raise Mistake(f"kind: expected {', '.join(map(repr, known))}, or a kind that a task brings, got {kind!r}")

    module = import_module(f"{kinds.__name__}.{kind.replace('-', '_')}")
    classes = classes_in(module, Outcome)
    if len(classes) != 1 or classes[0].name != kind:
        raise TypeError(f"{module.__file__}: expected one subclass of Outcome with the name {kind!r}")
    return classes[0]()


def declare(outcome: Outcome) -> None:
    """Make a kind known that a task brings, so that it is found by its name from now on.

    Raises:
        Mistake: Its name is that of a ready-made kind, or one of its metrics that of another metric.
    """
    if outcome.name in names():
        raise Mistake(f"kind {outcome.name!r}: expected a name of its own, this is that of a ready-made kind")
    if not outcome.metrics:
        raise Mistake(f"kind {outcome.name!r}: expected at least one metric, got none")

    others = {metric.name: metric for metric in _metrics(besides=outcome.name)}
    for metric in outcome.metrics:
        if others.get(metric.name, metric) != metric:
            said = "expected a name that no other metric has"
            raise Mistake(f"kind {outcome.name!r}: metric {metric.name!r}: {said}: {others[metric.name].label} has it")
    _own[outcome.name] = outcome


def is_metric(name: str) -> bool:
    """Whether a metric has this name."""
    return any(metric.name == name for metric in _metrics())


def metric_named(name: str) -> Metric:
    """Return a metric by its name.

    Raises:
        LookupError: There is none.
    """
    for metric in _metrics():
        if metric.name == name:
            return metric
    raise LookupError(f"expected the name of a metric, got {name!r}")


def _metrics(besides: str = "") -> Iterator[Metric]:
    """Yield the metrics of all kinds but one."""
    for kind in names():
        yield from _ready_made(kind).metrics
    for kind, outcome in _own.items():
        if kind != besides:
            yield from outcome.metrics
