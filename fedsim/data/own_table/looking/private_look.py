"""Count the rows of a table in public bins, for a private look: what is counted follows from declarations alone.

Sensitivity. A line of the file more or less changes one count of each histogram by one, and nothing else: the site
and the bins of a row follow from its own line, the header and the declarations (``single_rows``, ``public_bins``).
Columns that are not declared are not looked at.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedsim.data.own_table.file_bytes import is_pattern
from fedsim.data.own_table.looking.public_bins import PublicBins, PublicSites, levels_of_sites, public_bins
from fedsim.data.own_table.looking.single_rows import header_of, rows_of
from fedsim.data.own_table.prepared import ALL_ROWS
from fedsim.data.own_table.ranges import LEAVE_OUT, Declared, declared_for, declares, options_of, side_file
from fedsim.data.own_table.values import fold
from fedsim.mistakes import Mistake
from fedsim.scenario.schema import Data

OTHER_SITES = "other sites or none"
_MOST_COUNTS = 10**6
_MOST_REMEMBERED = 100_000  # texts of a column whose bins are kept


@dataclass(frozen=True)
class Plan:
    """What is to be counted. All of it is public.

    Attributes:
        path: The file, or the pattern of several.
        columns: The bins of each column.
        site_column: The column that names sites; None if files are sites, or all rows are one.
        sites: The sites.
        left_aside: Columns of the header that are not looked at.
    """

    path: Path
    columns: tuple[PublicBins, ...]
    site_column: str | None
    sites: PublicSites
    left_aside: tuple[str, ...]

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """{column: the number of sites and of bins}."""
        sites = len(self.sites.names)
        return {column.name: (sites, len(column.labels)) for column in self.columns}


def plan_of(data: Data, site_names: Sequence[str], bins: int) -> Plan:
    """Plan a private look from declarations and the header.

    Args:
        data: The table.
        site_names: The public list of sites; empty if the site's entry lists them, or there are none.
        bins: The number of equal bins of a range.

    Raises:
        Mistake: Something that must be public is not declared; no row was looked at.
    """
    path = Path(data.path or "")
    declared = declared_for(path, data.ranges, data.undeclared)
    if declared.fits_rest:
        raise Mistake("--ranges: expected public ranges for a private look, from-data takes them from the rows")

    roles = {data.target: "outcome", data.time: "time"}
    columns = []
    for name, entry in declared.entries.items():
        if name in (data.site, data.person) or entry == LEAVE_OUT or not declares(entry):
            continue
        columns.append(public_bins(name, entry, declared.place, roles.get(name, "feature"), bins))
    columns.sort(key=lambda column: column.role != "outcome")
    _check(path, data, declared, columns)

    sites = _sites(path, data, declared, site_names)
    counts = len(sites.names) * sum(len(column.labels) for column in columns)
    if counts > _MOST_COUNTS:
        raise Mistake(f"--epsilon: expected at most {_MOST_COUNTS:,} counts, sites times bins make {counts:,}")
    header = header_of(path).names
    known = {data.site, *(column.name for column in columns)}
    left_aside = tuple(name for name in header if name not in known)
    return Plan(path, tuple(columns), data.site, sites, left_aside)


def _check(path: Path, data: Data, declared: Declared, columns: Sequence[PublicBins]) -> None:
    """Check that there is something to count, and that the outcome is declared.

    Raises:
        Mistake: It is not so.
    """
    advice = "fedsim check-data writes the file to fill in"
    if not columns:
        expected = f"columns with public ranges or levels in {side_file(path).name} or --ranges"
        raise Mistake(f"{path.name}: expected {expected}, there are none; {advice}")
    if data.target is not None and data.target not in [column.name for column in columns]:
        expected = (
            f"public levels or a range of the outcome {data.target}, such as {data.target} = {{ levels = [0, 1] }}"
        )
        raise Mistake(f"{declared.place}: expected {expected}; a private look doesn't take them from the rows")


def _sites(path: Path, data: Data, declared: Declared, given: Sequence[str]) -> PublicSites:
    """Return the public list of sites.

    Raises:
        Mistake: There are sites, and no list of them, or a list and no sites.
    """
    if data.site is None and not is_pattern(path):
        if given:
            raise Mistake("--sites: expected --site, the column that names each row's site, beside it")
        return PublicSites((ALL_ROWS,))

    entry = declared.entries.get(data.site) if data.site else None
    names = list(given) or levels_of_sites(entry)
    if not names:
        where = f", or an entry of {data.site} with its levels in the ranges" if data.site else ""
        raise Mistake(f"--sites: expected the public list of sites, as in --sites north,south{where}")
    if len({fold(name) for name in names}) < len(names) or not all(names):
        raise Mistake(f"--sites: expected each site once, got {', '.join(names)}")
    options = options_of(data.site or "", entry, declared.place)
    return PublicSites((*names, OTHER_SITES), options)


def counted(plan: Plan) -> list[np.ndarray]:
    """Count the rows of each site in the bins of each column, int64 (sites, bins) for each column.

    Raises:
        Mistake: A file can't be read; no row is told of.
    """
    sites = len(plan.sites.names)
    counts = [np.zeros(sites * len(column.labels), np.int64) for column in plan.columns]
    needed = [column.name for column in plan.columns]
    if plan.site_column:
        needed.append(plan.site_column)

    bins_of = [_remembering(column.bin_of) for column in plan.columns]
    site_of_row = _remembering(plan.sites.number_of)
    widths = [len(column.labels) for column in plan.columns]
    for row in rows_of(plan.path, needed):
        if plan.site_column and row.fields is not None:
            site = site_of_row(row.fields[-1])
        elif plan.site_column or is_pattern(plan.path):
            site = site_of_row("" if plan.site_column else row.file_site)
        else:
            site = 0

        # A row that can't be read counts, too: each of its values is missing.
        for number, width in enumerate(widths):
            bin_number = width - 1 if row.fields is None else bins_of[number](row.fields[number])
            counts[number][site * width + bin_number] += 1
    return [of_column.reshape(sites, -1) for of_column in counts]


def _remembering(function: Callable[[str], int]) -> Callable[[str], int]:
    """Return a function that keeps its answers, which are the same whatever was asked before."""
    answers: dict[str, int] = {}

    def remembered(text: str) -> int:
        answer = answers.get(text)
        if answer is None:
            answer = function(text)
            if len(answers) < _MOST_REMEMBERED:
                answers[text] = answer
        return answer

    return remembered
