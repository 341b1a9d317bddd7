"""The document that ``fedsim run --json`` and ``fedsim show RUN --json`` print."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedsim.results.run_directory import Run

_MEAN = ("mean", "low", "high")
_CHANGES = (
    *("difference", "difference_low", "difference_high", "difference_here_low", "difference_here_high"),
    *("gain", "gain_low", "gain_high", "gain_here_low", "gain_here_high"),
)
_OVER_BASE = (
    *("base", "difference", "difference_low", "difference_high"),
    *("difference_here_low", "difference_here_high"),
)
_VERDICTS = ("verdict", "here_verdict", "gain_verdict", "gain_here_verdict")
_KEYS = ["arm", "private", "metric"]


def as_document(finished: "Run") -> dict[str, Any]:
    """Return a finished run as one JSON object: its arms with their figures, over all sites and at each."""
    from fedsim.report.base_findings import base_answer, cautions  # it needs what is heavy

    compared = finished.comparison
    first = compared[compared["site"] == finished.headline]
    pooled_rows = compared[compared["site"] == finished.POOLED]
    site_rows = compared[~compared["site"].isin(finished.TOGETHER)]

    pooled = {_key(row): row for row in pooled_rows.to_dict("records")}
    at_sites: dict[tuple[Any, ...], dict[str, float | None]] = {}
    for row in site_rows[[*_KEYS, "site", "mean"]].to_dict("records"):
        at_sites.setdefault(_key(row), {})[row["site"]] = _number(row["mean"])

    over_base: dict[tuple[Any, ...], Mapping[Any, Any]] = {}
    if finished.over_base is not None:
        for row in finished.over_base.to_dict("records"):
            over_base[*_key(row), row["site"]] = row

    arms = []
    for row in first.to_dict("records"):
        arms.append(
            {
                "arm": row["arm"],
                "private": row["private"],
                "metric": row["metric"],
                "over": row["site"],
                **_figures(row),
                "pooled": _figures(pooled[_key(row)]),
                "sites": at_sites[_key(row)],
                "over_base": _over_base(over_base.get((*_key(row), row["site"]))),
            }
        )
    return {
        "run_dir": str(finished.path),
        "scenario": finished.scenario.name,
        "kind": finished.kind,
        "data": finished.manifest["data"],
        "seeds": finished.scenario.all_seeds,
        "arms": arms,
        "base_answer": base_answer(finished),
        **_references(finished),
        "threshold": finished.measured.threshold,
        "cautions": cautions(finished),
        "failed": finished.failed,
        "intervals": {
            "low, high": finished.asked,
            "here_low, here_high": finished.HERE,
        },
        "delta": finished.ledger["delta"],
        "epsilon": next(filter(None, map(finished.epsilon, finished.scenario.arms)), {}),
    }


def _references(finished: "Run") -> dict[str, Any]:
    """Return the models of scikit-learn beside the arms, and the arms' differences to them; nothing without any."""
    if finished.references.empty:
        return {}
    over: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in finished.over_references.to_dict("records"):
        place = (row["reference"], row["learned_from"], row["metric"], row["site"])
        arm = {"arm": row["arm"], "private": row["private"]}
        over.setdefault(place, []).append({**arm, **(_over_base(row) or {})})

    found = []
    for row in finished.references.to_dict("records"):
        place = {name: row[name] for name in ("reference", "learned_from", "metric", "site")}
        figures = {name: _number(row[name]) for name in _MEAN}
        found.append({**place, **figures, "why": row["why"] or None, "arms": over.get(tuple(place.values()), [])})
    return {"references": found, "references_are_private": False}


def _key(row: Mapping[Any, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in _KEYS)


def _figures(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the figures of a row of the comparison, with their intervals and verdicts."""
    numbers = {name: _number(row[name]) for name in (*_MEAN, *_CHANGES)}
    verdicts = {name: _word(row[name]) for name in _VERDICTS}
    return {**numbers, **verdicts, "why": row["why"] or None}


def _over_base(row: Mapping[Any, Any] | None) -> dict[str, Any] | None:
    """Return an arm's metric beside the base rate; None in runs that have no base rate."""
    if row is None:
        return None
    numbers = {name: _number(row[name]) for name in _OVER_BASE}
    verdicts = {name: _word(row[name]) for name in ("verdict", "here_verdict")}
    return {**numbers, **verdicts, "why": row["difference_why"] or None}


def _word(value: object) -> str | None:
    return value if isinstance(value, str) else None  # pandas makes a NaN of a missing word


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
