"""The report of a run: one HTML file that needs nothing else, for those who decide and those who answer for it.

Every sentence is computed from what is in the run directory.
"""

import itertools
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

import pandas as pd
import tomli_w

from fedsim.data.task import SITE
from fedsim.report import charts, group_charts
from fedsim.report.findings import Numbers, answers
from fedsim.report.group_findings import blocks
from fedsim.report.pages import PAGES
from fedsim.report.statement import epsilons, statement, weaknesses
from fedsim.results.comparison import HERE, SAME
from fedsim.results.evaluation import POOLED
from fedsim.results.groups import RATES
from fedsim.results.metrics import Metric
from fedsim.results.run_directory import Run, write_bytes

_FEW_SEEDS = 5
_MOST_NOTES = 60
_ABOUT = {"binary": ["Positive", "Negative"], "classes": ["Of the most common class"], "number": ["Mean outcome"]}
_GAINS = {"": "", SAME: SAME, "higher": "gains", "lower": "loses"}


def write(run: Run) -> Path:
    """Write ``report.html`` into the run directory and return its path."""
    path = run.path / "report.html"
    write_bytes(path, _render(run).encode())
    return path


def _render(run: Run) -> str:
    numbers = Numbers(run)
    notes, sites = _notes(run), [_site_row(numbers, site) for site in numbers.shown]
    terms = itertools.groupby(statement(run), itemgetter(0))
    return PAGES.get_template("report.html.j2").render(
        run=run,
        task=run.manifest["task"],
        data=run.manifest["data"],
        numbers=numbers,
        started=f"{datetime.fromisoformat(run.manifest['started']):%d %B %Y, %H:%M UTC}",
        findings=answers(numbers),
        cautions=_cautions(run),
        groups=[_arm_group(numbers, private) for private in numbers.kinds],
        columns=[_heading(run, metric, site) for metric, site in _columns(run)],
        arms_charts=_arms_charts(numbers),
        curves_chart=_curves_chart(run),
        sites_chart=_sites_chart(numbers, sites),
        sites=sites,
        about_rows=_ABOUT[run.kind],
        rates=RATES[run.kind],
        treatment=[
            _treatment(numbers, arm, private)
            for arm in numbers.arms
            for private in reversed(numbers.kinds)
            if numbers.was_run(arm, private)
        ],
        treatment_chart=_treatment_chart(numbers, numbers.arms[0]),
        protected=[name for name in dict.fromkeys(run.groups["attribute"]) if name != SITE],
        statement=[(term, [text for _, text in pairs]) for term, pairs in terms],
        notes=notes[:_MOST_NOTES],
        notes_left=max(0, len(notes) - _MOST_NOTES),
        scenario=tomli_w.dumps(run.scenario.shown(), indent=2),
    )


def _notes(run: Run) -> list[str]:
    return [
        f"{note['arm']}, {charts.PRIVACY[note['private']]}, seed {note['seed']}: {note['note']}"
        for note in run.manifest["notes"]
    ]


def _cautions(run: Run) -> list[str]:
    """Return what a reader must know before the numbers."""
    seeds, notes = run.scenario.seeds, len(run.manifest["notes"])
    found = weaknesses(run)
    if seeds == 1:
        found.append("One seed: there are no intervals, and no difference in this report can be told from chance.")
    elif seeds == 2:
        found.append("Two seeds: two seeds give no verdict, and so there are no intervals. Take five or more.")
    elif seeds < _FEW_SEEDS:
        found.append(f"Only {seeds} seeds: the intervals are very wide. Take {_FEW_SEEDS} or more before deciding.")
    if run.headline == POOLED and len(run.sites["site"].unique()) > 2:
        found.append(
            "This run is older than the figures inside sites: its figures are pooled over the sites, and so they also "
            "reward a model for telling the sites apart. Run it again to get the others."
        )
    if notes:
        found.append(f"Not everything went by the book: see the {notes} notes at the end.")
    return found


def _arm_group(numbers: Numbers, private: bool) -> dict[str, Any]:
    """Return the arms with or without privacy, for their table: a row for each arm, a cell for each figure."""
    arms = [arm for arm in numbers.arms if numbers.was_run(arm, private)]
    terms = {arm: epsilons(numbers.run.epsilon(arm)) for arm in arms} if private else {}
    same = len(set(terms.values())) == 1
    rows = [
        {
            "arm": arm,
            "key": charts.key(arm, private),
            "cells": [_cell(numbers, private, arm, metric, site) for metric, site in _columns(numbers.run)],
        }
        for arm in arms
    ]
    return {
        "label": charts.PRIVACY[private],
        "terms": terms[arms[0]] if same else "; ".join(f"{arm} {text}" for arm, text in terms.items()),
        "rows": rows,
    }


def _columns(run: Run) -> list[tuple[Metric, str]]:
    """Return the figures of the arms' table: inside sites first, and where it is another the pooled one second."""
    columns = []
    for metric in run.metrics:
        columns.append((metric, run.headline))
        if metric.by_site and run.pooled_differs:
            columns.append((metric, POOLED))
    return columns


