"""Make the bins of a column from its declared entry alone, and find the bin of one value by itself.

For a private look, a value's bin may depend on nothing but this value and what is public. So nothing is recognized
here: without ``written`` a number is read with a decimal point and without marks of thousands, and a date as
2020-12-31. A value that can't be read so counts as missing.
"""

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from fedsim import figures
from fedsim.data.own_table import notation
from fedsim.data.own_table.cleaning import Options, missing_words
from fedsim.data.own_table.looking.histograms import Histogram, Scale, scaled_text
from fedsim.data.own_table.ranges import column_of, listed_levels, options_of, origin_of
from fedsim.data.own_table.reading import clean
from fedsim.data.own_table.values import fold
from fedsim.data.tables import Column, Levels, Number
from fedsim.mistakes import Mistake

OTHER_LEVELS = "other values"
MISSING = "missing"
UNREADABLE = "missing or unreadable"
_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_LONGEST = 400  # characters of a number or a date that is read
_LEVELS_OF_AN_OUTCOME = (0.0, 1.0)


@dataclass(frozen=True)
class PublicBins:
    """The bins of a column. All fields are public.

    Attributes:
        name: The column.
        role: ``outcome``, ``time`` or ``feature``.
        column: Its declared range or levels.
        options: How its values are read.
        origin: The first day of dates, in days since 1970-01-01; None if it holds no dates.
        bins: The number of equal bins of a range.
    """

    name: str
    role: str
    column: Column
    options: Options
    origin: float | None
    bins: int

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The text of each bin; the last is that of missing values."""
        if isinstance(self.column, Levels):
            return (*map(figures.level, self.column.levels), OTHER_LEVELS, MISSING)
        texts = [scaled_text(edge + (self.origin or 0.0), self.scale) for edge in self._edges]
        ranges = [f"{low} to {high}" for low, high in itertools.pairwise(texts)]
        return (*ranges, UNREADABLE)

    @property
    def scale(self) -> Scale:
        """The kind of the bins."""
        if isinstance(self.column, Levels):
            return "levels"
        return "numbers" if self.origin is None else "dates"

    def histogram(self, counts: np.ndarray) -> Histogram:
        """Return the histogram of some counts, (sites, bins)."""
        edges = ("", "")
        said = []
        if isinstance(self.column, Number):
            low, *_, high = (scaled_text(edge + (self.origin or 0.0), self.scale) for edge in self._edges)
            edges = (low, high)
            unit = f" {self.column.unit}" if self.column.unit and self.origin is None else ""
            said.append(f"Declared: {low} to {high}{unit}. Values outside are in the first or last bin.")
        else:
            said.append("Declared: its levels. A value that is none of them counts as another value.")
        return Histogram(
            name=self.name,
            role=self.role,
            scale=self.scale,
            labels=self.labels,
            apart=2 if isinstance(self.column, Levels) else 1,
            counts=counts,
            edges=edges,
            said=tuple(said),
        )

    def bin_of(self, raw: str) -> int:
        """Return the number of the bin of one value, which depends on nothing but this value."""
        text = clean(raw)
        text = self.options.read_as.get(text, text)
        missing = len(self.labels) - 1
        if self._is_missing(text):
            return missing
        if isinstance(self.column, Levels):
            return self._level_of(text, self.column)

        value = self._day(text) if self.origin is not None else _number(text, self.options, self.column.unit)
        if value is None or not math.isfinite(value):
            return missing
        place = int(np.searchsorted(self._edges, value, side="right")) - 1
        return min(max(place, 0), self.bins - 1)

    @cached_property
    def _edges(self) -> np.ndarray:
        """The edges of the bins of a range, float64 (bins + 1,); equal in ratio on a logarithmic scale."""
        column = self.column
        if not isinstance(column, Number):
            return np.zeros(0)
        if column.log:
            return np.geomspace(column.low, column.high, self.bins + 1)
        return np.linspace(column.low, column.high, self.bins + 1)

    @cached_property
    def _missing_words(self) -> set[str]:
        levels = self.column.levels if isinstance(self.column, Levels) else ()
        return missing_words(self.options, levels)

    def _is_missing(self, text: str) -> bool:
        if fold(text) in self._missing_words:
            return True
        numbers = [word for word in self.options.missing or () if not isinstance(word, str)]
        return bool(numbers) and _plain_number(text) in numbers

    def _level_of(self, text: str, column: Levels) -> int:
        other = len(column.levels)
        if isinstance(column.levels[0], str):
            if text in column.levels:
                return column.levels.index(text)  # type: ignore[arg-type]  all levels are text
            folds = [fold(str(level)) for level in column.levels]
            folded = fold(text)
            return folds.index(folded) if folds.count(folded) == 1 else other
        value = _plain_number(text)
        return column.levels.index(value) if value in column.levels else other  # type: ignore[arg-type]

    def _day(self, text: str) -> float | None:
        if len(text) > _LONGEST:
            return None
        day = notation.days_of(text, self.options.written or notation.DATE_NOTATIONS[0])
        return None if day is None else day - (self.origin or 0.0)


def public_bins(name: str, entry: Any, place: str, role: str, bins: int) -> PublicBins:  # noqa: ANN401
    """Make the bins of a declared column.

    Args:
        name: The column.
        entry: Its entry, which says its range or levels.
        place: Where the entry stands, for messages.
        role: ``outcome``, ``time`` or ``feature``.
        bins: The number of equal bins of a range.

    Raises:
        Mistake: The entry declares no range and no levels, or a notation of another kind.
    """
    column = column_of(name, entry, place)
    if column is None:
        raise Mistake(f"{place}: {name}: expected a range or levels of the {role}, got {entry!r}")
    options = options_of(name, entry, place)
    is_dated = isinstance(entry, dict) and "from" in entry
    known = notation.DATE_NOTATIONS if is_dated else notation.NUMBER_NOTATIONS
    if isinstance(column, Number) and options.written and options.written not in known:
        kind = "dates" if is_dated else "numbers"
        expected = f"a notation of {kind}, one of {', '.join(map(repr, known))}"
        raise Mistake(f"{place}: {name}.written: expected {expected}, got {options.written!r}")

    # [0, 1] is the range of a number, and the usual way to write an outcome of yes or no.
    if role == "outcome" and isinstance(column, Number) and (column.low, column.high) == _LEVELS_OF_AN_OUTCOME:
        column = Levels(name, _LEVELS_OF_AN_OUTCOME)
    return PublicBins(name, role, column, options, origin_of(entry) if is_dated else None, bins)


@dataclass(frozen=True)
class PublicSites:
    """The public list of sites, and the place of one row among them.

    Attributes:
        names: The sites; the last is all others, if there is a column that names them.
        options: How their names are read.
    """

    names: tuple[str, ...]
    options: Options = field(default_factory=Options)

    def number_of(self, raw: str) -> int:
        """Return the number of the site that one value names, which depends on nothing but this value."""
        text = clean(raw)
        text = self.options.read_as.get(text, text)
        return self._exact.get(text, self._folded.get(fold(text), len(self.names) - 1))

    @cached_property
    def _exact(self) -> Mapping[str, int]:
        return {name: number for number, name in enumerate(self.names[:-1])}

    @cached_property
    def _folded(self) -> Mapping[str, int]:
        folds = [fold(name) for name in self.names[:-1]]
        return {text: number for number, text in enumerate(folds) if folds.count(text) == 1}


def levels_of_sites(entry: Any) -> list[str]:  # noqa: ANN401
    """Return the sites that an entry of the ranges lists; empty if it lists none."""
    return [str(level) for level in listed_levels(entry)]


def _plain_number(text: str) -> float | None:
    """Read a number with a decimal point; None if it is none."""
    if len(text) > _LONGEST or not _PLAIN.fullmatch(text):
        return None
    return float(text)


def _number(text: str, options: Options, unit: str) -> float | None:
    """Read a number in the declared notation, with at most the declared unit; None if it is none."""
    if len(text) > _LONGEST:
        return None
    if not options.written:
        folded = text.casefold()
        suffix = unit.casefold()
        if suffix and folded.endswith(suffix):
            text = text[: len(text) - len(unit)].rstrip()
        return _plain_number(text)
    found = notation.possible_notations([text]).get(options.written)
    if found is None or fold(found.unit) not in ("", fold(unit)):
        return None
    return float(found.numbers[0])
