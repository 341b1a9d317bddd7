"""The pages: what a request gets to see, as HTML. Everything that comes from files is escaped by the templates."""

import math
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import quote

import jinja2
import pandas as pd
import tomli_w

from fedsim import figures
from fedsim.experiments import journal
from fedsim.mistakes import Mistake
from fedsim.outcomes import is_metric, metric_named
from fedsim.report.charts import PRIVACY
from fedsim.report.findings import Numbers, findings
from fedsim.report.pages import PAGES as REPORT
from fedsim.results.run_directory import Run, load
from fedsim.results.seal import NAME as SEAL
from fedsim.ui import drawn, facts, folders

SECONDS_TO_READ = 3.0
"""How long the list waits for runs that were not read before."""

MOST_COMPARED = 8
_MOST_KEPT = 8  # runs that are kept in memory, whole
_MOST_LINES = 60
_NOT_COMPARED = ("title", "about", "name")
_ORDERS = {
    "newest": "newest first",
    "oldest": "oldest first",
    "title": "title",
    "figure": "figure, largest first",
    "epsilon": "epsilon, smallest first",
}

PAGES = jinja2.Environment(
    loader=jinja2.ChoiceLoader([jinja2.PackageLoader("fedsim.ui"), REPORT.loader or jinja2.DictLoader({})]),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
PAGES.globals["version"] = version("fedsim-flower")
PAGES.globals["drawn"] = drawn
PAGES.filters["in_url"] = lambda text: quote(text, safe="/")


class Views:
    """Makes the pages of a folder of runs.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known = facts.Known()
        self._runs: dict[str, tuple[tuple[Any, ...], Run]] = {}
        self._lock = Lock()

    def folder(self, name: str) -> folders.Folder | None:
        """Return a folder by its name; None if there is none."""
        return folders.found(self.root).get(name)

    def listed(self, text: str, state: str, order: str) -> str:
        """Return the list.

        Args:
            text: Words that a folder has to have.
            state: The state that it has to be in; empty for any.
            order: A key of _ORDERS; another one is the first.
        """
        found = folders.found(self.root)
        everything = self._known.all(found.values(), SECONDS_TO_READ)
        shown = [one for one in everything if all(word in one.words for word in text.casefold().split())]
        if state:
            shown = [one for one in shown if one.state == state]
        order = order if order in _ORDERS else "newest"
        shown = facts.by(shown, order)
        values = [_ends(one) for one in shown]
        counts = {name: sum(one.state == name for one in everything) for name in facts.STATES}
        return _page(
            "list.html.j2",
            root=os.fspath(self.root),
            rows=list(zip(shown, _bars(shown, values), strict=True)),
            total=len(everything),
            unread=sum(not one.state for one in everything),
            is_full=len(everything) == folders.MOST_FOLDERS,
            counts={name: count for name, count in counts.items() if count},
            text=text,
            state=state,
            order=order,
            orders=_ORDERS,
        )

    def shown(self, folder: folders.Folder) -> str:
        """Return the page of a folder."""
        about = self._known.of(folder)
        if about.state in ("under way", "interrupted") or (about.state == "failed" and about.figure is None):
            return self._followed(folder, about)
        if folder.kind == "run" and about.state != "unreadable":
            try:
                return self._finished(folder, about)
            except Mistake as mistake:
                about = facts.Facts(folder, "unreadable", about.title, about.when, problem=str(mistake))
        return _page("folder.html.j2", facts=about, folder=folder)

    def _finished(self, folder: folders.Folder, about: facts.Facts) -> str:
        run = self._run(folder)
        numbers = Numbers(run)
        metric = numbers.metric
        curves: dict[tuple[str, bool, int], dict[int, float]] = {}
        if not run.rounds.empty:
            for row in run.rounds.to_dict("records"):
                if pd.notna(row[metric.name]):
                    key = (row["arm"], bool(row["private"]), row["seed"])
                    curves.setdefault(key, {})[row["round"]] = float(row[metric.name])
        return _page(
            "run.html.j2",
            facts=about,
            folder=folder,
            run=run,
            findings=findings(run),
            label=f"{metric.label} {run.headline_place}",
            rows=_rows([numbers], [folder.name]),
            metric=metric.label,
            panels=drawn.panels(curves, run.scenario.training.rounds, metric.label),
            failed=run.failed,
            is_sealed=(folder.path / SEAL).is_file(),
            scenario=tomli_w.dumps(run.scenario.shown(), indent=2),
        )

    def _followed(self, folder: folders.Folder, about: facts.Facts) -> str:
        noted = journal.read(folder.path)
        trainings: list[dict[str, Any]] = []
        curves = {}
        for name, training in noted.trainings.items() if noted else ():
            names = journal.names([name])
            if noted is None or not names:
                continue
            arm, private, seed = names[0]
            curves[names[0]] = training.curve
            done = min(training.done, noted.rounds)
            latest = training.curve[max(training.curve)] if training.curve else math.nan
            trainings.append({
                "arm": arm, "privacy": PRIVACY[private], "seed": seed, "done": done, "rounds": noted.rounds,
                "failed": training.failed, "latest": figures.figure(latest), "state": _state(training, about.state),
            })  # fmt: skip
        label = metric_named(noted.metric).label if noted and is_metric(noted.metric) else "figure"
        return _page(
            "live.html.j2",
            facts=about,
            folder=folder,
            is_live=about.state == "under way",
            trainings=trainings,
            label=label,
            panels=drawn.panels(curves, noted.rounds if noted else 1, label, by_seed=True),
        )

    def compared(self, names: Sequence[str]) -> tuple[str, bool]:
        """Return the comparison of runs, and whether they can be compared."""
        names = list(dict.fromkeys(names))
        known = folders.found(self.root)
        if not 2 <= len(names) <= MOST_COMPARED:
            return _message(f"Choose two to {MOST_COMPARED} finished runs to compare; {len(names)} were chosen."), False
        wrong = [name for name in names if name not in known or known[name].kind != "run"]
        if wrong:
            return _message(f"There is no run {figures.listed(wrong, 3)}."), False
        try:
            runs = [self._run(known[name]) for name in names]
        except (Mistake, OSError) as error:
            return _message(str(error)), False
        labels = sorted({f"{run.metrics[0].label} {run.headline_place}" for run in runs})
        if len(labels) > 1:
            said = f"These runs have different first figures, which can't stand side by side: {', '.join(labels)}."
            return _message(said), False
        numbers = [Numbers(run) for run in runs]
        page = _page(
            "compare.html.j2",
            names=names,
            runs=list(zip(names, runs, strict=True)),
            label=labels[0],
            rows=_rows(numbers, names),
            differences=_differences(runs),
            cautions=_cautions(runs),
        )
        return page, True

    def _run(self, folder: folders.Folder) -> Run:
        """Return a finished run whose files are as they were sealed.

        Raises:
            Mistake: They are not, or it is not finished.
        """
        link = folders.link_in(folder)
        if link is not None:
            raise Mistake(f"{folder.path / link}: expected files of this folder, got a link")
        stamp = facts.stamp_of(folder)
        kept = self._runs.get(folder.name)
        if kept and kept[0] == stamp:
            return kept[1]
        run = load(folder.path)
        with self._lock:
            self._runs[folder.name] = (stamp, run)
            while len(self._runs) > _MOST_KEPT:
                del self._runs[next(iter(self._runs))]
        return run


def message(text: str) -> str:
    """Return a page that says something."""
    return _message(text)


def _message(text: str) -> str:
    return _page("message.html.j2", text=text)


def _page(template: str, **values: Any) -> str:  # noqa: ANN401  what the template shows
    return PAGES.get_template(template).render(**values)


def _state(training: journal.Followed, of_run: str) -> str:
    if training.failed:
        return "failed"
    if training.over:
        return "done"
    if not training.done:
        return "waiting" if of_run == "under way" else "not begun"
    return "training" if of_run == "under way" else "stopped"


def _ends(one: facts.Facts) -> tuple[float, float, float]:
    if one.figure is None:
        return math.nan, math.nan, math.nan
    return one.figure.mean, one.figure.low, one.figure.high


def _bars(shown: Sequence[facts.Facts], values: Sequence[tuple[float, float, float]]) -> list[drawn.Interval | None]:
    """Draw the figures of the list: those of the same metric on one scale."""
    bars: list[drawn.Interval | None] = [None] * len(shown)
    for metric in {one.of.partition(",")[0] for one in shown}:
        places = [place for place, one in enumerate(shown) if one.of.partition(",")[0] == metric]
        for place, bar in zip(places, drawn.intervals([values[place] for place in places]), strict=True):
            bars[place] = bar
    return bars


def _rows(numbers: Sequence[Numbers], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each run, kind and arm: its figure with its interval, its gain and its epsilon."""
    rows = []
    for of_run, name in zip(numbers, names, strict=True):
        for private in of_run.kinds:
            for arm in of_run.arms:
                if not of_run.was_run(arm, private):
                    continue
                mean = of_run.of("mean", private, arm)
                change = of_run.of("difference", private, arm)
                spent = of_run.run.epsilon(arm) if private else {}
                rows.append({
                    "name": name, "arm": arm, "privacy": PRIVACY[private],
                    "epsilon": figures.epsilon(max(spent.values())) if spent else "",
                    "ends": (mean.mean, mean.low, mean.high), "value": mean.value(),
                    "bounds": mean.bounds() or mean.why,
                    "change": "reference" if arm == "centralized" else change.value(signed=True),
                    "change_bounds": "" if arm == "centralized" else change.bounds(signed=True),
                    "verdict": "" if arm == "centralized" else change.verdict,
                })  # fmt: skip
    bars = drawn.intervals([row["ends"] for row in rows])
    return [row | {"bar": bar} for row, bar in zip(rows, bars, strict=True)]


def _differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return (key, its value in each run) of the settings in which the scenarios differ."""
    flat = [_flat(run.scenario.values()) for run in runs]
    found = []
    for key in dict.fromkeys(key for values in flat for key in values):
        values = [of_run.get(key, figures.UNKNOWN) for of_run in flat]
        if len(set(values)) > 1 and key not in _NOT_COMPARED:
            found.append((key, values))
    return found[:_MOST_LINES]


def _flat(values: Mapping[str, Any], start: str = "") -> dict[str, str]:
    found = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{start}{key}.")
        else:
            found[f"{start}{key}"] = tomli_w.dumps({"x": value}).partition(" = ")[2].strip()
    return found


def _cautions(runs: Sequence[Run]) -> list[str]:
    said = [
        "Each interval is of one run alone. Differences between runs are not paired here and have no verdict: for one, "
        "compare arms within a run, or strategies with fedsim compare."
    ]
    tasks = sorted({run.manifest["task"]["title"] for run in runs})
    if len(tasks) > 1:
        said.append(f"The runs are of different tasks: {', '.join(tasks)}.")
    if len({tuple(run.manifest["seeds"]) for run in runs}) > 1:
        said.append("The runs have different seeds, and so different splits.")
    units = sorted({run.ledger["unit"] for run in runs if run.ledger["trainings"]})
    if len(units) > 1:
        said.append(f"Their epsilons protect different units, and can't be compared: {', '.join(units)}.")
    return said
