"""Compare runs on one page: what their scenarios have different, and their figures side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tomli_w import dumps

from fedsim import figures
from fedsim.mistakes import Mistake
from fedsim.privacy.units import unit_of
from fedsim.report import frontier
from fedsim.report.charts import PRIVACY
from fedsim.report.findings import Numbers
from fedsim.report.pages import PAGES
from fedsim.results.run_directory import Run, write_bytes

FILE = "comparison.html"
_MOST_LINES = 40
_FOLDED = ("title", "about", "name")  # of a scenario, in which runs may differ without a difference in what ran


def write(runs: Sequence[Run], path: Path) -> Path:
    """Write the page and return its path.

    Raises:
        Mistake: The runs are of different kinds of outcome, whose figures can't stand side by side; or one comes twice.
    """
    _check(runs)
    numbers = [Numbers(run) for run in runs]
    names = names_of(runs)
    rows = figures_of(numbers, names)
    label = f"{numbers[0].metric.label} {runs[0].headline_place}"
    table = frontier_of(rows)
    several = table["epsilon"].nunique() > 1
    text = PAGES.get_template("comparison.html.j2").render(
        version=runs[0].manifest["versions"]["fedsim-flower"],
        names=names,
        runs=list(runs),
        lead=_lead(numbers, rows, label),
        cautions=_cautions(runs),
        label=label,
        rows=rows,
        differences=differences(runs)[:_MOST_LINES],
        frontier=frontier.draw(table, label) if several else "",
        protected=[unit_of(run.ledger["unit"]).promise.protected for run in runs],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.encode())
    return path


def names_of(runs: Sequence[Run]) -> list[str]:
    """Return the name of each run: its folder's, or its path where two folders are called alike."""
    short = [run.path.resolve().name for run in runs]
    return [name if short.count(name) == 1 else str(run.path) for name, run in zip(short, runs, strict=True)]


def figures_of(numbers: Sequence[Numbers], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each run, kind and arm: the mean with its interval, the gain and the epsilon."""
    rows = []
    for of_run, name in zip(numbers, names, strict=True):
        for private in of_run.kinds:
            for arm in of_run.arms:
                if not of_run.was_run(arm, private):
                    continue
                mean = of_run.of("mean", private, arm)
                gain = of_run.of("gain", private, arm)
                spent = of_run.run.epsilon(arm) if private else {}
                epsilon = max(spent.values()) if spent else None
                rows.append({
                    "run": name, "arm": arm, "private": private, "privacy": PRIVACY[private],
                    "mean": mean.mean, "low": mean.low, "high": mean.high,
                    "shown": mean.value(), "bounds": mean.interval(),
                    "gain": gain.value(signed=True) if arm == "federated" else "",
                    "gain_bounds": gain.interval(signed=True) if arm == "federated" else "",
                    "gain_verdict": gain.verdict if arm == "federated" else "",
                    "epsilon": epsilon, "epsilon_shown": figures.epsilon(epsilon) if epsilon is not None else "none",
                })  # fmt: skip
    return rows


def frontier_of(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return the frame that ``frontier.draw`` takes: of runs with the same arm and epsilon, the first."""
    frame = pd.DataFrame(rows)[["arm", "epsilon", "mean", "low", "high"]]
    frame["epsilon"] = [None if pd.isna(value) else float(figures.epsilon(value)) for value in frame["epsilon"]]
    return frame.drop_duplicates(["arm", "epsilon"])


def differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return (key, its value in each run) of what the scenarios have different."""
    flat = [_flat(run.scenario.values()) for run in runs]
    keys = list(dict.fromkeys(key for values in flat for key in values))
    found = []
    for key in keys:
        values = [values.get(key, figures.UNKNOWN) for values in flat]
        if len(set(values)) > 1 and key not in _FOLDED:
            found.append((key, values))
    return found


def _flat(values: dict[str, Any], start: str = "") -> dict[str, str]:
    found = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{start}{key}.")
        else:
            found[f"{start}{key}"] = dumps({"x": value}).partition(" = ")[2].strip()
    return found


def _check(runs: Sequence[Run]) -> None:
    places = [run.path.resolve() for run in runs]
    if len(set(places)) < len(places):
        raise Mistake("report: expected different run directories, got one of them twice")
    kinds = {run.kind for run in runs}
    if len(kinds) > 1:
        raise Mistake(f"report: expected runs of one kind of outcome, got {' and '.join(sorted(kinds))}")
    headlines = {run.headline_place for run in runs}
    if len(headlines) > 1:
        raise Mistake(f"report: expected runs whose figures are alike, got some {' and some '.join(sorted(headlines))}")


def _lead(numbers: Sequence[Numbers], rows: Sequence[dict[str, Any]], label: str) -> str:
    """Say from where to where the federated figures reach, which is no verdict."""
    arm = "federated" if any(row["arm"] == "federated" for row in rows) else rows[0]["arm"]
    own = [row for row in rows if row["arm"] == arm and not pd.isna(row["mean"])]
    if not own:
        return f"{len(numbers)} runs; none has a figure of its {arm} arm."
    best = max(own, key=lambda row: row["mean"]) if numbers[0].metric.better == "higher" else min(
        own, key=lambda row: row["mean"])  # fmt: skip
    within = all(row["low"] <= best["mean"] <= row["high"] for row in own)
    where = f"{best['shown']} in {best['run']}, {best['privacy']}"
    told = ""
    if within and len(own) > 1:
        told = "; the intervals of all the others hold it"
    return f"Of {len(numbers)} runs, the best {arm} {label} is {where}{told}."


def _cautions(runs: Sequence[Run]) -> list[str]:
    said = ["Each interval is of one run alone. Differences between runs are not paired here and have no verdict: for "
            "one, compare arms within a run, or strategies with fedsim compare."]  # fmt: skip
    tasks = {run.manifest["task"]["title"] for run in runs}
    if len(tasks) > 1:
        said.insert(0, f"The runs are of different tasks: {', '.join(sorted(tasks))}.")
    if len({tuple(run.manifest["seeds"]) for run in runs}) > 1:
        said.append("The runs have different seeds, and so different splits.")
    units = {run.ledger["unit"] for run in runs if run.ledger["trainings"]}
    if len(units) > 1:
        said.append(f"Their epsilons protect different units ({', '.join(sorted(units))}) and can't be compared.")
    deltas = {run.ledger["delta"] for run in runs if run.ledger["trainings"]}
    if len(deltas) > 1:
        said.append("Their epsilons are at different deltas.")
    said.append("Choosing among these runs by their figures is not covered by any epsilon here.")
    return said
