"""What a run says of protected groups: a few sentences, and the rows of a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd

from fedsim.data.task import SITE
from fedsim.report.statement import listed
from fedsim.results.comparison import HERE, SAME
from fedsim.results.estimate import Estimate
from fedsim.results.evaluation import POOLED
from fedsim.results.groups import FEW, RATES, Rate
from fedsim.results.run_directory import Run

_SAID = 2  # of a kind's rates are spoken of, the others are in the table
_CLEAR = ("higher", "lower")
_Row = Mapping[str, Any]
_HERE = f"{HERE[0].upper()}{HERE[1:]}"
_COUNTED = ["group", "rows", "positives"]


@dataclass(frozen=True)
class Cell:
    """A rate of a group: what it is, how it differs from everyone else's, and what privacy changes."""

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
    """The groups of an attribute, and in words how far they are apart in each rate."""

    attribute: str
    apart: tuple[str, ...]
    lines: tuple[Line, ...]


def treatment(run: Run, arm: str) -> str:
    """Return in a few sentences how an arm treats protected groups, with privacy if there is; nothing without groups.

    A difference is named where its interval leaves out 0. Differences speak of institutions like these, changes by
    privacy of these records.
    """
    if set(run.groups["attribute"]) <= {SITE}:
        return ""
    table, private = run.harm, bool(run.sites["private"].any())
    said = [rate.name for rate in RATES[run.kind][:_SAID]]
    own = table[(table["arm"] == arm) & (table["private"] == private) & (table["attribute"] != SITE)]
    own = own[own["metric"].isin(said)]
    attributes = listed([str(name) for name in dict.fromkeys(own["attribute"])])
    labels = " or ".join(rate.label for rate in RATES[run.kind][:_SAID])
    if own["difference_verdict"].isna().all():
        return f"By {attributes} it cannot be told: there is no interval with so few seeds or rows."
    clear = [_difference(run, row) for row in _records(_one_of_two(own, "difference"))]
    found = [
        *clear,
        f"No {'other ' if clear else ''}difference in {labels} between groups of {attributes} can be told apart from "
        f"chance {run.asked}.",
    ]
    if private:
        found += _changed(run, own[own["metric"] == said[0]])
        moved = _records(_one_of_two(own, "widening"))
        found += [_moved(run, row) for row in moved] or [
            f"That privacy makes any of these differences larger or smaller {HERE} cannot be told: {SAME} from zero."
        ]
    few = [f"{row['attribute']} {row['group']} ({_label(run, row)})" for row in _records(own) if row["few"]]
    if few:
        found.append(f"Take care with {listed(few)}: a seed can have fewer than {FEW} test rows to measure it on.")
    return " ".join(found)


def blocks(run: Run, arm: str, private: bool, shown: list[str]) -> list[Block]:
    """Return the table of an arm with or without privacy: protected attributes, then some of the sites."""
    table = run.harm[(run.harm["arm"] == arm) & (run.harm["private"] == private)]
    names = [name for name in dict.fromkeys(table["attribute"]) if name != SITE]
    return [
        _block(run, str(name), table[table["attribute"] == name], shown if name == SITE else None)
        for name in (*names, SITE)
    ]


def _block(run: Run, attribute: str, table: pd.DataFrame, shown: list[str] | None) -> Block:
    rows = {(row["group"], row["metric"]): row for row in _records(table)}
    groups = [group for group in dict.fromkeys(table["group"]) if shown is None or group in shown]
    arm, private = table["arm"].iloc[0], table["private"].iloc[0]
    apart = tuple(_apart(run, arm, private, attribute, rate) for rate in RATES[run.kind])
    counted = run.groups[(run.groups["attribute"] == attribute) & (run.groups["site"] == POOLED)]
    counted = counted[(counted["arm"] == arm) & (counted["private"] == private)].reindex(columns=_COUNTED)
    counts = {group: (_span(own["rows"]), _span(own["positives"])) for group, own in counted.groupby("group")}
    lines = [
        Line(
            str(group),
            counts[group][0],
            counts[group][1],
            tuple(_cell(rows[group, rate.name]) for rate in RATES[run.kind]),
        )
        for group in groups
    ]
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
    least, most = int(counts.min()), int(counts.max())
    return f"{most}" if least == most else f"{least}–{most}"


def _apart(run: Run, arm: str, private: bool, attribute: str, rate: Rate) -> str:
    """Return how far the groups are apart, and which is the worst; nothing if fewer than two have enough rows."""
    table = run.widths
    if table.empty:
        return ""
    own = table[(table["arm"] == arm) & (table["private"] == private) & (table["attribute"] == attribute)]
    own = _records(own[own["metric"] == rate.name])
    if not own:
        return ""
    row = own[0]
    worst = f"; worst {row['worst_group']}" if rate.better != "neither" else ""
    change = _estimate(row, "width_change")
    changed = f"; by privacy {change.value(signed=True)}" if private and change.verdict in _CLEAR else ""
    return f"{_estimate(row, 'width').value()} apart{worst}{changed}"


def _one_of_two(own: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the rows whose difference is clear; where an attribute has two groups, one of them: the lower."""
    two = own.groupby("attribute")["group"].transform("nunique") == 2
    verdicts = own[f"{name}_verdict"]
    return own[verdicts.isin(_CLEAR) & ~(two & (verdicts == "higher"))]


def _difference(run: Run, row: _Row) -> str:
    size = _estimate(row, "difference").text(signed=True)
    return (
        f"The {_label(run, row)} is {row['difference_verdict']} for {row['attribute']} {row['group']} than for "
        f"everyone else {run.asked}: {size}{_observed(run, row)}."
    )


def _label(run: Run, row: _Row) -> str:
    return next(rate.label for rate in RATES[run.kind] if rate.name == row["metric"])


def _observed(run: Run, row: _Row) -> str:
    """Return how common the outcome is in a group and elsewhere, which alone makes selection rates differ."""
    if run.kind != "binary":
        return ""
    table = run.groups[(run.groups["attribute"] == row["attribute"]) & (run.groups["site"] == POOLED)]
    own = table["group"] == row["group"]
    shares = [table.loc[part, "positives"].sum() / table.loc[part, "rows"].sum() for part in (own, ~own)]
    return f"; positive are {shares[0]:.0%} of their rows and {shares[1]:.0%} of the others'"


def _changed(run: Run, own: pd.DataFrame) -> list[str]:
    """Return of which groups privacy changes the headline rate itself, a sentence each way."""
    said = []
    for way in _CLEAR:
        rows = _records(own[own["change_verdict"] == way])
        sizes = [_estimate(row, "change") for row in rows]
        named = [
            f"{row['attribute']} {row['group']} ({size.value(signed=True)}, {size.interval(signed=True)})"
            for row, size in zip(rows, sizes, strict=True)
        ]
        if named:
            said.append(f"{_HERE}, privacy makes the {_label(run, rows[0])} {way} for {listed(named)}.")
    return said


def _moved(run: Run, row: _Row) -> str:
    before = _estimate(row, "difference").mean - _estimate(row, "widening").mean
    grows = abs(row["difference"]) > abs(before)
    return (
        f"{_HERE}, privacy makes the difference in {_label(run, row)} of {row['attribute']} {row['group']} to everyone "
        f"else {'larger' if grows else 'smaller'}: it moves by {_estimate(row, 'widening').text(signed=True)}."
    )
