"""Write the report of a run: one HTML file that needs nothing else.

It is for the people who decide by the figures and for those who answer for the data. Every sentence is made from the
files of the run directory.
"""

from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import tomli_w

from fedsim.data.task import SITE
from fedsim.figures import figure
from fedsim.outcomes import outcome_of
from fedsim.outcomes.metric import Metric
from fedsim.privacy.units import unit_of
from fedsim.report import charts, group_charts
from fedsim.report.base_findings import base_answer, base_figures
from fedsim.report.base_findings import cautions as base_cautions
from fedsim.report.deciding import officer
from fedsim.report.deciding.first_screen import sentence, tiles
from fedsim.report.explanations.section import section_of as features_of
from fedsim.report.failures import failures
from fedsim.report.findings import Numbers, answers, answers_by_question, rounds_kept, why_pooled
from fedsim.report.group_findings import blocks
from fedsim.report.leaving.shown import shown
from fedsim.report.pages import PAGES
from fedsim.report.quality import coefficients_of, quality_of
from fedsim.report.references.section import group_of, section_of
from fedsim.report.several import files
from fedsim.report.statement import epsilons, grouped, statement, weaknesses
from fedsim.results.comparison import HERE, SAME
from fedsim.results.evaluation import POOLED
from fedsim.results.run_directory import Run, write_bytes

_FEW_SEEDS = 5
_MOST_NOTES = 60
_GAINS = {"": "", SAME: SAME, "higher": "gains", "lower": "loses"}


FILE = "report.html"


def write(run: Run) -> Path:
    """Write ``report.html`` into the run directory and return its path."""
    path = run.path / FILE
    write_bytes(path, _render(run).encode())
    return path


def write_files(run: Run, folder: Path) -> list[Path]:
    """Write the figures as PNG and SVG and the tables as CSV into a folder; return their paths."""
    drawn = []
    for value in _values(run).values():
        several = value if isinstance(value, list) else [value]
        drawn += [chart for chart in several if isinstance(chart, charts.Inline)]
    return files.write(run, drawn, folder)


def _render(run: Run) -> str:
    return PAGES.get_template("report.html.j2").render(_values(run))


