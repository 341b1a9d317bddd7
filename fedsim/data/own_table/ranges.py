"""Read the public ranges and levels of columns, from the scenario or a file beside the table.

An entry says which values a column may hold, from public knowledge and without looking at these
rows: ``age = [0, 120, "years"]``, ``sex = ["female", "male"]``, ``stage = { levels = [1, 2, 3]
}``, ``visit = { from = "2015-01-01", to = "2025-12-31" }``, or ``patient_id = "leave out"``.

An entry may also say how values are to be read: ``missing = [9999, "unknown"]``, ``written =
"1.234,5"`` and ``read_as = { femal = "female" }``.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeGuard

import pandas as pd

from fedsim.data.own_table.cleaning import Options
from fedsim.data.own_table.file_bytes import is_pattern
from fedsim.data.own_table.notation import DATE_NOTATIONS, NUMBER_NOTATIONS, days_of
from fedsim.data.tables import Column, Levels, Number
from fedsim.figures import as_written
from fedsim.mistakes import Mistake
from fedsim.scenario import catalog
from fedsim.scenario.reading import read_toml
from fedsim.scenario.schema import FRAME

LEAVE_OUT = "leave out"  # the entry of a column that is not used
OPEN = "?"  # the entry of a column that is still to be filled in
FITTED = "from-data"  # in place of all entries: ranges are taken from the rows
_QUARTILES = 1.349  # standard deviations between the quartiles of a normal distribution
_LEVELS = 1000  # the most that a column may have
_RANGE_EXAMPLE = 'age = [0, 120, "years"]'
_LEVELS_EXAMPLES = 'sex = ["female", "male"], stage = { levels = [1, 2, 3] }'
_EXAMPLES = f'{_RANGE_EXAMPLE}, {_LEVELS_EXAMPLES} or patient_id = "{LEAVE_OUT}"'
_FORMS = {
    "numbers": '[lowest, highest, "unit"]',
    "dates": '{ from = "first day", to = "last day" }',
    "text": '["a level", "another level"], or "leave out"',
}
_TEMPLATE = """\
# Public ranges of the columns of {name}. Write down what is known without looking at these rows: limits of the
# measurement, of the form that was filled in, of the law. A range that is taken from the rows tells about them, and
# no noise covers that. Numbers outside their range are cut to it; a category that is not listed is an error.
# Examples: age = [0, 120, "years"]   sex = ["female", "male"]   stage = {{ levels = [1, 2, 3] }}
# Dates: visit = {{ from = "2015-01-01", to = "2025-12-31" }}
# A column that is not to be used: patient_id = "leave out"
# How values are read: weight = {{ low = 0, high = 300, missing = [999, "unknown"], written = "1.234,5" }}
# A text that stands for another: sex = {{ levels = ["female", "male"], read_as = {{ femal = "female" }} }}

"""


@dataclass(frozen=True)
class Declared:
    """Entries by column, the place where they stand, and whether other columns are fitted."""

    entries: Mapping[str, Any]
    place: str
    fits_rest: bool = False


class MissingRanges(Mistake):
    """Columns without a public range; ``template`` is a file to fill in, for ``path``.

    For a frame in memory there is no path, and the template is an argument of ``fedsim.run``.
    """

    def __init__(self, message: str, path: Path | None, template: str) -> None:
        super().__init__(message)
        self.path = path
        self.template = template


def leave_template(missing: MissingRanges) -> str:
    """Write a file of ranges to fill in beside the table, never over another; return what to do now."""
    if missing.path is None:
        otherwise = 'or ranges="from-data": then no privacy covers the ranges'
        return f"fill in and pass to fedsim.run:\n{missing.template}\n{otherwise}"
    otherwise = "or run again with --ranges from-data: then no privacy covers the ranges"
    try:
        with missing.path.open("x", encoding="utf-8") as file:
            file.write(missing.template)
    except FileExistsError:
        return f"fill in {missing.path}, which is there, and run again; {otherwise}"
    except OSError as error:
        return f"{missing.path}, to fill in, can't be written ({error.strerror}); {otherwise}"
    return f"{missing.path} was written: fill it in and run again; {otherwise}"


def side_file(path: Path) -> Path:
    """Name the file of a table's ranges: ``patients.ranges.toml`` beside ``patients.csv``."""
    without_gz = path.name.removesuffix(".gz")
    stem = without_gz.rpartition(".")[0] or path.name
    if is_pattern(path):
        stem = "sites"  # one file for all of them
    return path.with_name(f"{stem}.ranges.toml")


