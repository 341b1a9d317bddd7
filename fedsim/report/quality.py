"""Gather for the report how far a model's answers can be used: calibration, confusion matrix, coefficients."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fedsim import figures
from fedsim.report import charts, reliability_chart
from fedsim.results.calibration import calibration_error
from fedsim.results.comparison import state
from fedsim.results.confusion import RATES, counts_of, rates, rates_of_class
from fedsim.results.estimate import Estimate
from fedsim.results.run_directory import Run

_MOST_INPUTS = 60  # whose coefficients are listed


@dataclass(frozen=True)
class ArmQuality:
    """A line about an arm.

    Attributes:
        arm: The arm.
        label: The arm and its privacy, for a heading.
        key: Its marker, as SVG.
        error: The expected calibration error.
        said: The mean probability that was predicted; for people.
        seen: The share that came true; for people.
        counts: The test rows of all seeds by true class (a row) and named class (a column).
        rates: Sensitivity, specificity and precision, of a binary outcome.
        class_rates: The same for each class against the rest, over all seeds' rows, for people.
    """

    arm: str
    label: str
    key: str
    error: Estimate
    said: str
    seen: str
    counts: list[list[int]]
    rates: list[Estimate]
    class_rates: list[list[str]]


@dataclass(frozen=True)
class Quality:
    """What the report says of probabilities and classes; each list is by privacy: (label, lines)."""

    chart: str
    groups: list[tuple[str, list[ArmQuality]]]
    classes: int


def quality_of(run: Run, arms: Sequence[str]) -> Quality | None:
    """Return the calibration and the confusion matrices of all arms.

    Returns:
        None for a number, and in runs of older versions.
    """
    bins = run.measured.calibration
    if bins.empty:
        return None

    said = "predicted probability" if run.kind == "binary" else "probability of the class that is named"
    seen = "share that is positive" if run.kind == "binary" else "share that is named rightly"
    groups = []
    for private in (False, True):
        lines = [_line(run, arm, private) for arm in arms if _was_measured(bins, arm, private)]
        if lines:
            groups.append((charts.PRIVACY[private], lines))
    confusion = run.measured.confusion
    return Quality(
        chart=reliability_chart.reliability(bins, arms, said, seen),
        groups=groups,
        classes=0 if confusion.empty else 1 + int(confusion["true"].max()),
    )


def _was_measured(table: pd.DataFrame, arm: str, private: bool) -> bool:
    return bool(((table["arm"] == arm) & (table["private"] == private)).any())


def _of(table: pd.DataFrame, arm: str, private: bool) -> pd.DataFrame:
    if table.empty:
        return table
    return table[(table["arm"] == arm) & (table["private"] == private)]


def _line(run: Run, arm: str, private: bool) -> ArmQuality:
    bins = _of(run.measured.calibration, arm, private)
    errors = [calibration_error(of_seed) for _, of_seed in bins.groupby("seed")]
    total = float(bins["rows"].sum())

    table = _of(run.measured.confusion, arm, private)
    counts = counts_of(table) if len(table) else {}
    classes = 1 + max((true for true, _ in counts), default=-1)
    matrix = [[counts[true, named] for named in range(classes)] for true in range(classes)]
    class_rates = []
    if run.kind == "classes":
        for number in range(classes):
            of_class = rates_of_class(counts, number)
            class_rates.append([figures.figure(of_class[name]) for name in RATES])

    return ArmQuality(
        arm=arm,
        label=f"{arm}, {charts.PRIVACY[private]}",
        key=charts.key(arm, private),
        error=_estimate(run, errors),
        said=figures.figure(float(bins["said"].sum()) / total),
        seen=figures.figure(float(bins["seen"].sum()) / total),
        counts=matrix,
        rates=_rates(run, table) if run.kind == "binary" and counts else [],
        class_rates=class_rates,
    )


def _rates(run: Run, table: pd.DataFrame) -> list[Estimate]:
    by_seed = [rates(counts_of(of_seed)) for _, of_seed in table.groupby("seed")]
    return [_estimate(run, [of_seed[name] for of_seed in by_seed]) for name in RATES]


def _estimate(run: Run, by_seed: list[float]) -> Estimate:
    stated = state(pd.Series(by_seed, dtype=float), run.overlap, (0.0, 1.0))
    return Estimate(stated.mean, stated.low, stated.high, stated.why)


def coefficients_of(run: Run) -> dict[str, Any] | None:
    """Return the coefficients of the released model for a table.

    Returns:
        None if the model is not linear or its inputs have no names, and in runs of older versions.
    """
    table = run.measured.coefficients
    if table.empty:
        return None

    names = list(dict.fromkeys(table["input"]))
    intercept, *inputs = names
    shown = _largest(table, inputs)
    by_place = {(row["output"], row["input"]): row for row in table.to_dict("records")}
    outputs = list(dict.fromkeys(table["output"]))
    rows = []
    for name in (intercept, *shown):
        cells = [by_place[output, name] for output in outputs]
        rows.append(_coefficient_row(run, name, cells))
    return {
        "private": bool(table["private"].iloc[0]),
        "classes": [int(output) for output in outputs] if run.kind == "classes" else [],
        "rows": rows,
        "left": len(inputs) - len(shown),
    }


def _coefficient_row(run: Run, name: str, cells: list[dict[Any, Any]]) -> dict[str, Any]:
    first = cells[0]
    per_unit = math.nan if first["per_unit"] is None else float(first["per_unit"])
    odds = figures.UNKNOWN
    if run.kind == "binary" and not math.isnan(per_unit):
        ratio = math.exp(min(per_unit, 700.0))  # e^700 is near the largest float
        odds = f"{ratio:.4f}" if ratio < 100 else f"{ratio:.4g}"
    return {
        "name": name,
        "unit": first["unit"],
        "per_input": [figures.coefficient(float(cell["per_input"])) for cell in cells],
        "per_unit": figures.coefficient(per_unit),
        "odds": odds,
    }


def _largest(table: pd.DataFrame, inputs: list[str]) -> list[str]:
    """Return the inputs to list: all, or those with the largest coefficients, in the order of the columns."""
    largest = table.assign(size=table["per_input"].astype(float).abs()).groupby("input")["size"].max()
    kept = set(largest[inputs].sort_values(ascending=False, kind="stable").index[:_MOST_INPUTS])
    return [name for name in inputs if name in kept]
