"""From what a tournament gave to who won: ranks with paired intervals, and groups that can't be told apart."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fedsim.data.loading import task_of
from fedsim.experiments.tournament import Cell, Played
from fedsim.mistakes import Mistake
from fedsim.outcomes import metric_named, outcome_of
from fedsim.outcomes.kinds.binary import ACCURACY, AUC
from fedsim.outcomes.metric import Metric
from fedsim.results import multiple_comparisons
from fedsim.results.comparison import interval
from fedsim.results.evaluation import INSIDE, TOGETHER, headline_of
from fedsim.results.multiple_comparisons import FEWEST_SEEDS, differences, groups
from fedsim.results.seeds import WORTH_TELLING, seeds_needed
from fedsim.scenario.schema import Scenario

Overlaps = Mapping[tuple[str, ...], float]
"""{field of the grid: test share over training share, or 0 where all its seeds have the same rows}."""

_NOT_AXES = ("seed", "site", "round", "megabytes", "reason")


def metric_of(scenario: Scenario, wanted: str | None = None) -> str:
    """Return the name of the metric to rank by, of which more is better: the one that is wanted, or the task's first.

    Raises:
        Mistake: It is not one of them.
    """
    known = [metric.name for metric in outcome_of(task_of(scenario).kind).metrics if metric.better == "higher"]
    if wanted is not None and wanted not in known:
        raise Mistake(f"--metric: expected one of {', '.join(known)}, got {wanted!r}")
    return wanted or known[0]


def overlaps_of(grid: Sequence[Cell]) -> dict[tuple[str, ...], float]:
    """Return {field: overlap of its seeds' rows, as ``comparison.interval`` takes it}.

    A field is a place in the grid without the strategy; fields may have other tasks or splits. 0 where all seeds have
    the same rows.
    """
    found = {}
    for cell in grid:
        field = tuple(value for name, value in cell.place.items() if name != "strategy")
        found[field] = overlap_of(cell.scenario)
    return found


def overlap_of(scenario: Scenario) -> float:
    """Return the overlap of the seeds' rows, as ``comparison.interval`` takes it: 0 where all have the same rows."""
    return 0.0 if task_of(scenario).by_time else scenario.split.overlap


def axes_of(table: pd.DataFrame) -> list[str]:
    """Return the names of a table's axes: its columns ahead of the figures."""
    return list(itertools.takewhile(lambda name: name not in _NOT_AXES, map(str, table.columns)))


def rank(played: Played, metric: str, overlaps: Overlaps, target: float | None = None) -> pd.DataFrame:
    """Rank the strategies in every field of the grid.

    Args:
        played: What a tournament gave.
        metric: What to rank by: the mean over seeds of its test value, higher is better. Its row is HEADLINE of
            ``fedsim.results.evaluation``, which is the figure inside sites.
        overlaps: Of each field, as ``overlaps_of`` returns it.
        target: A validation value of the metric, to count the rounds until it is reached.

    Returns:
        A row for each cell that ran at all seeds, in the order of the ``validation`` figures, the mean over seeds after
        the last round: so the first strategy of a field is chosen without a look at its test rows. Where there are no
        validation rows, ``validation`` is missing and test figures give the order. Then the axes; ``group``, 1 for the
        first strategy and all that can't be told to be lower, and so on with what is left; ``mean, low, high`` of the
        test figures, an interval for this strategy alone; ``difference, difference_low, difference_high`` to the first,
        paired by seed and adjusted for all pairs in the field, and its ``verdict``; ``worst`` site and ``spread`` over
        sites (standard deviation), means over seeds; the ``overlap`` of the seeds' rows; ``seeds_needed`` to tell a
        difference of ``WORTH_TELLING`` to the first, see ``seeds.seeds_needed``; ``megabytes``; and with a target
        ``rounds`` to it (the median over seeds, missing where half of them don't get there) and ``reached``, the share
        of seeds that do; where sites differ in speed, also the virtual ``time`` to it.
    """
    axes = axes_of(played.scores)
    rows = []
    for field in _fields(played, metric, overlaps):
        rows += [{**field.place, **row} for row in _ranked(field)]
    table = pd.DataFrame(rows)[[*axes, *(name for name in rows[0] if name not in axes)]]
    table = table.merge(played.costs, on=axes)
    return table if target is None else table.merge(_rounds(played.curves, axes, metric, target), on=axes)


def pairs(played: Played, metric: str, overlaps: Overlaps) -> pd.DataFrame:
    """Compare all pairs of strategies in every field; arguments as of ``rank``, whose groups follow from it.

    Returns:
        A row for each pair: the axes without the strategy, ``strategy``, the better ``other``, and ``difference, low,
        high, verdict`` as ``rank`` has them.
    """
    found = []
    for field in _fields(played, metric, overlaps):
        table = multiple_comparisons.table(field.figures, field.overlap, field.step)
        for number, (name, value) in enumerate(field.place.items()):
            table.insert(number, name, value)
        found.append(table)
    return pd.concat(found, ignore_index=True)


@dataclass(frozen=True)
class _Field:
    """Hold the scores of the strategies that compete with each other.

    Attributes:
        place: {axis: value}, without the strategy.
        metric: The name of the metric.
        figures: Its test values in the headline's row, a row for each seed and a column for each strategy, in the order
            of ``validation``.
        validation: Its values on validation rows after the last round, means over seeds; missing without such rows.
        sites: The rows of the scores that are of one site.
        overlap: Of the seeds' rows.
        step: The least amount by which two of these values can differ at one seed.
    """

    place: Mapping[str, str]
    metric: str
    figures: pd.DataFrame
    validation: pd.Series
    sites: pd.DataFrame
    overlap: float
    step: float


def _fields(played: Played, metric: str, overlaps: Overlaps) -> Iterator[_Field]:
    """Yield the fields of a grid. A strategy that failed at a seed does not compete: it has no costs."""
    axes = axes_of(played.scores)
    names = [name for name in axes if name != "strategy"]
    complete = played.scores.merge(played.costs[axes], on=axes)
    for key, scores in complete.groupby(names, sort=False):
        place = tuple(str(value) for value in key)
        headline = headline_of(scores, metric)
        whole = scores[scores["site"] == headline]
        sites = scores[~scores["site"].isin(TOGETHER)]
        figures = whole.pivot(index="seed", columns="strategy", values=metric).astype(float)
        validation = _validation(played.curves, names, key, metric).reindex(figures.columns)
        by = validation if validation.notna().all() else figures.mean()
        order = by.sort_values(ascending=False, kind="stable").index
        yield _Field(
            place=dict(zip(names, place, strict=True)),
            metric=metric,
            figures=figures[order],
            validation=validation[order],
            sites=sites,
            overlap=overlaps[place],
            step=step_of(sites if headline == INSIDE else whole, metric, ["strategy"]),
        )


def _validation(curves: pd.DataFrame, names: Sequence[str], key: tuple[object, ...], metric: str) -> pd.Series:
    """Return {strategy: its figure on validation rows after the last round, the mean over seeds} in a field.

    Args:
        curves: As a tournament gives them.
        names: The axes without the strategy.
        key: The field: their values.
        metric: The name of the metric.
    """
    if metric not in curves:
        return pd.Series(dtype=float)
    here = (curves[list(names)] == list(key)).all(axis=1)
    field = curves[here]
    return field[is_kept(field, ["strategy", "seed"])].groupby("strategy")[metric].mean().astype(float)


def is_kept(curves: pd.DataFrame, keys: list[str]) -> pd.Series:
    """Whether the models after a round are those that are tested: the last round's, or those of the one that is kept.

    Args:
        curves: A row for each training and round.
        keys: The columns that tell trainings apart.
    """
    last = curves["round"] == curves.groupby(keys)["round"].transform("max")
    if "kept" not in curves:
        return last
    return curves["kept"].where(curves["kept"].notna(), last).astype(bool)


def step_of(counted: pd.DataFrame, metric: str, competitors: list[str]) -> float:
    """Return the least amount by which two models' figures can differ on the same test rows; 0: any amount.

    One row more that is named rightly, or one more pair of a positive and a negative row in the right order.

    Args:
        counted: The rows of the scores whose test rows are compared with each other: each site's, or the pooled one.
        metric: The name of the metric.
        competitors: The axes by which models are told apart.
    """
    rows = counted["rows"].astype(float)
    if metric == ACCURACY.name:
        units = rows
    elif metric == AUC.name and "positives" in counted and counted["positives"].notna().all():
        positives = counted["positives"].astype(float)
        units = positives * (rows - positives)
    else:
        return 0.0
    together = units.groupby([*(counted[name] for name in competitors), counted["seed"]]).sum()
    return float((1 / together.clip(lower=1)).max())


def _ranked(field: _Field) -> list[dict[str, object]]:
    """Return the rows of one field, best first."""
    strategies = list(field.figures.columns)
    apart = differences(field.figures.to_numpy(), field.overlap, field.step)
    numbers = groups(np.arange(len(strategies)), apart.lower)
    rows = []
    for place, strategy in enumerate(strategies):
        own = field.sites[field.sites["strategy"] == strategy]
        by_site = own.pivot(index="seed", columns="site", values=field.metric).astype(float)
        mean, low, high = alone(field.figures[strategy], field.overlap, metric_named(field.metric))
        best = place == 0
        rows.append({
            "strategy": strategy,
            "group": int(numbers[place]),
            "mean": mean,
            "low": low,
            "high": high,
            "difference": np.nan if best else apart.mean[place, 0],
            "difference_low": np.nan if best else apart.low[place, 0],
            "difference_high": np.nan if best else apart.high[place, 0],
            "verdict": None if best else apart.verdict(place, 0),
            "worst": float(by_site.min(axis=1).mean()),
            "spread": float(by_site.std(axis=1, ddof=0).mean()),
            "overlap": field.overlap,
            "validation": float(field.validation.iloc[place]),
            "seeds_needed": None if best else _seeds_needed(field, place),
        })  # fmt: skip
    return rows


def _seeds_needed(field: _Field, place: int) -> float:
    """Return how many seeds would tell a strategy apart from the first, if they differ by ``WORTH_TELLING``."""
    paired = field.figures.iloc[:, place] - field.figures.iloc[:, 0]
    pairs = field.figures.shape[1] * (field.figures.shape[1] - 1) // 2
    return seeds_needed(paired.to_numpy(dtype=float), WORTH_TELLING, field.overlap, pairs)


def alone(values: pd.Series, overlap: float, metric: Metric) -> tuple[float, float, float]:
    """Return mean, low and high of one competitor's figure over seeds.

    The bounds are missing where they would say nothing: below three seeds, where all seeds have the same figure, and
    where they would reach from one end of the metric to the other.
    """
    mean, low, high = interval(values, overlap)
    bounds = np.clip([low, high], metric.low, metric.high)
    few = values.notna().sum() < FEWEST_SEEDS
    everything = bounds[0] == metric.low and bounds[1] == metric.high
    if few or everything or not low < high:
        return mean, np.nan, np.nan
    return mean, float(bounds[0]), float(bounds[1])


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
