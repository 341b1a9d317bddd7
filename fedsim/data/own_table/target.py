"""Find the kind of the outcome in the user's own table, and convert it to a target for training."""

import json
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd

from fedsim import figures
from fedsim.data.own_table import cleaning
from fedsim.data.own_table.cleaning import Cells
from fedsim.data.own_table.ranges import Declared, column_of, declares, fitted
from fedsim.data.own_table.values import fold
from fedsim.data.tables import Column, Levels, Number
from fedsim.mistakes import Mistake
from fedsim.scenario.kinds import TableKind

_FEW = 10  # distinct whole numbers that are taken for classes
_ROWS_OF_A_CLASS = 5  # at least, on average, if classes are taken from the rows
AFFIRMATIVE = {"yes", "y", "true", "t", "positive", "pos", "present", "case", "1"}
_LISTED = 12  # classes that are named in the outcome's meaning


@dataclass(frozen=True)
class Target:
    """The outcome of a table.

    Attributes:
        kind: The kind of the outcome.
        column: Its levels or its range; None for 0 and 1.
        values: The targets for training, as in ``fedsim.data.task.Rows``.
        meaning: The meaning of a target of 1, of the classes or of the number.
        said: Notes on how the kind was found, and on values that were changed.
    """

    kind: TableKind
    column: Column | None
    values: np.ndarray
    meaning: str
    said: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; empty for another kind of outcome."""
        if self.kind == "classes" and isinstance(self.column, Levels):
            return tuple(map(figures.level, self.column.levels))
        return ()

    @property
    def outputs(self) -> int:
        """The number of outputs of a model."""
        if self.kind == "classes" and isinstance(self.column, Levels):
            return len(self.column.levels)
        return 1


def target_of(
    cells: Cells,
    wanted: TableKind | None,
    declared: Declared,
    positive: float | str | None = None,
    file_mark: str = "",
) -> Target:
    """Convert the outcome, by its declaration or by its values where it has none.

    Args:
        cells: The column of the outcome, without missing values.
        wanted: The kind that the scenario asks for; None to find it.
        declared: The declared columns.
        positive: The value that the scenario asks for as positive; None for the default.
        file_mark: The notation of numbers that other columns of the file show.

    Raises:
        Mistake: The outcome can't be of the declared kind, or has only one value.
    """
    _check_several(cells)
    column, notes = _column(cells, wanted, declared, file_mark)
    kind = _kind_of(column)
    if wanted not in (None, kind):
        expected = f"{kind!r}, as {cells.name} is declared or found to be"
        raise Mistake(f"data.kind: expected {expected}, got {wanted!r}")

    entry = declared.entries.get(cells.name)
    if wanted is None and not notes and not declares(entry):
        notes = [f"{cells.name} was taken for {_KINDS[kind]}, by its values"]
    if isinstance(column, Levels) and not declares(entry) and isinstance(column.levels[0], str):
        cells, note_on_case = cleaning.merged(cells)
        if note_on_case:
            notes.append(note_on_case)

    is_ordered = declares(entry)  # then the second of two levels is the positive one
    if kind == "binary":
        column, note = _with_positive(cells, column, positive, is_ordered=is_ordered)
        if note:
            notes.append(note)
    elif positive is not None:
        expected = f"no positive value, since {cells.name} is {_KINDS[kind]}"
        raise Mistake(f"data.positive: expected {expected}, got {figures.as_written(positive)}")
    return _CONVERSIONS[kind](cells, column, tuple(notes), file_mark)


def _check_several(cells: Cells) -> None:
    """Check that the outcome has two values or more: else there is nothing to learn."""
    texts = {text.casefold() for text in cells.known_texts}
    plain = cells.values.plain_numbers[cells.known]
    as_numbers = set(plain.tolist()) if np.isfinite(plain).all() else texts
    if len(texts) < 2 or len(as_numbers) < 2:
        got = f"all {len(cells.values)} rows have {figures.as_written(cells.known_texts[0])}"
        raise Mistake(f"{cells.place}: expected two values or more, {got}")


def needs_entry(cells: Cells, wanted: TableKind | None) -> bool:
    """Return whether the outcome's levels or range must be declared: all but 0 and 1."""
    may_be_binary = wanted in (None, "binary")
    return not (may_be_binary and _is_zero_one(cells))


_KINDS = {"binary": "a yes or no", "classes": "one of several classes", "number": "a number"}


def _kind_of(column: Column | None) -> TableKind:
    """Return the kind of an outcome with these levels or this range; None stands for 0 and 1."""
    if isinstance(column, Number):
        return "number"
    if column is None or len(column.levels) == 2:
        return "binary"
    return "classes"


def _column(
    cells: Cells,
    wanted: TableKind | None,
    declared: Declared,
    file_mark: str,
) -> tuple[Column | None, list[str]]:
    """Find the levels or the range of the outcome; None for 0 and 1. Also return notes.

    Raises:
        Mistake: It was declared to be left out, or a value is not of the declared kind.
    """
    name = cells.name
    entry = declared.entries.get(name)
    if declares(entry):
        column = column_of(name, entry, declared.place)
        if column is None:
            expected = "a range or levels of the outcome"
            raise Mistake(f"{declared.place}: {name}: expected {expected}, got {figures.as_written(entry)}")

        # [0, 1] is the range of a number, and the usual way to write a yes or no.
        is_unit_range = isinstance(column, Number) and (column.low, column.high) == (0, 1)
        if is_unit_range and not needs_entry(cells, wanted):
            note = (
                f"{name} is declared as [0, 1] and holds only 0 and 1: it was taken for a yes or "
                'no; data.kind = "number" takes it for a number'
            )
            return None, [note]
        return column, []

    # Without an entry the values themselves decide.
    if not needs_entry(cells, wanted):
        return None, []
    found = cleaning.recognized(cells, file_mark)
    if found.kind == "dates":
        raise Mistake(f"{cells.place}: expected a number or classes as the outcome, got dates")
    if found.kind == "text":
        return _fitted_levels(cells), []
    values, found = cleaning.numbers(cells, file_mark)
    notes = [f"{name}: {found.note}"] if found.note else []
    if wanted == "number" or (wanted is None and _is_number(values)):
        if wanted is None:
            notes.append(f"{name} was taken for {_KINDS['number']}, by its values")
        return fitted(name, pd.Series(values)), notes
    return Levels(name, tuple(np.unique(values).tolist())), notes


