"""Compare groups over all seeds: their differences, and the change that privacy makes to these.

A difference is a group's rate less that of everyone else. It may be below or above zero, so that
it is near zero where groups are treated alike; the width from the lowest to the highest group
can't be below zero, and chance alone makes it larger than that. The width is the demographic
parity difference of selection rates, and the equal opportunity difference of true positive rates
(Hardt, Price, Srebro 2016, https://arxiv.org/abs/1610.02413).

Rates, and differences between groups, have intervals for institutions like these: would others
like them be treated so? Changes by privacy have intervals for these records: which change did the
noise make here? See ``fedsim.results.comparison``.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from fedsim.outcomes import outcome_of
from fedsim.outcomes.metric import Rate
from fedsim.results.comparison import Stated, add_interval, state, state_all
from fedsim.results.evaluation import POOLED
from fedsim.results.groups import FEW, denominators, rates
from fedsim.scenario.kinds import Kind

_Tables = Iterable[tuple[tuple[Any, ...], pd.DataFrame]]
"""Pairs of a key and its rows, as pandas' groupby gives them."""

_KEYS = ["arm", "private", "attribute", "group", "metric"]
_KEYS_WITHOUT_GROUP = ["arm", "private", "attribute", "metric"]


def compare_groups(groups: pd.DataFrame, kind: Kind, overlap: float) -> pd.DataFrame:
    """Compare every group over all sites with everyone else, and with itself without privacy.

    Args:
        groups: A row for each arm, private, seed, attribute, group and site, as ``groups.tally``
            makes them.
        kind: The kind of the outcome.
        overlap: Of the seeds' training rows, as ``comparison.compare`` takes it.

    Returns:
        A row for each arm, private, attribute, group and metric.

        - ``least`` and ``most``: the rows of a seed that the rate is taken of, and ``few``, whether
          these can be fewer than FEW;
        - ``mean, low, high`` and ``why`` there is no interval, and with the same endings the
          ``difference`` to everyone else, both for institutions like these;
        - the ``change`` from the same training without privacy, and the ``widening``, which is the
          change of the difference, both for these records.

        The difference, the change and the widening each have a ``verdict``. All are paired by seed.
    """
    by_seed = _by_seed(groups, kind)
    seeds = pd.Index(groups["seed"].unique())
    tables = []
    for rate in outcome_of(kind).rates:
        tables.append(_compare_in(rate, by_seed[by_seed["metric"] == rate.name], seeds, overlap))
    return pd.concat(tables, ignore_index=True)


def compare_widths(groups: pd.DataFrame, kind: Kind, overlap: float) -> pd.DataFrame:
    """Compare the lowest and the highest group of each arm, private, attribute and metric.

    Groups whose rate is taken of fewer than FEW rows in a seed are left out.

    Args:
        groups: As in ``compare_groups``.
        kind: As in ``compare_groups``.
        overlap: As in ``compare_groups``.

    Returns:
        ``width``, the highest rate less the lowest; ``worst``, the worst rate where a direction is
        worse; and the change of each from the same training without privacy (``width_change``,
        ``worst_change``, for these records); all with ``_low``, ``_high`` and ``_why``. Then
        ``worst_group``, the group with the worst mean.
    """
    rate_of = {rate.name: rate for rate in outcome_of(kind).rates}
    by_seed = _by_seed(groups, kind)
    enough = _with_enough_rows(by_seed, seed_count=groups["seed"].nunique())

    extremes_of = {}
    for key, table in cast(_Tables, enough.groupby(_KEYS_WITHOUT_GROUP, sort=False)):
        if table["group"].nunique() > 1:  # a group alone has no width
            metric_name = key[-1]
            extremes_of[key] = _extremes(table, rate_of[metric_name])

    rows = []
    for key, extremes in extremes_of.items():
        arm, private, attribute, metric_name = key
        without_privacy = None
        if private:
            without_privacy = extremes_of.get((arm, False, attribute, metric_name))
        names = dict(zip(_KEYS_WITHOUT_GROUP, key, strict=True))
        comparison = _compare_extremes(extremes, without_privacy, rate_of[metric_name], overlap)
        rows.append({**names, **comparison})
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _Extremes:
    """The extreme rates of an attribute's groups.

    Attributes:
        width: The highest rate less the lowest, seed by seed.
        worst: The worst rate, seed by seed; missing where no direction is worse.
        worst_group: The group with the worst mean, where a direction is worse.
    """

    width: pd.Series
    worst: pd.Series
    worst_group: str | None


def _by_seed(groups: pd.DataFrame, kind: Kind) -> pd.DataFrame:
    """Arrange the groups' rates over all sites by seed.

    Returns:
        A row for each arm, private, attribute, group, metric and seed. Beside these: ``least``,
        the rows the rate is of; ``rate``; ``difference`` to everyone else; and both of the same
        training without privacy, ``rate_before`` and ``difference_before``, missing where there is
        none.
    """
    pooled = groups[groups["site"] == POOLED].reset_index(drop=True)

    # The sums of everyone else are those of all groups of the attribute, less the group's. A sum
    # that is missing for some group is missing for all.
    group_sums = pooled[["rows", *outcome_of(kind).sums]].astype(float)
    attribute = [pooled[key] for key in ("arm", "private", "seed", "attribute")]
    all_sums = group_sums.groupby(attribute).transform(lambda sums: sums.sum(skipna=False))
    rates_of_group = rates(group_sums, kind)
    rates_of_others = rates(all_sums - group_sums, kind)

    keys = pooled[["arm", "private", "attribute", "group", "seed"]]
    tables = []
    for rate in outcome_of(kind).rates:
        own_rate = rates_of_group[rate.name]
        table = keys.assign(
            metric=rate.name,
            least=denominators(group_sums, rate),
            rate=own_rate,
            difference=own_rate - rates_of_others[rate.name],
        )
        tables.append(table)
    return _with_rates_before(pd.concat(tables, ignore_index=True))


