"""Gather for the report how the arms stand beside the models of scikit-learn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedsim.figures import figure
from fedsim.outcomes.metric import Metric
from fedsim.report import charts
from fedsim.report.findings import answers_by_question
from fedsim.report.references.words import UNPROTECTED, lacks_of, named, references_of
from fedsim.results.comparison import SAME
from fedsim.results.estimate import Estimate
from fedsim.results.run_directory import Run

_MOST_NOTES = 40


@dataclass(frozen=True)
class Section:
    """What the report says of references.

    Attributes:
        metric: The metric by which arms are held against them, in words.
        better: Whether higher or lower is better.
        names: The references, in words.
        groups: By privacy: (label, lines), and a line is (marker as SVG, arm, a cell for each reference).
        settings: For each reference in words: the settings that were chosen, and for how many models.
        notes: Where there is no model, and why.
        notes_left: How many more of these there are.
        unprotected: That nothing protects them.
    """

    metric: str
    better: str
    names: Sequence[str]
    groups: Sequence[tuple[str, Sequence[tuple[str, str, Sequence[dict[str, Any]]]]]]
    settings: Sequence[tuple[str, Sequence[tuple[str, int]]]]
    notes: Sequence[str]
    notes_left: int
    unprotected: str


def section_of(run: Run, arms: Sequence[str]) -> Section | None:
    """Return how arms stand beside the references of a run; None where none was asked for."""
    found = references_of(run)
    if not found:
        return None
    metric = run.metrics[0]
    table = run.over_references
    rows = table[(table["site"] == run.headline) & (table["metric"] == metric.name)].to_dict("records")
    by_place = {(row["private"], row["arm"], row["reference"], row["learned_from"]): row for row in rows}

    groups = []
    for private in (False, True):
        lines = []
        for arm in arms:
            if (private, arm, *found[0]) in by_place:
                cells = [_cell(run, metric, by_place[private, arm, *place]) for place in found]
                lines.append((charts.key(arm, private), arm, cells))
        if lines:
            groups.append((charts.PRIVACY[private], lines))

    notes = lacks_of(run)
    return Section(
        metric=f"{metric.label} {run.headline_place}",
        better=metric.better,
        names=[named(*place, run.kind) for place in found],
        groups=groups,
        settings=[(named(*place, run.kind), _settings(run, *place)) for place in found],
        notes=notes[:_MOST_NOTES],
        notes_left=max(0, len(notes) - _MOST_NOTES),
        unprotected=UNPROTECTED if run.ledger["trainings"] else "",
    )


def _cell(run: Run, metric: Metric, row: dict[Any, Any]) -> dict[str, Any]:
    """Return an arm's difference to a reference, with an interval for each question."""
    mean = float(row["difference"])
    here = Estimate(mean, row["difference_here_low"], row["difference_here_high"], str(row["difference_here_why"]))
    wide = Estimate(mean, row["difference_low"], row["difference_high"], str(row["difference_why"]))
    worse = "lower" if metric.better == "higher" else "higher"
    words = {"": "", SAME: SAME, metric.better: "better", worse: "worse"}
    return {"value": here.value(signed=True), "answers": answers_by_question(run, here, wide, words)}


def _settings(run: Run, reference: str, learned_from: str) -> list[tuple[str, int]]:
    """Return the settings that were chosen, and for how many models each, the most frequent first."""
    table = run.measured.references
    own = table[(table["reference"] == reference) & (table["learned_from"] == learned_from)]
    at_sites = own[~own["site"].isin(run.TOGETHER) & (own["settings"] != "")]
    models = at_sites if learned_from != "all sites" else at_sites.drop_duplicates("seed")
    return [(str(settings), int(count)) for settings, count in models["settings"].value_counts(sort=True).items()]


def group_of(run: Run, columns: Sequence[tuple[Metric, str]]) -> list[dict[str, Any]]:
    """Return the rows of the references for the arms' table; nothing where none was asked for.

    Args:
        run: The run.
        columns: The metrics of the table, each with the row of scores that it is of.
    """
    means = run.references
    rows = []
    for reference, learned_from in references_of(run):
        own = means[(means["reference"] == reference) & (means["learned_from"] == learned_from)]
        by_place = {(row["metric"], row["site"]): row for row in own.to_dict("records")}
        cells = []
        for metric, site in columns:
            row = by_place[metric.name, site]
            mean = Estimate(float(row["mean"]), float(row["low"]), float(row["high"]), str(row["why"]))
            cells.append({"mean": figure(mean.mean), "bounds": mean.below(), "change": "", "answers": []})
        rows.append({"arm": named(reference, learned_from, run.kind), "key": "", "cells": cells})
    if not rows:
        return []
    return [{"label": "by scikit-learn", "terms": "no privacy guarantee", "rows": rows}]
