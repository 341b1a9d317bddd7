"""A scenario's own table made into a task: its columns, its outcome, its rows, and an account of every row."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedsim.data.own_table import cleaning
from fedsim.data.own_table.models import model_of
from fedsim.data.own_table.ranges import (
    FITTED,
    Declared,
    check_all_there,
    check_no_more,
    column_of,
    declared_for,
    fitted,
)
from fedsim.data.own_table.reading import Table, digest, read_table
from fedsim.data.own_table.target import Target, needs_entry, target_of
from fedsim.data.tables import Column, Number, encode
from fedsim.data.task import SITE, Rows, Task
from fedsim.mistakes import Mistake
from fedsim.scenario import catalog
from fedsim.scenario.schema import Data

_ALL = "all rows"  # the site of a table without a column of sites


@dataclass(frozen=True)
class Intake:
    """What became of a file's rows: ``rows_in`` is ``rows_used`` and all that were left out.

    Attributes:
        file: Its name.
        rows_in: How many it has.
        rows_used: How many make up the sites.
        left_out: Which were not used, and why.
        notes: What was repaired, cut, inferred or left aside.
        ranges_fitted: Whether ranges were taken from the rows, which no privacy covers.
    """

    file: str
    rows_in: int
    rows_used: int
    left_out: tuple[cleaning.LeftOut, ...]
    notes: tuple[str, ...]
    ranges_fitted: bool

    def as_json(self) -> dict[str, Any]:
        """Return it as values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Prepared:
    """A table of one's own, ready to be used."""

    task: Task
    intake: Intake


def settled(data: Data) -> Data:
    """Return the section as it must be to mean the same later and elsewhere: whole path, file's digest, all ranges.

    Raises:
        Mistake: The file is not there.
    """
    if data.path is None:
        return data
    path = Path(data.path).absolute()
    if not path.is_file():
        raise Mistake(f"data.path: expected a file, there is none at {data.path}")
    fixed = data.model_copy(update={"path": str(path), "sha256": data.sha256 or digest(path)})
    if data.target is None or data.ranges == FITTED:
        return fixed
    declared = declared_for(path, data.ranges)
    return fixed.model_copy(update={"ranges": dict(declared.entries)}) if declared.entries else fixed


def check_digest(data: Data) -> None:
    """Make sure that the file is the one a run was begun with.

    Raises:
        Mistake: It has changed.
    """
    if data.path and data.sha256 and digest(Path(data.path)) != data.sha256:
        raise Mistake(f"data.path: expected {data.path} as it was when the run was begun, it has changed since; "
                      "begin a new run")  # fmt: skip


def prepare(data: Data) -> Prepared:
    """Read a table and make it into a task.

    Raises:
        MissingRanges: Columns have no public range; it has a template.
        Mistake: Something in the file is wrong, or not what was declared.
    """
    path, name = Path(data.path or ""), data.target or ""
    check_digest(data)
    table = read_table(path)
    roles = {"outcome": name, "site": data.site, "time": data.time}
    _check_roles(table, roles)
    _check_groups(table, roles, data.groups or [])
    used, left_out = cleaning.without(table, roles)
    if not len(used.rows):
        raise Mistake(f"{table.name}: expected rows with {name}, none of the {len(table.rows)} has all that is needed")
    features = [str(column) for column in used.frame if column not in roles.values()]
    declared = None if data.ranges == FITTED else declared_for(path, data.ranges)
    if declared:
        asked = [*features, *([name] if needs_entry(used, name, data.kind) else [])]
        check_no_more(path, [str(column) for column in used.frame], declared)
        check_all_there(path, asked, lambda column: cleaning.kind_of(used, column), declared)
    target = target_of(used, name, data.kind, declared)
    values, columns, notes = _features(used, features, declared)
    said = (*table.repairs, *target.said, *notes)
    intake = Intake(table.name, len(table.rows), len(used.rows), left_out, said, declared is None)
    return Prepared(_task(data, used, target, columns, encode(values, columns)), intake)


def _task(data: Data, used: Table, target: Target, columns: tuple[Column, ...], inputs: np.ndarray) -> Task:
    site = used.frame[data.site].map(_site_name) if data.site else pd.Series([_ALL] * len(used.rows))
    time = cleaning.times(used, data.time) if data.time else None
    groups = {name: cleaning.groups(used, name) for name in data.groups or ()}
    rows = Rows(inputs, target.values, site.to_numpy(dtype=str), time, groups)
    return Task(
        title=f"{data.target} in {used.name}",
        outcome=target.meaning,
        source=f"{used.name}, a table of one's own",
        columns=columns,
        model=model_of(data.model, target.outputs),
        load=lambda: rows,
        kind=target.kind,
        range=target.column if isinstance(target.column, Number) else None,
        by_time=data.time is not None,
    )


def _check_roles(table: Table, roles: Mapping[str, str | None]) -> None:
    keys = {"outcome": "data.target", "site": "data.site", "time": "data.time"}
    known = [str(name) for name in table.frame]
    given = {role: name for role, name in roles.items() if name is not None}
    for role, name in given.items():
        if name not in known:
            hint = catalog.nearest(name, known)
            raise Mistake(f"{keys[role]}: expected a column of {table.name}, got {name!r}{hint}")
    if len(set(given.values())) < len(given):
        raise Mistake(f"data: expected a column of its own for {' and '.join(given)}, got {', '.join(given.values())}")


def _check_groups(table: Table, roles: Mapping[str, str | None], groups: list[str]) -> None:
    known = [str(name) for name in table.frame]
    taken = {name: role for role, name in roles.items() if name is not None}
    for number, name in enumerate(groups):
        if name not in known:
            raise Mistake(f"data.groups: expected columns of {table.name}, got {name!r}{catalog.nearest(name, known)}")
        if name in taken or name in groups[:number]:
            got = f"the {taken[name]}, {name!r}" if name in taken else f"{name!r} twice"
            raise Mistake(f"data.groups: expected columns to compare beside the sites, each once, got {got}")
        if name == SITE:
            raise Mistake(f"data.groups: expected another name than {SITE!r}, which stands for the sites")


def _features(
    table: Table, names: list[str], declared: Declared | None
) -> tuple[pd.DataFrame, tuple[Column, ...], list[str]]:
    """Return typed values, their columns, and what there is to say of them."""
    values, columns, notes, aside = {}, [], [], []
    for name in names:
        column = _column(table, name, declared)
        if column is None:
            aside.append(name)
            continue
        values[name], note = cleaning.typed(table, column)
        columns.append(column)
        notes += [note] if note else []
    if not columns:
        raise Mistake(f"{table.name}: expected a column to learn from beside {', '.join(names) or 'the outcome'}")
    if aside:
        notes.append(f"columns left out: {', '.join(aside)}")
    if declared is None:
        notes.append("ranges and categories were taken from these rows")
    return pd.DataFrame(values), tuple(columns), notes


def _column(table: Table, name: str, declared: Declared | None) -> Column | None:
    if declared:
        return column_of(name, declared.entries[name], declared.place)
    values = table.frame[name]
    known = cleaning.numbers(table, name) if cleaning.kind_of(table, name) == "numbers" else values.where(
        ~cleaning.is_missing(values)
    )  # fmt: skip
    return fitted(name, known)


def _site_name(value: Any) -> str:  # noqa: ANN401  a number or text
    return value if isinstance(value, str) else f"{value:g}"
