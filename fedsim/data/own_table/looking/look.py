"""Look at a table before training: the rows of each site in the bins of each column. No privacy covers any of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedsim.data.own_table import cleaning
from fedsim.data.own_table.cleaning import Cells, LeftOut
from fedsim.data.own_table.images.folder import in_columns
from fedsim.data.own_table.looking.histograms import Histogram, Scale, scaled_text
from fedsim.data.own_table.prepared import ALL_ROWS, Faults, Usable, converted, notes_of, usable
from fedsim.data.own_table.ranges import LEAVE_OUT, declares
from fedsim.data.own_table.survey import ColumnSurvey, columns_of
from fedsim.scenario.schema import Data

MOST_COLUMNS = 60  # that are drawn
_BINS = 20
_FEW_VALUES = 12  # that have a bar each
_ROWS_OF_A_TEXT = 5  # on average, at least, for texts to be drawn
_OUTER = 0.005  # share of the values at each end that may be put into the last bin
_FAR = 3  # times the width of all others, from which on outer values are drawn together


@dataclass(frozen=True)
class Look:
    """A table, looked at.

    Attributes:
        path: The file.
        rows_in: The number of rows in the file.
        sites: The names of the sites.
        rows_by_site: The number of rows of each, int64 (sites,).
        histograms: The columns that are drawn; the outcome is the first.
        columns: All columns, surveyed.
        left_out: The rows that a run would not use.
        notes: Notes on what was repaired or inferred.
        faults: What is wrong with values.
        undeclared: Columns whose range is still to be declared.
    """

    path: Path
    rows_in: int
    sites: tuple[str, ...]
    rows_by_site: np.ndarray
    histograms: tuple[Histogram, ...]
    columns: Sequence[ColumnSurvey]
    left_out: Sequence[LeftOut]
    notes: Sequence[str]
    faults: Sequence[str]
    undeclared: Sequence[str]


def look(data: Data) -> Look:
    """Look at a table as a run would read it. What is wrong with its columns is told in ``faults``.

    Raises:
        Mistake: The file can't be read as a table, or lacks the outcome, site or time.
    """
    used = usable(data)
    data = in_columns(data)
    faults = Faults()
    parts = converted(data, used, faults)
    for name in used.features:
        if not declares(used.declared.entries.get(name)) and not used.declared.fits_rest:
            with faults.collected():
                cleaning.recognized(used.cells[name], used.file_mark)

    site = parts.site
    if site is None:
        site = np.full(len(used.table.rows), ALL_ROWS)  # its column has a fault, which is told
    sites, codes = np.unique(site, return_inverse=True)
    rows_by_site = np.bincount(codes, minlength=len(sites))

    surveyed = columns_of(data, used)
    drawn = [column for column in surveyed if _is_drawn(used, column)]
    drawn.sort(key=lambda column: column.role != "outcome")
    histograms = [_histogram(used, column, codes, len(sites)) for column in drawn[:MOST_COLUMNS]]
    lacking = used.missing_ranges()
    to_declare = [column.name for column in surveyed if column.entry == "to be declared"]
    return Look(
        path=used.path,
        rows_in=used.rows_in,
        sites=tuple(map(str, sites)),
        rows_by_site=rows_by_site,
        histograms=tuple(histograms),
        columns=surveyed,
        left_out=used.left_out,
        notes=notes_of(data, used, parts),
        faults=faults.lines(),
        undeclared=to_declare if lacking is not None else [],
    )


def _is_drawn(used: Usable, column: ColumnSurvey) -> bool:
    """Return whether a column is worth a picture: it is neither the site nor left out, and its texts repeat."""
    if column.role == "site" or used.declared.entries.get(column.name) == LEAVE_OUT:
        return False
    is_number = column.kind in ("numbers", "dates")
    return is_number or column.distinct <= max(cleaning.FEW_TEXTS, len(used.table.rows) // _ROWS_OF_A_TEXT)


def _histogram(used: Usable, column: ColumnSurvey, codes: np.ndarray, sites: int) -> Histogram:
    """Count the rows of each site in the bins of a column.

    Args:
        used: The table.
        column: The column.
        codes: The number of each row's site, (rows,).
        sites: The number of sites.
    """
    cells = used.cells[column.name]
    edges = ("", "")
    scale: Scale = "levels"
    said = []
    if column.kind in ("numbers", "dates"):
        found = cleaning.recognized(cells, used.file_mark)
        values = cells.known_by_row(found.by_known, np.nan)
        known = np.unique(values[np.isfinite(values)])
        if column.kind == "dates" or len(known) > _FEW_VALUES:
            scale = "dates" if column.kind == "dates" else "numbers"
            bins, labels, note = _binned(values, known, scale)
            edges = (labels[0].partition(" to ")[0], labels[-1].rpartition(" to ")[2]) if labels else ("", "")
            said.extend([note] if note else [])
        else:
            labels = [f"{value:g}" for value in known]
            bins = np.where(np.isnan(values), -1, np.searchsorted(known, values))
        others = 0
    else:
        bins, labels, others = _levels(cells)

    # Missing values have a bar of their own where there are some.
    has_missing = bool((bins < 0).any())
    width = len(labels) + has_missing
    bins = np.where(bins < 0, width - 1, bins)
    counts = np.bincount(codes * width + bins, minlength=sites * width).reshape(sites, width)
    return Histogram(
        name=column.name,
        role=column.role,
        scale=scale,
        labels=(*labels, *(["missing"] if has_missing else [])),
        apart=int(has_missing) + int(others > 0),
        counts=counts,
        edges=edges,
        said=(*said, *(["Its values are of several kinds; see what is to mend."] if column.kind == "unclear" else [])),
    )


def _binned(values: np.ndarray, known: np.ndarray, scale: Scale) -> tuple[np.ndarray, list[str], str]:
    """Put numbers into equal bins; return the bin of each row, -1 where missing, the bins' texts, and a note."""
    if not len(known):
        return np.full(len(values), -1), [], ""
    low = float(known[0])
    high = float(known[-1])
    note = ""

    # A few values far away would leave one bar for all others.
    present = values[np.isfinite(values)]
    inner_low, inner_high = np.quantile(present, (_OUTER, 1 - _OUTER))
    if inner_high > inner_low and high - low > _FAR * (inner_high - inner_low):
        outside = int(((present < inner_low) | (present > inner_high)).sum())
        rows = "1 value is" if outside == 1 else f"{outside:,} values are"
        ends = f"{scaled_text(low, scale)} to {scaled_text(high, scale)}"
        note = f"{rows} far from the others ({ends}) and drawn in the first or last bar."
        low = float(inner_low)
        high = float(inner_high)
    edges = _edges(low, high, is_whole=bool((known % 1 == 0).all()))
    numbers = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    texts = [scaled_text(edge, scale) for edge in edges]
    labels = [f"{texts[number]} to {texts[number + 1]}" for number in range(len(edges) - 1)]
    return np.where(np.isfinite(values), numbers, -1), labels, note


