"""Make a task of the user's own table, with an account of every row."""

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
    """An account of a file's rows: ``rows_in`` is ``rows_used`` plus all rows that were left out.

    Attributes:
        file: The file's name.
        rows_in: The number of rows in the file.
        rows_used: The number of rows that make up the sites.
        left_out: The rows that were not used, with the reason.
        notes: Notes on all that was repaired, cut, inferred or left aside.
        ranges_fitted: Whether ranges were taken from the rows, which no privacy covers.
    """

    file: str
    rows_in: int
    rows_used: int
    left_out: tuple[cleaning.LeftOut, ...]
    notes: tuple[str, ...]
    ranges_fitted: bool

    def as_json(self) -> dict[str, Any]:
        """Return the account as values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Prepared:
    """A table of the user's own, ready to be used."""

    task: Task
    intake: Intake


def settled(data: Data) -> Data:
    """Complete the section so that it means the same later and elsewhere.

    It gets the whole path, the file's digest and all ranges.

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
        return fixed  # the ranges are the task's own, or those of the rows

    declared = declared_for(path, data.ranges)
    if not declared.entries:
        return fixed
    return fixed.model_copy(update={"ranges": dict(declared.entries)})


def check_digest(data: Data) -> None:
    """Check that the file is the same as when the run was begun.

    Raises:
        Mistake: It has changed.
    """
    if data.path and data.sha256 and digest(Path(data.path)) != data.sha256:
        expected = f"{data.path} as it was when the run was begun"
        raise Mistake(f"data.path: expected {expected}, it has changed since; begin a new run")


def prepare(data: Data) -> Prepared:
    """Read a table and make it a task.

    Raises:
        MissingRanges: Columns have no public range; the error has a template.
        Mistake: Something in the file is wrong, or not as it was declared.
    """
    path = Path(data.path or "")
    outcome = data.target or ""
    check_digest(data)
    table = read_table(path)
    roles = {"outcome": outcome, "site": data.site, "time": data.time}
    _check_roles(table, roles)
    _check_groups(table, roles, data.groups or [])

    used, left_out = cleaning.without(table, roles)
    if not len(used.rows):
        got = f"none of the {len(table.rows)} has all that is needed"
        raise Mistake(f"{table.name}: expected rows with {outcome}, {got}")

    # Columns are checked against their entries before a value is converted.
    features = [str(column) for column in used.frame if column not in roles.values()]
    declared = None if data.ranges == FITTED else declared_for(path, data.ranges)
    if declared:
        _check_entries(path, used, features, data, declared)

    target = target_of(used, outcome, data.kind, declared)
    values, columns, notes_on_features = _features(used, features, declared)
    task = _task(data, used, target, columns, encode(values, columns))
    intake = Intake(
        file=table.name,
        rows_in=len(table.rows),
        rows_used=len(used.rows),
        left_out=left_out,
        notes=(*table.repairs, *target.said, *notes_on_features),
        ranges_fitted=declared is None,
    )
    return Prepared(task, intake)


def _check_entries(
    path: Path,
    used: Table,
    features: list[str],
    data: Data,
    declared: Declared,
) -> None:
    """Check that each column has an entry if it needs it, and that no entry is left over."""
    outcome = data.target or ""
    to_declare = list(features)
    if needs_entry(used, outcome, data.kind):
        to_declare.append(outcome)

    check_no_more(path, [str(column) for column in used.frame], declared)
    check_all_there(path, to_declare, lambda column: cleaning.kind_of(used, column), declared)


def _task(
    data: Data,
    used: Table,
    target: Target,
    columns: tuple[Column, ...],
    inputs: np.ndarray,
) -> Task:
    site = pd.Series([_ALL] * len(used.rows))
    if data.site:
        site = used.frame[data.site].map(_site_name)

    rows = Rows(
        inputs=inputs,
        target=target.values,
        site=site.to_numpy(dtype=str),
        time=cleaning.times(used, data.time) if data.time else None,
        groups={name: cleaning.groups(used, name) for name in data.groups or ()},
    )
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
    """Check that outcome, site and time are columns of the table, each another.

    Raises:
        Mistake: They are not.
    """
    keys = {"outcome": "data.target", "site": "data.site", "time": "data.time"}
    known = [str(name) for name in table.frame]
    given = {role: name for role, name in roles.items() if name is not None}
    for role, name in given.items():
        if name not in known:
            hint = catalog.nearest(name, known)
            expected = f"a column of {table.name}"
            raise Mistake(f"{keys[role]}: expected {expected}, got {name!r}{hint}")

    if len(set(given.values())) < len(given):
        expected = f"a column of its own for {' and '.join(given)}"
        raise Mistake(f"data: expected {expected}, got {', '.join(given.values())}")


def _check_groups(table: Table, roles: Mapping[str, str | None], groups: list[str]) -> None:
    """Check that protected attributes are columns of the table, each once and with no other role.

    Raises:
        Mistake: They are not.
    """
    known = [str(name) for name in table.frame]
    role_of = {name: role for role, name in roles.items() if name is not None}
    for number, name in enumerate(groups):
        if name not in known:
            hint = catalog.nearest(name, known)
            expected = f"columns of {table.name}"
            raise Mistake(f"data.groups: expected {expected}, got {name!r}{hint}")

        expected = "columns to compare beside the sites, each once"
        if name in role_of:
            got = f"the {role_of[name]}, {name!r}"
            raise Mistake(f"data.groups: expected {expected}, got {got}")
        if name in groups[:number]:
            raise Mistake(f"data.groups: expected {expected}, got {name!r} twice")

        if name == SITE:
            expected = f"another name than {SITE!r}, which stands for the sites"
            raise Mistake(f"data.groups: expected {expected}")


def _features(
    table: Table, names: list[str], declared: Declared | None
) -> tuple[pd.DataFrame, tuple[Column, ...], list[str]]:
    """Convert the feature columns.

    Returns:
        The typed values, their columns, and notes on them.

    Raises:
        Mistake: No column is left to learn from, or a value is not as it was declared.
    """
    values = {}
    columns = []
    notes = []
    left_out = []
    for name in names:
        column = _column(table, name, declared)
        if column is None:
            left_out.append(name)
            continue
        columns.append(column)
        values[name], note = cleaning.typed(table, column)
        if note:
            notes.append(note)

    if not columns:
        others = ", ".join(names) or "the outcome"
        raise Mistake(f"{table.name}: expected a column to learn from beside {others}")
    if left_out:
        notes.append(f"columns left out: {', '.join(left_out)}")
    if declared is None:
        notes.append("ranges and categories were taken from these rows")
    return pd.DataFrame(values), tuple(columns), notes


def _column(table: Table, name: str, declared: Declared | None) -> Column | None:
    """Find a feature's column, declared or fitted to its values; None if it is to be left out."""
    if declared:
        return column_of(name, declared.entries[name], declared.place)
    if cleaning.kind_of(table, name) == "numbers":
        return fitted(name, cleaning.numbers(table, name))

    text = table.frame[name]
    return fitted(name, text.where(~cleaning.is_missing(text)))


def _site_name(value: Any) -> str:  # noqa: ANN401  a number or text
    return value if isinstance(value, str) else f"{value:g}"