def _with_rates_before(table: pd.DataFrame) -> pd.DataFrame:
    """Add the rates and differences of the same training without privacy, see ``_by_seed``."""
    same_training = ["arm", "attribute", "group", "metric", "seed"]
    plain = table.loc[~table["private"], [*same_training, "rate", "difference"]]
    joined = table.merge(plain, on=same_training, how="left", suffixes=("", "_before"))

    # A training without privacy is not compared with itself.
    joined.loc[~joined["private"], ["rate_before", "difference_before"]] = np.nan
    return joined


def _with_enough_rows(by_seed: pd.DataFrame, seed_count: int) -> pd.DataFrame:
    """Keep the groups whose rate is taken of FEW rows or more in every seed."""
    by_group = by_seed.groupby(_KEYS)
    in_all_seeds = by_group["seed"].transform("size") == seed_count
    least = by_group["least"].transform("min").where(in_all_seeds)
    return by_seed[least >= FEW]


def _compare_in(metric: Rate, table: pd.DataFrame, seeds: pd.Index, overlap: float) -> pd.DataFrame:
    """Compare all groups at once in a metric, see ``compare_groups``.

    Args:
        metric: The metric.
        table: The rows of ``_by_seed`` for the metric.
        seeds: All seeds; a group may have no rows in some of them.
        overlap: As in ``compare_groups``.
    """
    by_group = table.groupby(_KEYS, sort=False)
    group_places = by_group.ngroup().to_numpy()
    seed_places = seeds.get_indexer(pd.Index(table["seed"]))
    compared = table.drop_duplicates(_KEYS)[_KEYS].reset_index(drop=True)

    def arranged(values: pd.Series) -> np.ndarray:
        """Arrange a value by group and seed: (groups, seeds), NaN where the group has no rows."""
        by_group_and_seed = np.full((len(compared), len(seeds)), math.nan)
        by_group_and_seed[group_places, seed_places] = values
        return by_group_and_seed

    in_all_seeds = by_group.size().to_numpy() == len(seeds)
    compared["least"] = np.where(in_all_seeds, by_group["least"].min().to_numpy(), 0).astype(int)
    compared["most"] = by_group["least"].max().to_numpy().astype(int)
    compared["few"] = compared["least"] < FEW

    for name, values in state_all(arranged(table["rate"]), overlap, (metric.low, metric.high)).items():
        compared[name] = values

    # Two rates differ by the span at most, and two differences by twice that.
    span = metric.high - metric.low
    change = table["rate"] - table["rate_before"]
    widening = table["difference"] - table["difference_before"]
    comparisons = {
        "difference": state_all(arranged(table["difference"]), overlap, (-span, span)),
        "change": state_all(arranged(change), 0.0, (-span, span)),
        "widening": state_all(arranged(widening), 0.0, (-2 * span, 2 * span)),
    }
    for name, stated in comparisons.items():
        compared[name] = stated["mean"]
        add_interval(compared, name, f"{name}_verdict", stated)
    return compared


def _extremes(table: pd.DataFrame, metric: Rate) -> _Extremes:
    """Find the lowest, highest and worst rate among an attribute's groups.

    Args:
        table: The rows of ``_by_seed`` for the attribute's groups and the metric.
        metric: The metric.
    """
    # Columns are sorted by name: of groups with the same mean, the first by name is the worst.
    by_group = table.pivot(index="seed", columns="group", values="rate")  # (seeds, groups)
    lowest = by_group.min(axis=1)
    highest = by_group.max(axis=1)
    width = highest - lowest
    means = by_group.mean()

    if metric.better == "neither":
        return _Extremes(width, worst=lowest * np.nan, worst_group=None)
    if metric.better == "higher":
        worst_group = means.sort_values(ascending=True, kind="stable").index[0]
        return _Extremes(width, worst=lowest, worst_group=str(worst_group))
    worst_group = means.sort_values(ascending=False, kind="stable").index[0]
    return _Extremes(width, worst=highest, worst_group=str(worst_group))


def _compare_extremes(
    extremes: _Extremes,
    without_privacy: _Extremes | None,
    metric: Rate,
    overlap: float,
) -> dict[str, Any]:
    """Compare an attribute's extreme rates, see ``compare_widths``.

    Args:
        extremes: The extreme rates.
        without_privacy: Those of the same training without privacy; None if there is none.
        metric: The metric.
        overlap: As in ``compare_groups``.
    """
    width_change = extremes.width * np.nan
    worst_change = extremes.worst * np.nan
    if without_privacy is not None:
        width_change = extremes.width - without_privacy.width
        worst_change = extremes.worst - without_privacy.worst

    span = metric.high - metric.low
    return {
        "worst_group": extremes.worst_group,
        **_columns("width", state(extremes.width, overlap, (0.0, span))),
        **_columns("width_change", state(width_change, 0.0, (-span, span))),
        **_columns("worst", state(extremes.worst, overlap, (metric.low, metric.high))),
        **_columns("worst_change", state(worst_change, 0.0, (-span, span))),
    }


def _columns(name: str, stated: Stated) -> dict[str, float | str]:
    """Name the columns of a mean with its interval."""
    return {
        name: stated.mean,
        f"{name}_low": stated.low,
        f"{name}_high": stated.high,
        f"{name}_why": stated.why,
    }