def _fitted_levels(cells: Cells) -> Levels:
    """Take the outcome's texts as classes, unless they are nearly all different."""
    merged_cells, _ = cleaning.merged(cells)
    texts = sorted(merged_cells.known_texts)
    most = max(_FEW, len(cells.values) // _ROWS_OF_A_CLASS)
    if len(texts) > most:
        expected = f"classes, at most {most} in {len(cells.values)} rows, or numbers"
        examples = ", ".join(map(repr, texts[:3]))
        got = f"{len(texts)} different texts such as {examples}"
        raise Mistake(f"{cells.place}: expected {expected}, got {got}")
    return Levels(cells.name, tuple(texts))


def _is_number(values: np.ndarray) -> bool:
    """Return whether values are taken for a number and not for classes."""
    has_fractions = bool((values % 1 != 0).any())
    return has_fractions or len(np.unique(values)) > _FEW


def _is_zero_one(cells: Cells) -> bool:
    return bool(np.isin(cells.values.plain_numbers[cells.known], (0, 1)).all())


def _with_positive(
    cells: Cells,
    column: Column | None,
    positive: float | str | None,
    *,
    is_ordered: bool,
) -> tuple[Column | None, str]:
    """Put the positive one of two levels last.

    Args:
        cells: The outcome.
        column: Its levels; None for 0 and 1.
        positive: The positive value that the scenario asks for; None for the default.
        is_ordered: Whether the levels were declared in this order.

    Returns:
        The levels, and a note on which is positive; empty if that was declared.
    """
    if not isinstance(column, Levels):
        if positive is None or _same(positive, 1):
            return column, ""
        column = Levels(cells.name, (0.0, 1.0))

    levels: list[Any] = list(column.levels)
    if positive is not None:
        matching = [level for level in levels if _same(level, positive)]
        if not matching:
            expected = f"one of {', '.join(map(figures.level, levels))}"
            raise Mistake(f"data.positive: expected {expected}, got {figures.as_written(positive)}")
        chosen = matching[0]
    elif is_ordered:
        chosen = levels[1]
    else:
        affirmative = [level for level in levels if fold(figures.level(level)) in AFFIRMATIVE]
        chosen = affirmative[0] if len(affirmative) == 1 else levels[1]

    other = next(level for level in levels if level != chosen)
    ordered = Levels(column.name, (other, chosen), column.meaning, column.missing)
    if is_ordered or positive is not None:
        return ordered, ""
    hint = f"data.positive = {json.dumps(other, ensure_ascii=False)} takes the other"
    return ordered, f"{cells.name}: {figures.level(chosen)} is positive, {figures.level(other)} is not; {hint}"


def _same(level: float | str, wanted: float | str) -> bool:
    """Return whether a level is meant: the same number, or the same text but for case."""
    if isinstance(level, str):
        return fold(level) == fold(str(wanted))
    try:
        return float(level) == float(wanted)
    except ValueError:
        return False


class _Convert(Protocol):
    """A function that converts the outcome to the target of a kind."""

    def __call__(
        self,
        cells: Cells,
        column: Column | None,
        notes: tuple[str, ...],
        file_mark: str,
    ) -> Target: ...


def _binary(cells: Cells, column: Column | None, notes: tuple[str, ...], file_mark: str) -> Target:
    name = cells.name
    if not isinstance(column, Levels):
        values, _ = cleaning.numbers(cells, file_mark)
        zero_one = values.astype(np.float32)
        return Target("binary", None, zero_one, f"{name} is 1", notes)

    level_numbers, note = cleaning.levels(cells, column)
    meaning = f"{name} is {figures.level(column.levels[1])}"
    return Target("binary", column, level_numbers.astype(np.float32), meaning, _with(notes, note))


def _classes(cells: Cells, column: Column | None, notes: tuple[str, ...], file_mark: str) -> Target:
    del file_mark  # classes have no decimal mark
    levels = column.levels if isinstance(column, Levels) else ()
    level_numbers, note = cleaning.levels(cells, Levels(cells.name, levels))

    listed = ", ".join(map(figures.level, levels[:_LISTED]))
    if len(levels) > _LISTED:
        listed += f" and {len(levels) - _LISTED} more"
    meaning = f"{cells.name}: {listed}"
    return Target("classes", column, level_numbers.astype(np.int64), meaning, _with(notes, note))


def _number(cells: Cells, column: Column | None, notes: tuple[str, ...], file_mark: str) -> Target:
    if not isinstance(column, Number):
        raise Mistake(f"{cells.place}: expected a range of the outcome")

    values, more_notes = cleaning.typed(cells, column, file_mark)
    scaled = column.scaled(values).to_numpy(np.float32)
    new_notes = [note for note in more_notes if note not in notes]
    return Target("number", column, scaled, cells.name, (*notes, *new_notes))


def _with(notes: tuple[str, ...], note: str) -> tuple[str, ...]:
    return (*notes, note) if note else notes


_CONVERSIONS: dict[TableKind, _Convert] = {"binary": _binary, "classes": _classes, "number": _number}
