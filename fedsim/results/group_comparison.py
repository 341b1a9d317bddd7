"""From the groups of all seeds to what can be said: differences between groups, and what privacy does to them.

A difference is a group's rate less that of everyone else. It may be below or above zero, so that it is near zero where
groups are treated alike; the width from the lowest to the highest group can't be below zero, and chance alone makes it
larger than that. The width is the demographic parity difference of selection rates, and the equal opportunity
difference of true positive rates (Hardt, Price, Srebro 2016, https://arxiv.org/abs/1610.02413).

Rates, and differences between groups, have intervals for institutions like these: would others like them be treated so?
Changes by privacy have intervals for these records: what did the noise do here? See ``fedsim.results.comparison``.
"""

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import pandas as pd

from fedsim.results.comparison import Stated, state, verdict
from fedsim.results.evaluation import POOLED
from fedsim.results.groups import FEW, RATES, SUMS, Rate, denominators, rates
from fedsim.scenario.kinds import Kind

_Tables = Iterable[tuple[tuple[Any, ...], pd.DataFrame]]
_KEYS = ["arm", "private", "attribute", "group", "metric"]


def compare_groups(groups: pd.DataFrame, kind: Kind, overlap: float) -> pd.DataFrame:
    """Compare every group over all sites with everyone else, and with itself without privacy.

    Args:
        groups: A row for each arm, private, seed, attribute, group and site, as ``groups.tally`` makes them.
        kind: What the outcome is.
        overlap: Of the seeds' training rows, as ``comparison.compare`` takes it.

    Returns:
        A row for each arm, private, attribute, group and metric: ``least`` and ``most``, the rows of a seed that the
        rate is taken of, and ``few``, whether these can be fewer than FEW; ``mean, low, high`` and ``why`` there is no
        interval, and with the same endings ``difference`` to everyone else, both for institutions like these. Then,
        for these records, the ``change`` from the same training without privacy and the ``widening``, which is the
        change of the difference. Each of the three has its ``verdict``. All are paired by seed.
    """
    known = {one.name: one for one in RATES[kind]}
    seeds, tables = groups["seed"].nunique(), _by_seed(groups, kind).groupby(_KEYS, sort=False)
    return pd.DataFrame(
        [
            {**dict(zip(_KEYS, key, strict=True)), **_row(table, known[key[-1]], seeds, overlap)}
            for key, table in cast(_Tables, tables)
        ]
    )


def compare_widths(groups: pd.DataFrame, kind: Kind, overlap: float) -> pd.DataFrame:
    """Return for each arm, private, attribute and metric how far its groups are apart, and the worst of them.

    Groups whose rate is taken of fewer than FEW rows in a seed are left out.

    Returns:
        ``width``, the highest rate less the lowest, and ``worst``, the worst rate where one way is worse, and each
        one's change from the same training without privacy (``width_change``, ``worst_change``, for these records),
        with ``_low``, ``_high`` and ``_why``; ``worst_group``, the group with the worst mean.
    """
    known = {one.name: one for one in RATES[kind]}
    seeds, table = groups["seed"].nunique(), _by_seed(groups, kind)
    by_group = table.groupby(_KEYS)
    least = by_group["least"].transform("min").where(by_group["seed"].transform("size") == seeds)
    enough = table[least >= FEW].groupby([key for key in _KEYS if key != "group"], sort=False)
    found = {key: _extremes(own, known[key[-1]]) for key, own in cast(_Tables, enough) if own["group"].nunique() > 1}
    rows = []
    for (arm, private, attribute, metric), (extremes, worst) in found.items():
        before = found.get((arm, False, attribute, metric)) if private else None
        row = {"arm": arm, "private": private, "attribute": attribute, "metric": metric, "worst_group": worst}
        for name, values in extremes.items():
            span = known[metric].high - known[metric].low
            ends = (0.0, span) if name == "width" else (known[metric].low, known[metric].high)
            row |= _columns(name, state(values, overlap, ends))
            change = values - before[0][name] if before else values * np.nan
            row |= _columns(f"{name}_change", state(change, 0.0, (-span, span)))
        rows.append(row)
    return pd.DataFrame(rows)


def _by_seed(groups: pd.DataFrame, kind: Kind) -> pd.DataFrame:
    """Return a row for each arm, private, attribute, group, metric and seed.

    Beside these: ``least``, the rows the rate is of; ``rate``; ``difference`` to everyone else; and both of the same
    training without privacy, ``rate_before`` and ``difference_before``, missing where there is none.
    """
    pooled = groups[groups["site"] == POOLED].reset_index(drop=True)
    own = pooled[["rows", *SUMS[kind]]].astype(float)
    of = [pooled[key] for key in ("arm", "private", "seed", "attribute")]
    rest = own.groupby(of).transform(lambda sums: sums.sum(skipna=False)) - own
    rate, others = rates(own, kind), rates(rest, kind)
    keys = pooled[["arm", "private", "attribute", "group", "seed"]]
    long = pd.concat(
        [
            keys.assign(
                metric=one.name,
                least=denominators(own, one),
                rate=rate[one.name],
                difference=rate[one.name] - others[one.name],
            )
            for one in RATES[kind]
        ],
        ignore_index=True,
    )
    plain, same = long[~long["private"]], ["arm", "attribute", "group", "metric", "seed"]
    table = long.merge(plain[[*same, "rate", "difference"]], on=same, how="left", suffixes=("", "_before"))
    table.loc[~table["private"], ["rate_before", "difference_before"]] = np.nan
    return table


def _row(table: pd.DataFrame, metric: Rate, seeds: int, overlap: float) -> dict[str, Any]:
    """Return what is said of a group's rate, from its value in each of some seeds."""
    least = int(table["least"].min()) if len(table) == seeds else 0
    row: dict[str, Any] = {"least": least, "most": int(table["least"].max()), "few": least < FEW}
    rate = state(table["rate"], overlap, (metric.low, metric.high))
    row |= {"mean": rate.mean, "low": rate.low, "high": rate.high, "why": rate.why}
    span = metric.high - metric.low
    changes = {
        "difference": state(table["difference"], overlap, (-span, span)),
        "change": state(table["rate"] - table["rate_before"], 0.0, (-span, span)),
        "widening": state(table["difference"] - table["difference_before"], 0.0, (-2 * span, 2 * span)),
    }
    for name, found in changes.items():
        row |= _columns(name, found)
        row[f"{name}_verdict"] = verdict(found.low, found.high)
    return row


def _extremes(table: pd.DataFrame, metric: Rate) -> tuple[dict[str, pd.Series], str | None]:
    """Return by seed the width and the worst of the groups' rates, and which group is the worst on average."""
    by_group = table.pivot(index="seed", columns="group", values="rate")
    least, most = by_group.min(axis=1), by_group.max(axis=1)
    worst = {"higher": least, "lower": most, "neither": least * np.nan}[metric.better]
    order = by_group.mean().sort_values(ascending=metric.better == "higher", kind="stable")
    return {"width": most - least, "worst": worst}, None if metric.better == "neither" else str(order.index[0])


def _columns(name: str, found: Stated) -> dict[str, float | str]:
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high, f"{name}_why": found.why}
