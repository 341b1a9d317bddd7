"""Read the arguments of ``fedsim.run`` as a scenario, with a table, a task or a strategy that is given in Python."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from fedsim.data.given_task import allow_given_task, with_given_task
from fedsim.data.own_table import frames
from fedsim.data.own_table.prepared import Faults
from fedsim.data.own_table.reading import Table
from fedsim.data.own_table.roles import check_roles
from fedsim.mistakes import Mistake
from fedsim.scenario.files import read, read_own
from fedsim.scenario.schema import FRAME, Scenario
from fedsim.strategy.given_strategy import allow_given_strategy, with_given_strategy


@dataclass(frozen=True)
class GivenData:
    """The arguments that say what to learn from; None for each that was not given.

    Attributes:
        data: A pandas frame, or the path of a table.
        target: The column with the outcome.
        site: The column that names each row's site.
        time: The column with the moment of each row.
        groups: The columns to compare beside the sites.
        ranges: The file of the public ranges, ``from-data``, or {column: its entry}.
    """

    data: Any = None
    target: str | None = None
    site: str | None = None
    time: str | None = None
    groups: Sequence[str] | None = None
    ranges: str | Path | Mapping[str, Any] | None = None

    @property
    def is_frame(self) -> bool:
        """Whether the data is meant to be a frame, and no path."""
        return self.data is not None and not isinstance(self.data, str | Path)

    def values(self) -> dict[str, Any]:
        """Return the values of the scenario's section ``data``.

        Raises:
            Mistake: An argument is of another type.
        """
        values: dict[str, Any] = {}
        for key in ("target", "site", "time"):
            if getattr(self, key) is not None:
                values[key] = getattr(self, key)
        if self.data is not None:
            values["path"] = FRAME if self.is_frame else str(self.data)
        if self.groups is not None:
            values["groups"] = [self.groups] if isinstance(self.groups, str) else list(self.groups)
        if isinstance(self.ranges, Mapping):
            values["ranges"] = {name: _plain(entry, f"ranges: {name}") for name, entry in self.ranges.items()}
        elif self.ranges is not None:
            values["ranges"] = str(self.ranges)
        return values


@contextmanager
def scenario_of(
    scenario: str | Path | None,
    changes: Sequence[str],
    epsilon: str | None,
    given: GivenData,
) -> Iterator[Scenario]:
    """Read a scenario, and hold a table that is given as a frame while the scenario is in use.

    Raises:
        Mistake: The frame, its columns or the scenario are wrong: all faults.
    """
    faults = Faults()
    table: Table | None = None
    chosen: Scenario | None = None
    if given.is_frame:
        with faults.collected():
            table = frames.table_of(given.data)
    with faults.collected():
        values = given.values()
        chosen = (
            read_own(changes, epsilon, values) if scenario is None else read(scenario, changes, epsilon, data=values)
        )
    known = list(table.columns) if table else frames.column_names(given.data)
    if given.is_frame and chosen and known:
        with faults.collected():
            check_roles(FRAME, known, chosen.data)
    faults.raise_all()
    assert chosen is not None  # noqa: S101  without a scenario there was a fault

    with frames.held(table) if table else nullcontext() as digest:
        if digest:
            data = chosen.data.model_copy(update={"sha256": digest})
            chosen = chosen.model_copy(update={"data": data})
        yield chosen


def given_code(task: Any, strategy: Any) -> list[str]:  # noqa: ANN401  what the caller gave, not yet checked
    """Return the changes that put a task and a strategy, where they are given, in place of a scenario's.

    Args:
        task: As ``with_given_task`` takes it, or None.
        strategy: As ``with_given_strategy`` takes it, or None.

    Raises:
        Mistake: One of them is something else: all faults.
    """
    faults = Faults()
    changes: list[str] = []
    if task is not None:
        with faults.collected():
            changes.append(with_given_task(task))
    if strategy is not None:
        with faults.collected():
            changes.append(with_given_strategy(strategy))
    faults.raise_all()
    return changes


def allow_given_code(task: Any, strategy: Any) -> None:  # noqa: ANN401  as above
    """Let the task and the strategy that a run was begun with be loaded again.

    Raises:
        Mistake: One of them is none.
    """
    if task is not None:
        allow_given_task(task)
    if strategy is not None:
        allow_given_strategy(strategy)


def _plain(value: Any, place: str) -> Any:  # noqa: ANN401
    """Convert an entry of the ranges to values that a scenario can hold.

    Raises:
        Mistake: It holds something else.
    """
    if isinstance(value, Mapping):
        return {str(key): _plain(part, f"{place}: {key}") for key, part in value.items()}
    if isinstance(value, list | tuple | range | set | np.ndarray):
        return [_plain(part, place) for part in (sorted(value) if isinstance(value, set) else value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, date):
        return value.isoformat()[:10]
    if not isinstance(value, str | bool | int | float):
        expected = '[low, high], a list of categories, a dictionary, or "leave out"'
        raise Mistake(f"{place}: expected {expected}, got {type(value).__name__}")
    return value