def declared_for(
    path: Path,
    ranges: str | Mapping[str, Any] | None,
    undeclared: str | None = None,
) -> Declared:
    """Read the declared ranges of a table.

    Args:
        path: The table.
        ranges: The ranges themselves or the name of their file. None stands for the side file, or
            for no entries if there is none; ``from-data`` does so, too, and fits other columns.
        undeclared: ``from-data`` if columns without an entry are fitted to the rows.

    Raises:
        Mistake: There is no such file, or it is not TOML.
    """
    fits_rest = FITTED in (ranges, undeclared)
    if isinstance(ranges, Mapping):
        return Declared(ranges, "data.ranges", fits_rest)

    is_beside = ranges in (None, FITTED)
    if is_beside and str(path) == FRAME:
        return Declared({}, "data.ranges", fits_rest)  # a frame has no place, and nothing beside it
    file = side_file(path) if is_beside else Path(str(ranges))
    if is_beside and not file.exists():
        return Declared({}, file.name, fits_rest)
    try:
        _, entries = read_toml(file, file.name)
    except OSError as error:
        expected = "a table, 'from-data' or a TOML file"
        got = f"{str(file)!r}: {error.strerror}"
        raise Mistake(f"data.ranges: expected {expected}, got {got}") from None
    return Declared(_with_texts(entries), file.name, fits_rest)