def _values(run: Run) -> dict[str, Any]:
    """Return what the template asks for."""
    numbers = Numbers(run)
    notes = _notes(run)
    sites = [_site_row(numbers, site) for site in numbers.shown]
    quality = quality_of(run, numbers.arms)
    return dict(
        run=run,
        task=run.manifest["task"],
        data=run.manifest["data"],
        numbers=numbers,
        started=f"{datetime.fromisoformat(run.manifest['started']):%d %B %Y, %H:%M UTC}",
        lead=sentence(numbers),
        tiles=tiles(numbers),
        may_be_said=officer.may_be_said(run),
        leaves=officer.models(run),
        findings=answers(numbers),
        **shown(run),
        cautions=_cautions(run),
        groups=_groups(numbers),
        columns=[_heading(run, metric, site) for metric, site in _columns(run)],
        arms_charts=_arms_charts(numbers),
        curves_chart=_curves_chart(run),
        sites_chart=_sites_chart(numbers, sites),
        sites=sites,
        kind=outcome_of(run.kind),
        about_rows=outcome_of(run.kind).about_rows,
        rates=outcome_of(run.kind).rates,
        references=section_of(run, numbers.arms),
        explanations=features_of(run),
        quality=quality,
        quality_chart=quality.chart if quality else None,
        coefficients=coefficients_of(run),
        protected_unit=unit_of(run.ledger["unit"]).promise.protected if numbers.private else "",
        treatment=_treatments(numbers),
        treatment_chart=_treatment_chart(numbers, numbers.arms[0]),
        protected=[name for name in dict.fromkeys(run.groups["attribute"]) if name != SITE],
        statement=grouped(statement(run)),
        rounds_kept=rounds_kept(run),
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
    """Return the warnings that a reader needs before the numbers."""
    seeds = run.scenario.seeds
    notes = len(run.manifest["notes"])
    cautions = failures(run) + weaknesses(run) + base_cautions(run)
    if seeds == 1:
        cautions.append("One seed: there are no intervals, and no difference in this report can be told from chance.")
    elif seeds == 2:
        cautions.append("Two seeds: two seeds give no verdict, and so there are no intervals. Take five or more.")
    elif seeds < _FEW_SEEDS:
        cautions.append(f"Only {seeds} seeds: the intervals are very wide. Take {_FEW_SEEDS} or more before deciding.")
    if run.headline == POOLED and len(run.sites["site"].unique()) > 2:
        again = " Run it again to get the others." if run.from_before_inside else ""
        cautions.append(why_pooled(run) + again)
    if notes:
        cautions.append(f"Not everything went by the book: see the {notes} notes at the end.")
    return cautions


def _groups(numbers: Numbers) -> list[dict[str, Any]]:
    """Return all rows of the arms' table: of the arms, the base rate, and the references."""
    run = numbers.run
    arms = [_arm_group(numbers, private) for private in numbers.kinds]
    return arms + _base_group(run) + group_of(run, _columns(run))


def _arm_group(numbers: Numbers, private: bool) -> dict[str, Any]:
    """Return the arms with or without privacy, for their table: a row for each arm, a cell for each figure."""
    arms = [arm for arm in numbers.arms if numbers.was_run(arm, private)]
    rows = []
    for arm in arms:
        cells = [_cell(numbers, private, arm, metric, site) for metric, site in _columns(numbers.run)]
        rows.append({"arm": arm, "key": charts.key(arm, private), "cells": cells})
    return {"label": charts.PRIVACY[private], "terms": _terms(numbers.run, arms) if private else "", "rows": rows}


def _base_group(run: Run) -> list[dict[str, Any]]:
    """Return the row of the base rate for the arms' table; nothing in runs that have none."""
    answer = base_answer(run)
    if answer is None:
        return []
    cells = []
    for metric, site in _columns(run):
        mean = figure(base_figures(run, site)[metric.name])
        cells.append({"mean": mean, "bounds": "", "change": "", "answers": []})
    return [{"label": "without a model", "terms": answer, "rows": [{"arm": "base rate", "key": "", "cells": cells}]}]


def _terms(run: Run, arms: list[str]) -> str:
    """Return the epsilon of all private arms, or of each where they differ."""
    terms = {arm: epsilons(run.epsilon(arm)) for arm in arms}
    if len(set(terms.values())) == 1:
        return terms[arms[0]]
    return "; ".join(f"{arm} {text}" for arm, text in terms.items())


def _columns(run: Run) -> list[tuple[Metric, str]]:
    """Return the figures of the arms' table: inside sites first, and where it is another the pooled one second."""
    columns = []
    for metric in run.metrics:
        columns.append((metric, run.headline))
        if metric.by_site and run.pooled_differs:
            columns.append((metric, POOLED))
    return columns


def _heading(run: Run, metric: Metric, site: str) -> dict[str, str]:
    label = f"{metric.label[0].upper()}{metric.label[1:]}"
    if metric.by_site:
        label += " pooled" if site == POOLED else f" {run.headline_place}"

    hint = f"{metric.better} is better"
    unit = run.manifest["task"]["unit"]
    if metric.name == "rmse" and unit:
        hint += f", in {unit}"
    return {"label": label, "hint": hint}


def _arms_charts(numbers: Numbers) -> list[str]:
    """Draw the headline inside sites, and where it is another the pooled one below it."""
    run, metric = numbers.run, numbers.metric
    base = base_figures(run, run.headline)[metric.name]
    drawn = [charts.arms(numbers.table, metric, run.headline, run.headline_place, base)]
    if numbers.pooled:
        base = base_figures(run, POOLED)[metric.name]
        drawn.append(charts.arms(numbers.table, metric, POOLED, "pooled over the sites", base))
    return drawn


def _cell(numbers: Numbers, private: bool, arm: str, metric: Metric, site: str) -> dict[str, Any]:
    mean = numbers.of("mean", private, arm, metric.name, site)
    here = numbers.of("difference", private, arm, metric.name, site, here=True)
    wide = numbers.of("difference", private, arm, metric.name, site)
    worse = "lower" if metric.better == "higher" else "higher"
    return {
        "mean": mean.value(),
        "bounds": mean.below(),
        "change": "reference" if arm == "centralized" else here.value(signed=True),
        "answers": answers_by_question(
            numbers.run, here, wide, {"": "", SAME: SAME, metric.better: "better", worse: "worse"}
        ),
    }


def _curves_chart(run: Run) -> str | None:
    """Draw the headline and the first figure of which less is better, where they are defined."""
    drawn = [run.metrics[0], next(metric for metric in run.metrics if metric.better == "lower")]
    if run.rounds.empty:
        return None
    defined = [metric for metric in drawn if run.rounds[metric.name].notna().any()]
    return charts.curves(run.rounds, defined) if defined else None


def _site_row(numbers: Numbers, site: str) -> dict[str, Any]:
    """Return how much a site was tested on, and what it gains by joining."""
    sites = numbers.run.sites
    arm = numbers.arms[0]
    of_one_arm = (sites["arm"] == arm) & (sites["private"].astype(bool) == numbers.kinds_of(arm)[0])
    tested = sites[of_one_arm & (sites["site"] == site)]
    gains = []
    for private in numbers.gain_kinds:
        here = numbers.of("gain", private, "federated", site=site, here=True)
        wide = numbers.of("gain", private, "federated", site=site)
        gains.append(
            {
                "value": here.value(signed=True),
                "bounds": here.below(signed=True),
                "answers": answers_by_question(numbers.run, here, wide, _GAINS),
            }
        )
    return {
        "site": site,
        "rows": _span(tested["rows"]),
        "about": _about_rows(numbers.run, tested),
        "known": f"{int(tested[numbers.metric.name].notna().sum())} of {len(tested)}",
        "gains": gains,
    }


def _treatments(numbers: Numbers) -> list[dict[str, Any]]:
    """Return the tables of groups: of each arm with privacy first, then without."""
    tables = []
    for arm in numbers.arms:
        for private in reversed(numbers.kinds):
            if numbers.was_run(arm, private):
                tables.append(_treatment(numbers, arm, private))
    return tables


def _treatment(numbers: Numbers, arm: str, private: bool) -> dict[str, Any]:
    """Return how an arm treats groups, for a table: a heading, and a block for each attribute."""
    return {
        "label": f"{arm}, {charts.PRIVACY[private]}",
        "key": charts.key(arm, private),
        "blocks": blocks(numbers.run, arm, private, numbers.shown),
    }


def _treatment_chart(numbers: Numbers, arm: str) -> str:
    labels = [
        (block.attribute, line.group, f"{block.attribute} {line.group}{' (few)' if line.cells[0].few else ''}")
        for block in blocks(numbers.run, arm, numbers.kinds_of(arm)[0], numbers.shown)
        for line in block.lines
    ]
    harm = numbers.run.harm
    drawn = harm[(harm["arm"] == arm) & harm["group"].isin([group for _, group, _ in labels])]
    return group_charts.groups(drawn, outcome_of(numbers.run.kind).rates[0], labels)


def _about_rows(run: Run, tested: pd.DataFrame) -> list[str]:
    """Return the description of a site's test rows, under the headings of ``Outcome.about_rows``."""
    if run.kind == "binary":
        return [_span(tested["positives"]), _span(tested["rows"] - tested["positives"])]
    cells = []
    for column in outcome_of(run.kind).summary_columns:
        if pd.api.types.is_integer_dtype(tested[column]):
            cells.append(_span(tested[column]))
            continue
        means = tested[column].astype(float)
        cells.append("–" if means.isna().all() else f"{means.mean():.3g}")
    return cells


def _span(counts: pd.Series) -> str:
    least = int(counts.min())
    most = int(counts.max())
    return f"{most}" if least == most else f"{least}–{most}"


def _sites_chart(numbers: Numbers, rows: list[dict[str, Any]]) -> str:
    labels = {row["site"]: f"{row['site']} ({row['rows']} test rows)" for row in rows}

    gains = {}
    for row in rows:
        for private, gain in zip(numbers.gain_kinds, row["gains"], strict=True):
            bounds = f" ({gain['bounds']})" if gain["bounds"] else ""
            gains[private, row["site"]] = f"{gain['value']}{bounds}"
    return charts.sites(numbers.table, numbers.metric, labels, gains, HERE)
