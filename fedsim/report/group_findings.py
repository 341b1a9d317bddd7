"""Report how protected groups are treated: in a few sentences, and as the rows of a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd

from fedsim import figures
from fedsim.data.task import SITE
from fedsim.outcomes import outcome_of
from fedsim.outcomes.metric import Rate
from fedsim.report.statement import listed
from fedsim.results.comparison import HERE, SAME
from fedsim.results.estimate import Estimate
from fedsim.results.evaluation import POOLED
from fedsim.results.groups import FEW
from fedsim.results.run_directory import Run

_SAID = 2  # of a kind's rates are spoken of, the others are in the table
_CLEAR = ("higher", "lower")
_Row = Mapping[str, Any]
_Widths = Mapping[tuple[str, str], _Row]  # {(attribute, metric): how far apart its groups are}
_HERE = f"{HERE[0].upper()}{HERE[1:]}"
_COUNTED = ["group", "rows", "positives"]


@dataclass(frozen=True)
class Cell:
    """A rate of a group, its difference to everyone else's, and its change by privacy."""

    rate: Estimate
    difference: Estimate
    change: Estimate
    few: bool


@dataclass(frozen=True)
class Line:
    """A group in a table: its name, how many test rows and positives a seed has of it, and a cell for each rate."""

    group: str
    rows: str
    positives: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Block:
    """The groups of an attribute, and how far apart they are in each rate, in words."""

    attribute: str
    apart: tuple[str, ...]
    lines: tuple[Line, ...]


def treatment(run: Run, arm: str) -> str:
    """Describe in a few sentences how an arm treats protected groups; return nothing without groups.

    A difference is named where its interval leaves out 0. Differences speak of institutions like these, changes by
    privacy of these records. The arm with privacy is described, if it was run.
    """
    if set(run.groups["attribute"]) <= {SITE}:
        return ""

    table = run.harm
    kinds = set(table[table["arm"] == arm]["private"])
    private = True in kinds
    rates = outcome_of(run.kind).rates[:_SAID]
    names = [rate.name for rate in rates]
    labels = " or ".join(rate.label for rate in rates)
    rows = table[(table["arm"] == arm) & (table["private"] == private) & (table["attribute"] != SITE)]
    rows = rows[rows["metric"].isin(names)]
    attributes = listed([str(name) for name in dict.fromkeys(rows["attribute"])])
    if rows["difference_verdict"].isna().all():
        return f"By {attributes} it cannot be told: there is no interval with so few seeds or rows."

    # Which groups differ from everyone else?
    sentences = [_difference(run, row) for row in _records(_one_of_two(rows, "difference"))]
    other = "other " if sentences else ""
    sentences.append(
        f"No {other}difference in {labels} between groups of {attributes} can be told apart from chance {run.asked}."
    )

    # What does privacy change?
    if kinds == {False, True}:
        sentences += _changed(run, rows[rows["metric"] == names[0]])
        moved = [_moved(run, row) for row in _records(_one_of_two(rows, "widening"))]
        if not moved:
            larger = f"That privacy makes any of these differences larger or smaller {HERE} cannot be told"
            moved = [f"{larger}: {SAME} from zero."]
        sentences += moved

    few = [f"{row['attribute']} {row['group']} ({_label(run, row)})" for row in _records(rows) if row["few"]]
    if few:
        sentences.append(f"Take care with {listed(few)}: a seed can have fewer than {FEW} test rows to measure it on.")
    return " ".join(sentences)


def blocks(run: Run, arm: str, private: bool, shown: list[str]) -> list[Block]:
    """Return the table of an arm with or without privacy: protected attributes, then some of the sites."""
    table = run.harm[(run.harm["arm"] == arm) & (run.harm["private"] == private)]
    names = [name for name in dict.fromkeys(table["attribute"]) if name != SITE]
    widths = _widths_of(run, arm, private)
    return [
        _block(run, str(name), table[table["attribute"] == name], widths, shown if name == SITE else None)
        for name in (*names, SITE)
    ]


def _widths_of(run: Run, arm: str, private: bool) -> _Widths:
    table = run.widths
    if table.empty:
        return {}
    rows = _records(table[(table["arm"] == arm) & (table["private"] == private)])
    return {(row["attribute"], row["metric"]): row for row in rows}