def _with_texts(value: Any) -> Any:  # noqa: ANN401
    """Convert the dates of TOML to text, which every scenario can hold."""
    if isinstance(value, dict):
        return {key: _with_texts(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_with_texts(part) for part in value]
    return value.isoformat() if isinstance(value, date) else value


def declares(entry: Any) -> bool:  # noqa: ANN401
    """Return whether an entry says which values a column may hold, and not only how to read it."""
    if isinstance(entry, dict):
        return not entry or not set(entry) <= {"missing", "written", "read_as"}
    return entry not in (None, OPEN)


def options_of(name: str, entry: Any, place: str) -> Options:  # noqa: ANN401
    """Return the settings of an entry that say how values are read.

    Raises:
        Mistake: A setting is none.
    """
    if not isinstance(entry, dict):
        return Options()

    missing = entry.get("missing")
    if isinstance(missing, list):
        if not all(_is_number(word) or isinstance(word, str) for word in missing):
            expected = 'true, false, or a list of values such as [9999, "unknown"]'
            raise Mistake(f"{place}: {name}.missing: expected {expected}, got {as_written(missing)}")
        words = tuple(missing)
    else:
        words = None

    written = entry.get("written", "")
    known = [*NUMBER_NOTATIONS, *DATE_NOTATIONS]
    if written and written not in known:
        expected = f"one of {', '.join(map(repr, known))}"
        raise Mistake(f"{place}: {name}.written: expected {expected}, got {as_written(written)}")

    read_as = entry.get("read_as", {})
    if not isinstance(read_as, dict) or not _all_text(list(read_as.values())):
        expected = 'texts such as { femal = "female" }'
        raise Mistake(f"{place}: {name}.read_as: expected {expected}, got {as_written(read_as)}")
    return Options(words, written, read_as)


def listed_levels(entry: Any) -> list[Any]:  # noqa: ANN401
    """Return the levels that an entry lists; empty if it lists none."""
    declaration = entry if isinstance(entry, dict) else _in_full(entry)
    levels = declaration.get("levels", [])
    return levels if isinstance(levels, list) else []


def origin_of(entry: Any) -> float:  # noqa: ANN401
    """Return the first day of an entry for dates, in days since 1970-01-01; else 0."""
    if isinstance(entry, dict) and isinstance(entry.get("from"), str):
        return days_of(entry["from"]) or 0.0
    return 0.0


def column_of(name: str, entry: Any, place: str) -> Column | None:  # noqa: ANN401
    """Convert an entry to the column it declares; None if the column is to be left out.

    Raises:
        Mistake: The entry declares nothing of the kind.
    """
    if entry == LEAVE_OUT:
        return None

    declaration = dict(entry) if isinstance(entry, dict) else _in_full(entry)
    declaration.pop("written", None)
    declaration.pop("read_as", None)
    if isinstance(declaration.get("missing"), list):
        declaration["missing"] = True
    try:
        column = _number(name, declaration)
    except Mistake as mistake:  # a mean outside the range, for example
        raise Mistake(f"{place}: {mistake}") from None
    column = column or _levels(name, declaration) or _dates(name, declaration)
    if column is None:
        expected = f"a range or levels such as {_EXAMPLES}"
        raise Mistake(f"{place}: {name}: expected {expected}, got {as_written(entry)}")
    return column


def _in_full(entry: Any) -> dict[str, Any]:  # noqa: ANN401
    """Convert a short entry to a table: two numbers and a unit are a range, text is levels."""
    if not isinstance(entry, list):
        return {}

    bounds = entry[:2]
    unit = entry[2:]  # of a range: empty or one word
    has_bounds = len(entry) in (2, 3) and all(map(_is_number, bounds))
    if has_bounds and _all_text(unit):
        return {"low": entry[0], "high": entry[1], "unit": "".join(unit)}
    if _all_text(entry):
        return {"levels": entry}
    return {}


def _number(name: str, declaration: dict[str, Any]) -> Number | None:
    """Convert a declaration to a number with its range; None if it declares none."""
    low = declaration.get("low")
    high = declaration.get("high")
    unit = declaration.get("unit", "")
    missing = declaration.get("missing", True)
    scale = declaration.get("scale", "linear")
    known = {key: declaration[key] for key in ("mean", "spread") if key in declaration}

    if not set(declaration) <= {"low", "high", "unit", "missing", "mean", "spread", "scale"}:
        return None
    if not isinstance(unit, str) or not isinstance(missing, bool):
        return None
    if not _is_number(low) or not _is_number(high) or not low < high:
        return None
    if scale not in ("linear", "log") or not all(map(_is_number, known.values())):
        return None
    known = {key: float(value) for key, value in known.items()}
    return Number(name, float(low), float(high), unit, missing, **known, log=scale == "log")


def _dates(name: str, declaration: dict[str, Any]) -> Number | None:
    """Convert a declaration to days since the first of some dates; None if it declares none."""
    first = declaration.get("from")
    last = declaration.get("to")
    missing = declaration.get("missing", True)

    if not set(declaration) <= {"from", "to", "missing"}:
        return None
    if not isinstance(first, str) or not isinstance(last, str) or not isinstance(missing, bool):
        return None
    first_day = days_of(first)
    last_day = days_of(last)
    if first_day is None or last_day is None or not first_day < last_day:
        return None
    return Number(name, 0.0, last_day - first_day, f"days since {first}", missing)


def _levels(name: str, declaration: dict[str, Any]) -> Levels | None:
    """Convert a declaration to a category with its levels; None if it declares none."""
    levels = declaration.get("levels")
    meaning = declaration.get("meaning", "")
    missing = declaration.get("missing", True)

    if not set(declaration) <= {"levels", "meaning", "missing"}:
        return None
    if not isinstance(meaning, str) or not isinstance(missing, bool):
        return None
    if not isinstance(levels, list) or not 2 <= len(levels) <= _LEVELS:
        return None
    if len(set(map(str, levels))) < len(levels):
        return None  # a level is listed twice

    if all(map(_is_number, levels)):
        return Levels(name, tuple(map(float, levels)), meaning, missing)
    if _all_text(levels):
        return Levels(name, tuple(levels), meaning, missing)
    return None


def _is_number(value: Any) -> TypeGuard[int | float]:  # noqa: ANN401
    if isinstance(value, bool):
        return False  # a bool is an int in Python
    return isinstance(value, int | float) and math.isfinite(value)


def _all_text(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def fitted(name: str, values: pd.Series) -> Column | None:
    """Fit a column's range or levels to its values, which no privacy covers.

    The mean and the spread of a number are its median and its quartiles' distance, so that a few
    values far away don't make all others look the same.

    Args:
        name: The column's name.
        values: Numbers or text, with missing values.

    Returns:
        The column; None if all values are the same.
    """
    known = values.dropna()
    missing = bool(values.isna().any())
    if known.nunique() < 2:
        return None

    if pd.api.types.is_numeric_dtype(values):
        low = float(known.min())
        high = float(known.max())
        lower, median, upper = map(float, known.astype(float).quantile([0.25, 0.5, 0.75]))

        # Where more than half of the values are the same, the quartiles say nothing.
        spread = (upper - lower) / _QUARTILES or float(known.astype(float).std(ddof=0))
        return Number(name, low, high, missing=missing, mean=median, spread=spread)

    levels = tuple(sorted(known.unique()))
    if len(levels) > _LEVELS:
        expected = f"at most {_LEVELS} categories"
        raise Mistake(f"column {name}: expected {expected}, got {len(levels)}; leave it out")
    return Levels(name, levels, missing=missing)


def as_entry(column: Column) -> dict[str, Any]:
    """Convert a column to the entry that declares it, in full."""
    if isinstance(column, Number):
        entry: dict[str, Any] = {
            "low": column.low,
            "high": column.high,
            "unit": column.unit,
            "missing": column.missing,
        }
        if column.mean is not None:
            entry |= {"mean": column.mean, "spread": column.spread}
        if column.log:
            entry["scale"] = "log"
        return entry
    return {
        "levels": list(column.levels),
        "meaning": column.meaning,
        "missing": column.missing,
    }


def check_all_there(
    path: Path,
    names: Sequence[str],
    kind_of: Callable[[str], str],
    declared: Declared,
) -> None:
    """Check that every column has an entry.

    Args:
        path: The table's path.
        names: The columns.
        kind_of: Decides for a column's name whether it holds ``numbers``, ``dates`` or ``text``.
        declared: The entries.

    Raises:
        MissingRanges: A column has no entry, or an entry that is still to be filled in.
    """
    lacking = [name for name in names if not declares(declared.entries.get(name))]
    if declared.fits_rest or not lacking:
        return

    kinds = {name: kind_of(name) for name in lacking}
    expected = f'a public range, levels or "{LEAVE_OUT}" for each column'
    lines = [f"{path.name}: expected {expected}; {declared.place} lacks"]
    for kind in _FORMS:
        of_kind = [name for name in lacking if kinds[name] == kind]
        if of_kind:
            lines.append(f"  {kind}: {', '.join(of_kind)}")
    if str(path) == FRAME:
        raise MissingRanges("\n".join(lines), None, _argument(lacking, kinds))
    lines.append(f"write for example {_EXAMPLES}")

    template = _TEMPLATE.format(name=path.name)
    for name in lacking:
        template += f'{_key(name)} = "{OPEN}"  # {kinds[name]}: {_FORMS[kinds[name]]}\n'
    raise MissingRanges("\n".join(lines), side_file(path), template)


_FORMS_IN_PYTHON = {
    "numbers": '[..., ..., "unit"],  # the lowest and the highest number',
    "dates": '{"from": "...", "to": "..."},  # the first and the last day',
    "text": '["...", "..."],  # all categories',
}


def _argument(names: Sequence[str], kinds: Mapping[str, str]) -> str:
    """Write the ranges to fill in as an argument of ``fedsim.run``."""
    entries = [f"    {json.dumps(name, ensure_ascii=False)}: {_FORMS_IN_PYTHON[kinds[name]]}" for name in names]
    hint = f'    # "{LEAVE_OUT}" in place of a range: the column is not used'
    return "\n".join(["ranges={", *entries, hint, "}"])


def check_no_more(path: Path, names: Sequence[str], declared: Declared) -> None:
    """Check that every entry is for a column.

    Raises:
        Mistake: An entry is for no column.
    """
    for name in declared.entries:
        if name not in names:
            hint = catalog.nearest(name, names)
            raise Mistake(f"{declared.place}: {name}: there is no such column in {path.name}{hint}")


def _key(name: str) -> str:
    """Write a column's name as a key of TOML, in quotation marks where TOML needs them."""
    plain_letters = [letter.isascii() and (letter.isalnum() or letter in "_-") for letter in name]
    if name and all(plain_letters):
        return name
    return json.dumps(name, ensure_ascii=False)