def _heading(run: Run, metric: Metric, site: str) -> dict[str, str]:
    place = "" if not metric.by_site else "pooled" if site == POOLED else run.headline_place
    unit = run.manifest["task"]["unit"] if metric.name == "rmse" else ""
    label = f"{metric.label[0].upper()}{metric.label[1:]}"
    return {"label": f"{label} {place}".strip(), "hint": f"{metric.better} is better{f', in {unit}' if unit else ''}"}


def _arms_charts(numbers: Numbers) -> list[str]:
    """Draw the headline inside sites, and where it is another the pooled one below it."""
    run, metric = numbers.run, numbers.metric
    drawn = [charts.arms(numbers.table, metric, run.headline, run.headline_place)]
    if numbers.pooled:
        drawn.append(charts.arms(numbers.table, metric, POOLED, "pooled over the sites"))
    return drawn


def _cell(numbers: Numbers, private: bool, arm: str, metric: Metric, site: str) -> dict[str, Any]:
    mean = numbers.of("mean", private, arm, metric.name, site)
    here = numbers.of("difference", private, arm, metric.name, site, here=True)
    wide = numbers.of("difference", private, arm, metric.name, site)
    better = {"": "", SAME: SAME, metric.better: "better"}
    questions = [(HERE, here)] if numbers.run.same_rows else [(HERE, here), (numbers.run.asked, wide)]
    return {
        "mean": mean.value(),
        "bounds": mean.below(),
        "change": "reference" if arm == "centralized" else here.value(signed=True),
        "answers": [
            {"question": question, "bounds": one.below(signed=True), "verdict": better.get(one.verdict, "worse")}
            for question, one in questions
            if one.below()
        ],
    }


def _curves_chart(run: Run) -> str | None:
    """Draw the headline and the first figure of which less is better, if they were measured."""
    drawn = [run.metrics[0], next(metric for metric in run.metrics if metric.better == "lower")]
    names = [metric.name for metric in drawn]
    if run.rounds.empty or not run.rounds[names].notna().any().any():
        return None
    return charts.curves(run.rounds, drawn)


def _site_row(numbers: Numbers, site: str) -> dict[str, Any]:
    """Return how much a site was tested on, and what it gains by joining."""
    sites = numbers.run.sites
    own = sites[(sites["arm"] == numbers.arms[0]) & ~sites["private"].astype(bool) & (sites["site"] == site)]
    gains = []
    for private in numbers.gain_kinds:
        here = numbers.of("gain", private, "federated", site=site, here=True)
        wide = numbers.of("gain", private, "federated", site=site)
        questions = [(HERE, here)] if numbers.run.same_rows else [(HERE, here), (numbers.run.asked, wide)]
        gains.append(
            {
                "value": here.value(signed=True),
                "bounds": here.below(signed=True),
                "answers": [
                    {"question": question, "bounds": one.below(signed=True), "verdict": _GAINS[one.verdict]}
                    for question, one in questions
                    if one.below()
                ],
            }
        )
    return {
        "site": site,
        "rows": _span(own["rows"]),
        "about": _about_rows(numbers.run, own),
        "known": f"{int(own[numbers.metric.name].notna().sum())} of {len(own)}",
        "gains": gains,
    }


def _treatment(numbers: Numbers, arm: str, private: bool) -> dict[str, Any]:
    """Return how an arm treats groups, for a table: a heading, and a block for each attribute."""
    return {
        "label": f"{arm}, {charts.PRIVACY[private]}",
        "key": charts.key(arm, private),
        "blocks": blocks(numbers.run, arm, private, numbers.shown),
    }


def _treatment_chart(numbers: Numbers, arm: str) -> str:
    harm = numbers.run.harm
    harm = harm[harm["arm"] == arm]
    labels = [
        (block.attribute, line.group, f"{block.attribute} {line.group}{' (few)' if line.cells[0].few else ''}")
        for block in blocks(numbers.run, arm, False, numbers.shown)
        for line in block.lines
    ]
    return group_charts.groups(harm, RATES[numbers.run.kind][0], labels)


def _about_rows(run: Run, own: pd.DataFrame) -> list[str]:
    """Return what a site's test rows are like, under the headings of ``_ABOUT``."""
    if run.kind == "binary":
        return [_span(own["positives"]), _span(own["rows"] - own["positives"])]
    if run.kind == "classes":
        return [_span(own["most_common"])]
    means = own["mean"].astype(float)
    return ["–" if means.isna().all() else f"{means.mean():.3g}"]


def _span(counts: pd.Series) -> str:
    least, most = int(counts.min()), int(counts.max())
    return f"{most}" if least == most else f"{least}–{most}"


def _sites_chart(numbers: Numbers, rows: list[dict[str, Any]]) -> str:
    labels = {row["site"]: f"{row['site']} ({row['rows']} test rows)" for row in rows}
    gains = {
        (private, row["site"]): f"{gain['value']} ({gain['bounds']})" if gain["bounds"] else gain["value"]
        for row in rows
        for private, gain in zip(numbers.gain_kinds, row["gains"], strict=True)
    }
    return charts.sites(numbers.table, numbers.metric, labels, gains, HERE)
