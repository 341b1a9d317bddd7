"""Write the page of a private look at a table, which may be handed on: it is made of noisy counts and public words."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from importlib.metadata import version

import numpy as np

from fedsim import figures
from fedsim.data.own_table.looking.histograms import Histogram
from fedsim.data.own_table.looking.private_look import Plan
from fedsim.privacy import discrete_laplace
from fedsim.privacy.looks import Account, Look, NoisyHistogram
from fedsim.report.look_panels import MOST_NAMES, MOST_SITES, Bar, Noise, drawn_column, percent, site_groups
from fedsim.report.pages import PAGES

_NORMAL = 1.96  # standard deviations on either side that hold 95 % of a normal distribution
_ABOUT_PANELS = (
    "Bars are noisy counts of rows, on a scale of its own in each panel; lines are intervals that hold the "
    "noise with 95 % probability. A count below 0 is drawn as 0. The counts of a column need not add up to "
    "those of another, since each has noise of its own. Grey bars at the end are values that are missing or "
    "other."
)


def rows_by_site(histograms: Sequence[Histogram], releases: Sequence[NoisyHistogram]) -> tuple[np.ndarray, float]:
    """Estimate the rows of each site from the noisy counts; this costs nothing more.

    Each histogram has all rows of a site in its bins, so its total is an estimate with the noise of all bins. The
    totals are weighted by one over their variance.

    Returns:
        The estimates, float64 (sites,), and the standard deviation of each.
    """
    variances = []
    for release in releases:
        deviation = discrete_laplace.standard_deviation(float(release.epsilon))
        variances.append(release.bins * deviation**2)
    weights = 1 / np.array(variances)
    totals = np.array([histogram.counts.sum(axis=1) for histogram in histograms])  # (histograms, sites)
    return weights @ totals / weights.sum(), math.sqrt(1 / weights.sum())


def private_page(
    plan: Plan,
    histograms: Sequence[Histogram],
    look: Look,
    account: Account,
) -> str:
    """Return the page of a private look.

    Args:
        plan: What was counted.
        histograms: The noisy counts, in the plan's order.
        look: What was released.
        account: All looks at the table, this one included.
    """
    rows, deviation = rows_by_site(histograms, look.histograms)

    def text_of(members: tuple[int, ...]) -> str:
        margin = _NORMAL * deviation * math.sqrt(len(members))
        return f"{_whole(rows[list(members)].sum())} ± {math.ceil(margin):,} rows"

    groups = site_groups(plan.sites.names, rows.tolist(), text_of)
    parts = groups[1:] or groups
    margins = [_NORMAL * deviation * math.sqrt(len(group.members)) for group in parts]
    sizes = [float(rows[list(group.members)].sum()) for group in parts]
    longest = max(1.0, *(size + margin for size, margin in zip(sizes, margins, strict=True)))
    site_bars = []
    for group, size, margin in zip(parts, sizes, margins, strict=True):
        bar = Bar(
            label=group.name,
            length=percent(size / longest),
            low=percent((size - margin) / longest),
            high=percent((size + margin) / longest),
            text=group.rows.removesuffix(" rows"),
            is_apart=False,
        )
        site_bars.append(bar)

    drawn = []
    for histogram, release in zip(histograms, look.histograms, strict=True):
        margin = _margin(release)
        said = [*histogram.said, f"Noise on a count: ± {margin(1):,} (95 %), epsilon {_exact(release.epsilon)}."]
        drawn.append(drawn_column(histogram, groups, said, Noise(margin)))
    return PAGES.get_template("look.html.j2").render(
        version=version("fedsim-flower"),
        file=plan.path.name,
        title=f"A private look at {plan.path.name}",
        first_sentence="Every count on this page has noise: it is differentially private for one row of the table, "
        f"with epsilon {_exact(look.epsilon)}.",
        findings=_findings(plan, look, account, site_total=text_of(tuple(range(len(rows))))),
        faults=[],
        site_bars=site_bars,
        about_sites="Estimated from the noisy histograms, at no further cost; lines are intervals of about 95 %."
        + (f" The {MOST_SITES} largest are shown one by one." if len(plan.sites.names) > MOST_SITES else ""),
        about_panels=_ABOUT_PANELS,
        drawn=drawn,
        not_drawn=f"Not looked at, since they have no public range: {figures.listed(plan.left_aside, MOST_NAMES)}."
        if plan.left_aside
        else "",
        columns=[],
        heads=[],
        missing_rows=[],
        row_account=[],
        notes=[],
        statement=_statement(plan, look, account),
    )


def _margin(release: NoisyHistogram) -> Callable[[int], int]:
    """Return a function from a number of counts to the 95 % margin of their sum."""

    @lru_cache
    def margin(terms: int) -> int:
        return discrete_laplace.margin(release.epsilon, terms)

    return margin


def _findings(plan: Plan, look: Look, account: Account, site_total: str) -> list[tuple[str, str]]:
    looks = len(account.looks)
    spent = f"{_exact(look.epsilon)} by this look"
    if looks > 1:
        spent += f"; {_exact(account.epsilon)} by all {looks} looks at this table, which add up"
    listed = len(plan.sites.names) - 1
    sites = f"{listed:,}, listed beforehand, and all others together" if listed else "1: all rows"
    return [
        ("Epsilon", spent),
        ("Rows", f"{site_total}, estimated"),
        ("Sites", sites),
        ("Columns", f"{len(plan.columns):,} with public ranges or levels; {len(plan.left_aside):,} were not looked at"),
    ]


def _statement(plan: Plan, look: Look, account: Account) -> list[tuple[str, str]]:
    """Return the terms of the privacy statement and their definitions."""
    epsilon = _exact(look.epsilon)
    share = _exact(look.histograms[0].epsilon)
    looks = len(account.looks)
    return [
        ("Claim", _CLAIM.format(epsilon=epsilon)),
        ("Unit", _UNIT),
        ("Neighbours", _NEIGHBOURS),
        ("Mechanism", _MECHANISM),
        (
            "Epsilon of this look",
            f"{epsilon}, split evenly over the histograms of {len(plan.columns):,} columns: {share} each. {_PARALLEL}",
        ),
        ("Epsilon in all", f"{_exact(account.epsilon)}, of {looks:,} in the ledger. {_IN_ALL}"),
        ("Public", _PUBLIC),
        ("How a value is read", _READING),
        ("Not covered", _NOT_COVERED),
    ]


_CLAIM = (
    "Epsilon {epsilon}, delta 0: whatever this page and its ledger say is at most e^epsilon times as likely "
    "with one row as without it."
)
_UNIT = (
    "One row: one line of the file. A row is no person: a person with k rows, or a record that goes over k "
    "lines, has k times this epsilon."
)
_NEIGHBOURS = (
    "Two tables are neighbours if one of them has one row more and they are otherwise equal (add or remove one)."
)
_MECHANISM = (
    "Discrete Laplace noise on every count (Canonne, Kamath, Steinke 2020), drawn in whole numbers from the "
    "operating system's randomness, which nobody can repeat. A row is in one bin of one site, so it changes "
    "one count of each histogram by one."
)
_PARALLEL = "The sites of a histogram share no row, so they cost together what one of them costs."
_IN_ALL = (
    "Epsilons of looks add up, and those of models that were trained on the same rows add to them. Looks that"
    " are not in the ledger are not counted: keep it beside the table."
)
_PUBLIC = (
    "Presumed to be public: the names of the file and its columns, the ranges and levels, the list of sites, "
    "and the number of bins. They were declared or given, and not taken from the rows."
)
_READING = (
    "By itself, as its entry says: without a notation in the entry, numbers with a decimal point and dates as"
    " 2020-12-31. A value that can't be read so is missing. A line that can't be parted into fields is a row "
    "without values, and with no site of the list."
)
_NOT_COVERED = (
    "How long the command took and how large the file is; that a file can't be read at all, or is too large. "
    "Ranges and lists that were made by looking at these rows. A page without privacy (fedsim look without "
    "--epsilon) that is handed on beside this one."
)


def _whole(number: float) -> str:
    return f"{round(float(number)):,}".replace("-", "−")


def _exact(epsilon: Fraction) -> str:
    """Write an epsilon: as a short decimal number, or else as a fraction with about its value."""
    decimal = f"{float(epsilon):.6g}"
    return decimal if Fraction(decimal) == epsilon else f"{epsilon} (about {float(epsilon):.3g})"
