"""From what a tournament gave to who won: ranks with paired intervals, and groups that can't be told apart."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from fedsim.comparison import SAME, interval, verdict
from fedsim.evaluation import TOGETHER, headline_of
from fedsim.loading import task_of
from fedsim.metrics import BY_NAME, METRICS
from fedsim.mistakes import Mistake
from fedsim.scenario import Scenario
from fedsim.tournament import Played

_NOT_AXES = ("seed", "site", "round", "megabytes", "reason")


def metric_of(scenario: Scenario, wanted: str | None = None) -> str:
    """Return the name of the metric to rank by, of which more is better: the one that is wanted, or the task's first.

    Raises:
        Mistake: It is not one of them.
    """
    known = [metric.name for metric in METRICS[task_of(scenario).kind] if metric.better == "higher"]
    if wanted is not None and wanted not in known:
        raise Mistake(f"--metric: expected one of {', '.join(known)}, got {wanted!r}")
    return wanted or known[0]


def overlap_of(scenario: Scenario) -> float:
    """Return what ``comparison.interval`` must know of the seeds: whether they have the same rows."""
    return 0.0 if task_of(scenario).by_time else scenario.split.overlap


def axes_of(table: pd.DataFrame) -> list[str]:
    """Return the names of a table's axes: its columns ahead of the figures."""
    return list(itertools.takewhile(lambda name: name not in _NOT_AXES, map(str, table.columns)))


def rank(played: Played, metric: str, overlap: float, target: float | None = None) -> pd.DataFrame:
    """Rank the strategies in every field of the grid.

    Args:
        played: What a tournament gave.
        metric: What to rank by: the mean over seeds of its test value, higher is better. Its row is HEADLINE of
            ``fedsim.evaluation``, which is the figure inside sites.
        overlap: Of the seeds' training rows, as ``comparison.interval`` takes it.
        target: A validation value of the metric, to count the rounds until it is reached.

    Returns:
        A row for each cell, best first in each field: the axes; ``group``, 1 for the best strategy and all that can't
        be told apart from it, and so on with what is left; ``mean, low, high``; ``difference, difference_low,
        difference_high`` to the best, paired by seed, and its ``verdict``; ``worst`` site and ``spread`` over sites
        (standard deviation), means over seeds; ``megabytes``; and with a target ``rounds`` to it (the median over
        seeds, missing where half of them don't get there) and ``reached``, the share of seeds that do; where sites
        differ in speed, also the virtual ``time`` to it.
    """
    axes = axes_of(played.scores)
    field = [name for name in axes if name != "strategy"]
    rows = []
    for place, scores in played.scores.groupby(field, sort=False):
        rows += [{**dict(zip(field, place, strict=True)), **row} for row in _ranked(scores, metric, overlap)]
    table = pd.DataFrame(rows)[[*axes, *(name for name in rows[0] if name not in axes)]]
    table = table.merge(played.costs, on=axes)
    return table if target is None else table.merge(_rounds(played.curves, axes, metric, target), on=axes)


def _ranked(scores: pd.DataFrame, metric: str, overlap: float) -> list[dict[str, object]]:
    """Return the rows of one field, best first."""
    pooled = (
        scores[scores["site"] == headline_of(set(scores["site"]))]
        .pivot(index="seed", columns="strategy", values=metric)
        .astype(float)
    )
    order = pooled.mean().sort_values(ascending=False, kind="stable").index
    groups = _groups(pooled, list(order), overlap)
    inside, ends = scores[~scores["site"].isin(TOGETHER)], (BY_NAME[metric].low, BY_NAME[metric].high)
    rows = []
    for strategy in order:
        own = inside[inside["strategy"] == strategy].pivot(index="seed", columns="site", values=metric).astype(float)
        mean, low, high = interval(pooled[strategy], overlap)
        away = interval(pooled[strategy] - pooled[order[0]], overlap) if strategy != order[0] else (np.nan,) * 3
        rows.append({
            "strategy": strategy,
            "group": groups[strategy],
            **dict(zip(("mean", "low", "high"), np.clip((mean, low, high), *ends), strict=True)),
            **dict(zip(("difference", "difference_low", "difference_high"), away, strict=True)),
            "verdict": verdict(*away[1:]),
            "worst": float(own.min(axis=1).mean()),
            "spread": float(own.std(axis=1, ddof=0).mean()),
        })  # fmt: skip
    return rows


def _groups(pooled: pd.DataFrame, order: Sequence[str], overlap: float) -> dict[str, int]:
    """Return {strategy: group}: the best that is left leads a group of all that can't be told apart from it."""
    groups: dict[str, int] = {}
    number = 0
    for leader in order:
        if leader in groups:
            continue
        number += 1
        for other in order:
            same = verdict(*interval(pooled[other] - pooled[leader], overlap)[1:]) in (SAME, None)
            if other not in groups and (other == leader or same):
                groups[other] = number
    return groups


def _rounds(curves: pd.DataFrame, axes: list[str], metric: str, target: float) -> pd.DataFrame:
    """Return for each cell the median of the first rounds in which the target is reached, and of the time then."""
    reached = curves[curves[metric].astype(float) >= target]
    measures = ["round", *(["time"] if "time" in curves else [])]
    first = reached.groupby([*axes, "seed"], sort=False)[measures].min()
    all_seeds = curves.groupby([*axes, "seed"], sort=False)["round"].max().index
    found = first.reindex(all_seeds).fillna(np.inf).groupby(axes, sort=False)
    table = found.median().rename(columns={"round": "rounds"})
    table["reached"] = found["round"].apply(lambda one: float(np.isfinite(one).mean()))
    return table.replace(np.inf, np.nan).reset_index()
