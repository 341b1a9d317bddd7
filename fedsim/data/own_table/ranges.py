"""Public ranges and levels of one's own columns: declared in the scenario or in a file beside the table.

An entry says what a column may hold, from what is known without these rows: ``age = [0, 120, "years"]``,
``sex = ["female", "male"]``, ``stage = { levels = [1, 2, 3] }``, or ``patient_id = "leave out"``.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fedsim.data.tables import Column, Levels, Number
from fedsim.figures import as_written
from fedsim.mistakes import Mistake
from fedsim.scenario import catalog
from fedsim.scenario.reading import read_toml

LEAVE_OUT, OPEN, FITTED = "leave out", "?", "from-data"
_LEVELS = 1000  # the most that a column may have
_EXAMPLES = (
    'age = [0, 120, "years"], sex = ["female", "male"], stage = { levels = [1, 2, 3] } or patient_id = "leave out"'
)
_TEMPLATE = """\
# Public ranges of the columns of {name}. Write down what is known without looking at these rows: limits of the
# measurement, of the form that was filled in, of the law. A range that is taken from the rows tells about them, and
# no noise covers that. Numbers outside their range are cut to it; a category that is not listed is an error.
# Examples: age = [0, 120, "years"]   sex = ["female", "male"]   stage = {{ levels = [1, 2, 3] }}
# A column that is not to be used: patient_id = "leave out"

"""


@dataclass(frozen=True)
class Declared:
    """Entries by column, and where they stand."""

    entries: Mapping[str, Any]
    place: str


class MissingRanges(Mistake):
    """Columns that have no public range; ``template`` is a file to fill in, for ``path``."""

    def __init__(self, message: str, path: Path, template: str) -> None:
        super().__init__(message)
        self.path, self.template = path, template


def side_file(path: Path) -> Path:
    """Return where the ranges of a table are looked for: ``patients.ranges.toml`` beside ``patients.csv``."""
    stem = path.name.removesuffix(".gz").rpartition(".")[0] or path.name
    return path.with_name(f"{stem}.ranges.toml")


def declared_for(path: Path, ranges: str | Mapping[str, Any] | None) -> Declared:
    """Return what was declared: in the scenario, in the file it names, or in the side file; nothing if none is there.

    Raises:
        Mistake: There is no such file, or it is not TOML.
    """
    if isinstance(ranges, Mapping):
        return Declared(ranges, "data.ranges")
    if ranges is None and not side_file(path).is_file():
        return Declared({}, side_file(path).name)
    file = side_file(path) if ranges is None else Path(ranges)
    try:
        return Declared(read_toml(file, file.name)[1], file.name)
    except OSError as error:
        raise Mistake(f"data.ranges: expected a table, 'from-data' or a TOML file, got {str(file)!r}: "
                      f"{error.strerror}") from None  # fmt: skip


def column_of(name: str, entry: Any, place: str) -> Column | None:  # noqa: ANN401  anything TOML can hold
    """Return the column an entry declares; None if it is to be left out.

    Raises:
        Mistake: It declares nothing of the kind.
    """
    if entry == LEAVE_OUT:
        return None
    about = entry if isinstance(entry, dict) else _in_full(entry)
    number, levels = _number(name, about), _levels(name, about)
    if number is None and levels is None:
        raise Mistake(f"{place}: {name}: expected a range or levels such as {_EXAMPLES}, got {as_written(entry)}")
    return number or levels


def _in_full(entry: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a short entry as a table: numbers are a range, with its unit behind it, text is levels."""
    if not isinstance(entry, list):
        return {}
    if len(entry) in (2, 3) and all(map(_is_number, entry[:2])) and all(isinstance(unit, str) for unit in entry[2:]):
        return {"low": entry[0], "high": entry[1], "unit": "".join(entry[2:])}
    return {"levels": entry} if all(isinstance(level, str) for level in entry) else {}


