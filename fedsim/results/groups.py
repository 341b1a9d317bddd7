"""Compute the rates of each group of test rows, from counts and sums.

Sums add up, so that the sums of everyone else are the whole's less the group's. Calibration is the
mean of expected less observed outcomes: unlike the expected calibration error, it is not larger
for being measured on few rows.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fedsim.data.tables import Number
from fedsim.data.task import SITE
from fedsim.outcomes import outcome_of
from fedsim.outcomes.metric import Rate
from fedsim.results.evaluation import POOLED, Answers
from fedsim.scenario.kinds import Kind

FEW = 10  # a rate of fewer rows in a seed is marked


def tally(answers: Sequence[Answers], kind: Kind, range: Number | None = None) -> pd.DataFrame:
    """Count and sum predictions for the test rows of every group, at each site and over all sites.

    Args:
        answers: The predictions at each site.
        kind: The kind of the targets.
        range: The public range of a number, by which targets are scaled.

    Returns:
        A row for each attribute, group and site where the group has rows, and a row for all sites
        together (site = POOLED): ``attribute, group, site, rows``, the sums, and the rates. Each
        site is a group of the attribute SITE. A sum in which a number is not finite is missing,
        and so is a rate of no rows.
    """
    outcome = outcome_of(kind)
    summands_of_sites = [outcome.summands(at_site.target, at_site.said, range) for at_site in answers]
    summands = {}
    for name in outcome.sums:
        summands[name] = np.concatenate([of_site[name] for of_site in summands_of_sites])
    site = np.concatenate([np.full(len(at_site.target), at_site.site) for at_site in answers])
    everywhere = np.full(len(site), POOLED)

    tables = [_sum(summands, SITE, group=site, site=everywhere)]
    for attribute in answers[0].groups:
        group = np.concatenate([at_site.groups[attribute] for at_site in answers])
        tables.append(_sum(summands, attribute, group, everywhere))
        tables.append(_sum(summands, attribute, group, site))
    sums = pd.concat(tables, ignore_index=True)
    return pd.concat([sums, rates(sums, kind)], axis=1)


def rates(sums: pd.DataFrame, kind: Kind) -> pd.DataFrame:
    """Compute the rates that follow from sums, a column for each; a rate of no rows is missing."""
    columns = {}
    for name, rate in outcome_of(kind).rates_of(sums).items():
        columns[name] = rate.where(np.isfinite(rate))
    return pd.DataFrame(columns, index=sums.index)


def denominators(sums: pd.DataFrame, rate: Rate) -> pd.Series:
    """Return the number of rows that a rate is taken of."""
    if rate.of == "negatives":
        return sums["rows"] - sums["positives"]
    return sums[rate.of]


def _sum(
    summands: Mapping[str, np.ndarray],
    attribute: str,
    group: np.ndarray,
    site: np.ndarray,
) -> pd.DataFrame:
    """Sum over the rows of each group at each site.

    Args:
        summands: {name: each row's summand, (rows,)}.
        attribute: The attribute of the groups.
        group: Each row's group, (rows,).
        site: Each row's site, (rows,).
    """
    group_of_row, group_names = pd.factorize(group, sort=True)
    site_of_row, site_names = pd.factorize(site, sort=True)
    pair_of_row = group_of_row * len(site_names) + site_of_row  # a number for each (group, site)
    pairs, place_of_row = np.unique(pair_of_row, return_inverse=True)

    rows = np.bincount(place_of_row, minlength=len(pairs))
    sums = {}
    for name, values in summands.items():
        sums[name] = np.bincount(place_of_row, values, minlength=len(pairs))
    if "positives" in sums:
        sums["positives"] = sums["positives"].astype(int)

    columns = {
        "attribute": attribute,
        "group": group_names[pairs // len(site_names)],
        "site": site_names[pairs % len(site_names)],
        "rows": rows,
        **sums,
    }
    return pd.DataFrame(columns)
