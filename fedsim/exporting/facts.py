"""Gather what a model card says of a model, as values for JSON: what for, data, figures, groups, privacy and limits."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from fedsim.data.scale import Scale
from fedsim.data.task import SITE
from fedsim.exporting.choice import Chosen
from fedsim.exporting.in_torch import handed_on
from fedsim.exporting.inputs import Inputs
from fedsim.outcomes import outcome_of
from fedsim.outcomes.kinds.number import RMSE
from fedsim.privacy.promise import random_of
from fedsim.privacy.units import unit_of
from fedsim.report.base_findings import base_figures, cautions
from fedsim.report.statement import statement
from fedsim.results.estimate import Estimate
from fedsim.results.evaluation import POOLED
from fedsim.scenario.unit_facts import NO_UNIT

_LEARNED = (
    "Preprocessing: the means and spreads by which the model standardizes its inputs were learned from training rows "
    "without noise, and they go along with it."
)
_FITTED = (
    "Preprocessing: the ranges and categories of the inputs were taken from the rows of this run, and they go along "
    "with the model: the least and the greatest value of a column are those of single rows."
)


def facts_of(chosen: Chosen, inputs: Inputs, classes: list[str], difference: float) -> dict[str, Any]:
    """Return the facts of a model.

    Args:
        chosen: The model.
        inputs: Its inputs.
        classes: The names of its classes; empty where it has none.
        difference: The largest difference between PyTorch and onnxruntime, as ``checked`` measured it.
    """
    run = chosen.run
    task = chosen.trial.task
    model = handed_on(chosen)
    scale = chosen.scale
    return {
        "title": task.title,
        "outcome": {
            "kind": task.kind,
            "meaning": task.outcome,
            "classes": classes,
            "unit": task.range.unit if task.range else "",
            "low": task.range.low if task.range else None,
            "high": task.range.high if task.range else None,
        },
        "model": {
            "layers": [type(layer).__name__ for layer in model.modules() if not list(layer.children())],
            "parameters": sum(value.numel() for value in model.parameters()),
            "scale": scale.as_json() if scale else None,
            **_adapted(chosen),
        },
        "training": {
            "arm": chosen.job.arm,
            "private": chosen.job.private,
            "seed": chosen.job.seed,
            "site": chosen.site or None,
            "rounds": run.scenario.training.rounds,
            "strategy": run.scenario.strategy.label if chosen.job.arm == "federated" else None,
        },
        "run": {
            "name": run.path.resolve().name,
            "scenario": run.scenario.title,
            "started": run.manifest["started"],
            "versions": dict(run.manifest["versions"]),
            "files": dict(run.manifest["files"]),
        },
        "data": {
            "source": task.source,
            "licence": task.licence,
            "sites": run.site_count,
            "rows": run.manifest["data"]["rows_used"] if run.manifest["data"] else None,
        },
        "inputs": inputs.as_json(),
        "agreement": {"largest_difference": difference, "unit": "of half of the range, or a probability"},
        "figures": _figures(chosen),
        "groups": _groups(chosen),
        "privacy": _privacy(chosen, scale),
        "limits": list(_limits(chosen, inputs)),
    }


def _adapted(chosen: Chosen) -> dict[str, Any]:
    """Return what of the model was trained, and from which weights, where not all of it was; else nothing."""
    adapt = chosen.trial.scenario.training.adapt
    if adapt is None:
        return {}
    trained = chosen.parameters.values()
    return {
        "adapted": {
            "method": adapt.method,
            "rank": adapt.rank,
            "modules": list(adapt.modules or ()),
            "also": list(adapt.also or ()),
            "trained": sum(value.numel() for value in trained),
            "base": chosen.run.manifest.get("base_weights"),
        }
    }


def _figures(chosen: Chosen) -> dict[str, Any]:
    """Return the test metrics of trainings like this one: means over the seeds with their intervals."""
    run = chosen.run
    places = [chosen.site] if chosen.site else [run.headline]
    if not chosen.site and run.pooled_differs:
        places.append(POOLED)
    table = run.comparison
    own = table[(table["arm"] == chosen.job.arm) & (table["private"] == chosen.job.private)]
    rows = []
    for place in places:
        base = {} if chosen.site else base_figures(run, place)
        for metric in run.metrics:
            row = own[(own["site"] == place) & (own["metric"] == metric.name)]
            if row.empty or (place == POOLED and place != run.headline and not metric.by_site):
                continue
            estimate = Estimate(*row.iloc[0][["mean", "low", "high", "why"]])
            rows.append({
                "place": _place_in_words(chosen, place),
                "metric": metric.label,
                "unit": run.manifest["task"]["unit"] if metric is RMSE else "",
                "mean": _number(estimate.mean),
                "low": _number(estimate.low),
                "high": _number(estimate.high),
                "text": estimate.value(),
                "interval": estimate.bounds() or estimate.why,
                "without_a_model": _number(base.get(metric.name, math.nan)),
            })  # fmt: skip
    return {"seeds": len(run.scenario.all_seeds), "interval": f"95 %, {run.asked}", "rows": rows}


def _place_in_words(chosen: Chosen, place: str) -> str:
    if chosen.site:
        return f"at {chosen.site}"
    return "pooled over the sites" if place == POOLED else chosen.run.headline_place


def _groups(chosen: Chosen) -> list[dict[str, Any]]:
    """Return how groups of test rows are treated by trainings like this one; empty if no attribute was measured."""
    run = chosen.run
    if run.groups.empty or chosen.site:
        return []
    harm = run.harm
    own = harm[(harm["arm"] == chosen.job.arm) & (harm["private"] == chosen.job.private) & (harm["attribute"] != SITE)]
    labels = {rate.name: rate.label for rate in outcome_of(run.kind).rates}
    rows = []
    for row in own.to_dict("records"):
        rate = Estimate(row["mean"], row["low"], row["high"], row["why"])
        change = Estimate(row["difference"], row["difference_low"], row["difference_high"], row["difference_why"])
        rows.append({
            "attribute": row["attribute"],
            "group": row["group"],
            "rate": labels[row["metric"]],
            "few": bool(row["few"]),
            "mean": _number(rate.mean),
            "text": rate.value(),
            "interval": rate.bounds() or rate.why,
            "difference": _number(change.mean),
            "difference_text": change.value(signed=True),
            "difference_interval": change.bounds(signed=True) or change.why,
        })  # fmt: skip
    return rows


def _number(value: float) -> float | None:
    return None if pd.isna(value) else float(value)


def _privacy(chosen: Chosen, scale: Scale | None) -> dict[str, Any]:
    """Return what is promised: the statement of what ran, or that there is no promise."""
    run = chosen.run
    if chosen.job.private:
        pairs = statement(run, chosen.job.arm)
        own = [each for each in run.ledger["trainings"] if _is_of(chosen, each)]
        spent = {site: epsilon for training in own for site, epsilon in training["epsilon"].items()}
        return {
            "guarantee": True,
            "unit": run.ledger["unit"],
            "delta": run.ledger["delta"],
            "epsilon": spent,
            "random": random_of(own),
            "statement": [list(pair) for pair in pairs],
        }

    pairs = list(unit_of(NO_UNIT).done([]))
    if scale is not None and run.scenario.data.scale == "learned":
        pairs.append(("Not covered", _LEARNED))
    if run.ledger["ranges_fitted"]:
        pairs.append(("Not covered", _FITTED))
    return {
        "guarantee": False,
        "unit": NO_UNIT,
        "delta": None,
        "epsilon": {},
        "random": None,
        "statement": [list(pair) for pair in pairs],
    }


def _is_of(chosen: Chosen, training: Mapping[str, Any]) -> bool:
    job = chosen.job
    return (training["arm"], training["private"], training["seed"]) == (job.arm, job.private, job.seed)


def _limits(chosen: Chosen, inputs: Inputs) -> Iterator[str]:
    """State what the model and its figures are not good for, a sentence each."""
    run = chosen.run
    yield (
        "The figures are of trainings like this one, under each seed, and not of this very file. They are from rows of "
        "the same sites, and say nothing of rows of another kind or of a later time."
    )
    if len(run.scenario.all_seeds) < 3:
        yield "Fewer than three seeds were run: the figures have no interval, and chance alone may explain them."
    if chosen.personal and not chosen.site:
        yield (
            f"{len(chosen.personal)} of {run.site_count} sites predict by models of their own in this training, and "
            "the figures are of those. This is the model that all sites share, which may be worse."
        )
    if chosen.site:
        yield f"This model belongs to {chosen.site} and was made for its rows; the other sites have others."
    if inputs.kind == "table":
        yield (
            "A number outside its range counts as the end of the range that is nearer. fedsim predict refuses a "
            "category that is not listed; plain onnxruntime takes it for none of the listed ones."
        )
    if any(column.is_date for column in inputs.columns):
        yield "ONNX has no dates: the model itself takes days since the date given here. fedsim predict reads dates."
    if inputs.kind == "encoded":
        yield "Preprocessing is not inside: the model takes its inputs encoded, as the training did."
    yield from cautions(run)
    for note in run.manifest["notes"]:
        if _is_of(chosen, note):
            yield str(note["note"])