def _edges(low: float, high: float, *, is_whole: bool) -> np.ndarray:
    """Return the edges of equal bins; of whole numbers, each bin has as many."""
    if low == high:
        return np.array([low, high])
    if not is_whole:
        return np.linspace(low, high, _BINS + 1)
    width = max(1, int(np.ceil((high - low + 1) / _BINS)))
    count = int(np.ceil((high - low + 1) / width))
    return np.floor(low) + width * np.arange(count + 1)


def _levels(cells: Cells) -> tuple[np.ndarray, list[str], int]:
    """Give the most frequent texts a bar each; return the bar of each row, -1 where missing, and the rest's number."""
    cells, _ = cleaning.merged(cells)
    counts = np.where(cells.known, cells.values.counts, 0)
    in_order = [number for number in np.argsort(-counts, kind="stable") if cells.known[number]]
    most = _FEW_VALUES if len(in_order) <= _FEW_VALUES else _FEW_VALUES - 1
    others = len(in_order) - most if len(in_order) > most else 0

    by_distinct = np.full(len(counts), -1)
    for place, number in enumerate(in_order):
        by_distinct[number] = min(place, most)
    labels = [cells.values.texts[number] for number in in_order[:most]]
    if others:
        labels.append(f"{others:,} other values")
    return cells.values.spread(by_distinct, fill=-1), labels, others
