"""Write the page of a first look at a table, before training: one HTML file that needs nothing else."""

from collections.abc import Sequence
from importlib.metadata import version

from fedsim import figures
from fedsim.data.own_table.looking.histograms import Histogram
from fedsim.data.own_table.looking.look import MOST_COLUMNS, Look
from fedsim.report.look_panels import MOST_NAMES, MOST_SITES, Bar, SiteGroup, drawn_column, site_groups
from fedsim.report.pages import PAGES

OPEN_SENTENCE = (
    "The figures on this page are those of the rows, and no privacy covers them: show it to those who may see the rows."
)
_ABOUT_PANELS = (
    "Bars are shares of a site's rows, missing values included, on one scale for all sites of a column. Grey "
    "bars at the end are missing values, or rare ones that are drawn together."
)
_MOST_NOTES = 60
_MOST_LISTED = 200  # columns in the table of all


def open_page(seen: Look, target: str | None) -> str:
    """Return the page of a look without privacy.

    Args:
        seen: The table.
        target: The outcome; None if none was named.
    """
    rows = int(seen.rows_by_site.sum())

    def text_of(members: tuple[int, ...]) -> str:
        return _rows(int(seen.rows_by_site[list(members)].sum()))

    groups = site_groups(seen.sites, seen.rows_by_site.tolist(), text_of)
    most = max(int(seen.rows_by_site[list(group.members)].sum()) for group in groups[1:] or groups)
    site_bars = []
    for group in groups[1:] or groups:
        count = int(seen.rows_by_site[list(group.members)].sum())
        text = f"{count:,} ({figures.share(count / max(1, rows))})"
        site_bars.append(Bar(group.name, round(100 * count / max(1, most), 1), 0.0, 0.0, text, is_apart=False))

    surveyed = {column.name: column for column in seen.columns}
    drawn = []
    for histogram in seen.histograms:
        column = surveyed[histogram.name]
        missing = f"{column.missing:,} missing ({figures.share(column.missing / max(1, rows))})"
        said = [f"{column.kind.capitalize()}, {_count(column.distinct, 'distinct value')}, {missing}.", *histogram.said]
        drawn.append(drawn_column(histogram, groups, said))

    return PAGES.get_template("look.html.j2").render(
        version=version("fedsim-flower"),
        file=seen.path.name,
        title=f"A first look at {seen.path.name}",
        first_sentence=OPEN_SENTENCE,
        findings=_findings(seen, target, rows),
        faults=seen.faults,
        site_bars=site_bars,
        about_sites=_about_sites(seen.sites),
        about_panels=_ABOUT_PANELS,
        drawn=drawn,
        not_drawn=_not_drawn(seen),
        columns=seen.columns[:_MOST_LISTED],
        heads=[group.name for group in groups],
        missing_rows=_missing(seen.histograms, groups),
        row_account=_account(seen, rows),
        notes=_few(seen.notes, _MOST_NOTES),
        statement=[],
    )


def _findings(seen: Look, target: str | None, rows: int) -> list[tuple[str, str]]:
    left_out = sum(part.rows for part in seen.left_out)
    rows_text = f"{seen.rows_in:,} in the file"
    if left_out:
        rows_text += f"; {rows:,} can be used, {left_out:,} {'is' if left_out == 1 else 'are'} left out"
    smallest = int(seen.rows_by_site.min())
    largest = int(seen.rows_by_site.max())
    sizes = f"{smallest:,}" if smallest == largest else f"{smallest:,} to {largest:,}"
    sites = f"{len(seen.sites):,}, with {sizes} rows each"
    if len(seen.sites) == 1:
        sites = "1: no column names the sites" if seen.sites[0] == "all rows" else f"1: {seen.sites[0]}"
    findings = [("Rows", rows_text), ("Sites", sites)]

    kinds = [column.kind for column in seen.columns]
    parts = [f"{kinds.count(kind)} of {kind}" for kind in ("numbers", "dates", "text", "images") if kind in kinds]
    parts += [f"{kinds.count('unclear')} unclear"] if "unclear" in kinds else []
    findings.append(("Columns", f"{len(seen.columns):,}: {', '.join(parts)}"))
    findings.append(("Outcome", target or "none was named; --target COLUMN names it"))
    if seen.undeclared:
        findings.append(
            ("Still to be declared", f"a public range or levels of {figures.listed(seen.undeclared, MOST_NAMES)}")
        )
    findings.append(("Faults", _count(len(seen.faults), "column") + " to mend, see below" if seen.faults else "none"))
    return findings


def _not_drawn(seen: Look) -> str:
    """Name the columns that are not drawn, but for the sites."""
    drawn = {histogram.name for histogram in seen.histograms}
    others = [column.name for column in seen.columns if column.name not in drawn and column.role != "site"]
    if not others:
        return ""
    why = "left out by their entry, or with texts that nearly all differ, or with a fault"
    if len(seen.histograms) == MOST_COLUMNS:
        why += f", or beyond the first {MOST_COLUMNS}"
    return f"Not drawn ({why}): {figures.listed(others, MOST_NAMES)}."


def _missing(histograms: Sequence[Histogram], groups: Sequence[SiteGroup]) -> list[tuple[str, list[str]]]:
    """Return the missing values of the columns that have some, at each group of sites."""
    rows = []
    for histogram in histograms:
        if not histogram.labels or histogram.labels[-1] != "missing" or not histogram.apart:
            continue
        cells = []
        for group in groups:
            counts = histogram.counts[list(group.members)]
            missing = int(counts[:, -1].sum())
            cells.append(f"{missing:,} ({figures.share(missing / max(1, int(counts.sum())))})" if missing else "0")
        rows.append((histogram.name, cells))
    return rows


def _account(seen: Look, rows: int) -> list[tuple[str, str, str]]:
    account = [("in the file", f"{seen.rows_in:,}", "")]
    account.extend((f"left out: {part.reason}", f"{part.rows:,}", str(part.first)) for part in seen.left_out)
    account.append(("can be used", f"{rows:,}", ""))
    return account


def _about_sites(sites: Sequence[str]) -> str:
    more = len(sites) - MOST_SITES
    if more <= 0:
        return ""
    return f"The {MOST_SITES} largest sites are shown one by one, the other {more:,} together."


def _rows(count: int) -> str:
    return _count(count, "row")


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def _few(notes: Sequence[str], most: int) -> list[str]:
    more = len(notes) - most
    return [*notes[:most], f"and {more:,} more"] if more > 0 else list(notes)