def _number(name: str, about: dict[str, Any]) -> Number | None:
    low, high, unit, missing = (about.get(key, default) for key, default in
                                (("low", None), ("high", None), ("unit", ""), ("missing", True)))  # fmt: skip
    right = set(about) <= {"low", "high", "unit", "missing"} and isinstance(unit, str) and isinstance(missing, bool)
    if not (right and _is_number(low) and _is_number(high) and low < high):
        return None
    return Number(name, float(low), float(high), unit, missing)


def _levels(name: str, about: dict[str, Any]) -> Levels | None:
    levels, meaning, missing = about.get("levels"), about.get("meaning", ""), about.get("missing", True)
    right = set(about) <= {"levels", "meaning", "missing"} and isinstance(meaning, str) and isinstance(missing, bool)
    if not (right and isinstance(levels, list) and 2 <= len(levels) <= _LEVELS):
        return None
    if len(set(map(str, levels))) < len(levels):
        return None
    if all(map(_is_number, levels)):
        return Levels(name, tuple(map(float, levels)), meaning, missing)
    return Levels(name, tuple(levels), meaning, missing) if all(isinstance(one, str) for one in levels) else None


def _is_number(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def fitted(name: str, values: pd.Series) -> Column | None:
    """Return the column these very values make: no privacy covers that. None if they are all the same.

    Args:
        name: The column's name.
        values: Numbers or text, with what is missing.
    """
    known, missing = values.dropna(), bool(values.isna().any())
    if known.nunique() < 2:
        return None
    if pd.api.types.is_numeric_dtype(values):
        return Number(name, float(known.min()), float(known.max()), missing=missing)
    levels = tuple(sorted(known.unique()))
    if len(levels) > _LEVELS:
        raise Mistake(f"column {name}: expected at most {_LEVELS} categories, got {len(levels)}; leave it out")
    return Levels(name, levels, missing=missing)


def as_entry(column: Column) -> dict[str, Any]:
    """Return a column as the entry that declares it, in full."""
    if isinstance(column, Number):
        return {"low": column.low, "high": column.high, "unit": column.unit, "missing": column.missing}
    return {"levels": list(column.levels), "meaning": column.meaning, "missing": column.missing}


def check_all_there(path: Path, names: Sequence[str], kind_of: Callable[[str], str], declared: Declared) -> None:
    """Make sure that every column has an entry.

    Args:
        path: The table's.
        names: The columns.
        kind_of: From a column's name to ``numbers`` or ``text``.
        declared: The entries.

    Raises:
        MissingRanges: A column has none, or one that is still to be filled in.
    """
    open_ones = {name: kind_of(name) for name in names if declared.entries.get(name, OPEN) == OPEN}
    if open_ones:
        kinds = {kind: [name for name, own in open_ones.items() if own == kind] for kind in ("numbers", "text")}
        lines = [f"  {kind}: {', '.join(lacking)}" for kind, lacking in kinds.items() if lacking]
        entries = [f'{_key(name)} = "{OPEN}"  # {kind}\n' for name, kind in open_ones.items()]
        raise MissingRanges(
            "\n".join([f'{path.name}: expected a public range, levels or "{LEAVE_OUT}" for each column; '
                       f"{declared.place} lacks", *lines, f"write for example {_EXAMPLES}"]),
            side_file(path),
            _TEMPLATE.format(name=path.name) + "".join(entries),
        )  # fmt: skip


def check_no_more(path: Path, names: Sequence[str], declared: Declared) -> None:
    """Make sure that every entry is for a column.

    Raises:
        Mistake: One is not.
    """
    for name in declared.entries:
        if name not in names:
            hint = catalog.nearest(name, names)
            raise Mistake(f"{declared.place}: {name}: there is no such column in {path.name}{hint}")


def _key(name: str) -> str:
    """Return a column's name as a key of TOML."""
    bare = name and all(one.isascii() and (one.isalnum() or one in "_-") for one in name)
    return name if bare else json.dumps(name, ensure_ascii=False)