def _block(run: Run, attribute: str, table: pd.DataFrame, widths: _Widths, shown: list[str] | None) -> Block:
    groups = [group for group in dict.fromkeys(table["group"]) if shown is None or group in shown]
    of_groups = table[table["group"].isin(groups)]  # of thousands of sites some are shown
    rows = {(row["group"], row["metric"]): row for row in _records(of_groups)}
    arm = table["arm"].iloc[0]
    private = table["private"].iloc[0]
    apart = tuple(_apart(widths.get((attribute, rate.name)), rate) for rate in outcome_of(run.kind).rates)

    # How many rows and positives a seed has of each group.
    counted = run.groups[(run.groups["attribute"] == attribute) & (run.groups["site"] == POOLED)]
    counted = counted[(counted["arm"] == arm) & (counted["private"] == private)].reindex(columns=_COUNTED)
    counts = {}
    for group, seeds in counted[counted["group"].isin(groups)].groupby("group"):
        counts[group] = (_span(seeds["rows"]), _span(seeds["positives"]))

    lines = []
    for group in groups:
        cells = tuple(_cell(rows[group, rate.name]) for rate in outcome_of(run.kind).rates)
        rows_of_seed, positives = counts[group]
        lines.append(Line(str(group), rows_of_seed, positives, cells))
    return Block(attribute, apart, tuple(lines))


def _records(table: pd.DataFrame) -> list[_Row]:
    return cast(list[_Row], table.to_dict("records"))


def _cell(row: _Row) -> Cell:
    rate = Estimate(row["mean"], row["low"], row["high"], row["why"])
    return Cell(rate, _estimate(row, "difference"), _estimate(row, "change"), bool(row["few"]))


def _estimate(row: _Row, name: str) -> Estimate:
    return Estimate(float(row[name]), float(row[f"{name}_low"]), float(row[f"{name}_high"]), str(row[f"{name}_why"]))


def _span(counts: pd.Series) -> str:
    """Return ``34–43``, or nothing where nothing is counted."""
    if counts.isna().all():
        return ""
    least = int(counts.min())
    most = int(counts.max())
    return f"{most}" if least == most else f"{least}–{most}"


def _apart(row: _Row | None, rate: Rate) -> str:
    """Return the distance between the groups, and the worst group; nothing if fewer than two have enough rows."""
    if row is None:
        return ""

    worst = f"; worst {row['worst_group']}" if rate.better != "neither" else ""
    change = _estimate(row, "width_change")
    changed = f"; by privacy {change.value(signed=True)}" if row["private"] and change.verdict in _CLEAR else ""
    return f"{_estimate(row, 'width').value()} apart{worst}{changed}"


def _one_of_two(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the rows whose difference is clear; if an attribute has two groups, the lower one only."""
    two = rows.groupby("attribute")["group"].transform("nunique") == 2
    verdicts = rows[f"{name}_verdict"]
    return rows[verdicts.isin(_CLEAR) & ~(two & (verdicts == "higher"))]


def _difference(run: Run, row: _Row) -> str:
    size = _estimate(row, "difference").text(signed=True)
    return (
        f"The {_label(run, row)} is {row['difference_verdict']} for {row['attribute']} {row['group']} than for "
        f"everyone else {run.asked}: {size}{_observed(run, row)}."
    )


def _label(run: Run, row: _Row) -> str:
    return next(rate.label for rate in outcome_of(run.kind).rates if rate.name == row["metric"])


def _observed(run: Run, row: _Row) -> str:
    """Return the share of positives in a group and elsewhere, which alone makes selection rates differ."""
    if run.kind != "binary":
        return ""
    table = run.groups[(run.groups["attribute"] == row["attribute"]) & (run.groups["site"] == POOLED)]
    members = table["group"] == row["group"]
    share = figures.share(_positives(table[members]))
    share_of_others = figures.share(_positives(table[~members]))
    return f"; positive are {share} of their rows and {share_of_others} of the others'"


def _positives(table: pd.DataFrame) -> float:
    """Return the share of positives in rows of a tally."""
    return table["positives"].sum() / table["rows"].sum()


def _changed(run: Run, table: pd.DataFrame) -> list[str]:
    """Name the groups whose headline rate privacy changes: a sentence for higher, one for lower."""
    sentences = []
    for way in _CLEAR:
        rows = _records(table[table["change_verdict"] == way])
        sizes = [_estimate(row, "change") for row in rows]
        named = [
            f"{row['attribute']} {row['group']} ({size.value(signed=True)}, {size.interval(signed=True)})"
            for row, size in zip(rows, sizes, strict=True)
        ]
        if named:
            sentences.append(f"{_HERE}, privacy makes the {_label(run, rows[0])} {way} for {listed(named)}.")
    return sentences


def _moved(run: Run, row: _Row) -> str:
    before = _estimate(row, "difference").mean - _estimate(row, "widening").mean
    grows = abs(row["difference"]) > abs(before)
    return (
        f"{_HERE}, privacy makes the difference in {_label(run, row)} of {row['attribute']} {row['group']} to everyone "
        f"else {'larger' if grows else 'smaller'}: it moves by {_estimate(row, 'widening').text(signed=True)}."
    )
