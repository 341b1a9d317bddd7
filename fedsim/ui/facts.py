"""What the list says of each folder: its state, and of a finished run its first figure."""

import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from fedsim import figures
from fedsim.experiments import journal
from fedsim.mistakes import Mistake
from fedsim.report.charts import PRIVACY
from fedsim.results.comparison import compare
from fedsim.results.estimate import Estimate
from fedsim.results.evaluation import TOGETHER
from fedsim.results.run_directory import Run, is_finished, read_run
from fedsim.results.seal import NAME as SEAL
from fedsim.scenario.files import read
from fedsim.scenario.reading import parse_json, read_ordinary
from fedsim.scenario.schema import Scenario
from fedsim.ui.folders import Folder, link_in

STATES = (
    "finished",
    "under way",
    "interrupted",
    "failed",
    "deployment",
    "sweep",
    "tune",
    "tournament",
    "audit",
    "unreadable",
)
_DECIDE = ("manifest.json", SEAL, "scenario.toml", "sites.parquet", "ledger.json", "deployment.json", journal.NAME)
_LARGEST_DOCUMENT = 2**24
_LONGEST = 300  # characters of a text that a file gives


@dataclass(frozen=True)
class Facts:
    """What the list says of a folder.

    Attributes:
        folder: The folder.
        state: One of STATES; empty while it has not been read.
        title: Its title.
        when: When it was begun, in seconds since 1970.
        about: What was trained, or in a sentence what came of it.
        arms: The arms, in words.
        seeds: How many seeds; None if it is not known.
        epsilon: The epsilon that was spent, or is asked for; None without privacy.
        is_spent: Whether epsilon is what was spent.
        of: What the figure is of: ``AUC inside sites, federated, with privacy``.
        figure: The first figure with its interval; None if there is none.
        share: The share of all rounds that is done; None if it is not known.
        problem: What is wrong with it, or what failed.
    """

    folder: Folder
    state: str
    title: str
    when: float
    about: str = ""
    arms: str = ""
    seeds: int | None = None
    epsilon: float | None = None
    is_spent: bool = False
    of: str = ""
    figure: Estimate | None = None
    share: float | None = None
    problem: str = ""

    @property
    def date(self) -> str:
        """When it was begun, in words."""
        return f"{datetime.fromtimestamp(self.when, UTC):%Y-%m-%d %H:%M}"

    @property
    def shown_epsilon(self) -> str:
        """Epsilon as people read it."""
        if self.epsilon is None:
            return ""
        return figures.epsilon(self.epsilon) if self.is_spent else figures.setting(self.epsilon)

    @property
    def words(self) -> str:
        """All that can be searched for."""
        return " ".join([self.folder.name, self.state, self.title, self.about, self.arms, self.of]).casefold()


class Known:
    """The facts that were read before, as long as the files are the same."""

    def __init__(self) -> None:
        self._facts: dict[str, tuple[tuple[Any, ...], Facts]] = {}
        self._lock = Lock()

    def of(self, folder: Folder) -> Facts:
        """Return the facts of a folder."""
        stamp = stamp_of(folder)
        known = self._facts.get(folder.name)
        if known and known[0] == stamp:
            facts = known[1]
            # A process may have ended since, which no file tells.
            if facts.state not in ("under way", "interrupted", "failed"):
                return facts
        facts = facts_of(folder)
        with self._lock:
            self._facts[folder.name] = (stamp, facts)
        return facts

    def all(self, folders: Iterable[Folder], seconds: float) -> list[Facts]:
        """Return the facts of folders, the newest first; what is not read after so many seconds has no state."""
        until = time.monotonic() + seconds
        listed = []
        for folder in sorted(folders, key=_begun, reverse=True):
            is_known = folder.name in self._facts and self._facts[folder.name][0] == stamp_of(folder)
            if is_known or time.monotonic() < until:
                listed.append(self.of(folder))
            else:
                listed.append(Facts(folder, "", folder.name, _begun(folder)))
        return listed


def stamp_of(folder: Folder) -> tuple[Any, ...]:
    """Return what changes when the files change that decide about the facts."""
    stamps: list[Any] = [folder]
    for name in _DECIDE:
        try:
            found = os.lstat(folder.path / name)
        except OSError:
            stamps.append(None)
        else:
            stamps.append((found.st_mtime_ns, found.st_size, found.st_ino))
    return tuple(stamps)


def facts_of(folder: Folder) -> Facts:
    """Read the facts of a folder; what can't be read is a fact, too."""
    try:
        link = link_in(folder)
        if link is not None:
            raise Mistake(f"{folder.path / link}: expected files of this folder, got a link")
        if folder.kind == "run":
            return _of_run(folder)
        if folder.kind == "deployment":
            return _of_deployment(folder)
        return _of_document(folder)
    except (Mistake, OSError) as error:
        return Facts(folder, "unreadable", folder.name, _begun(folder), problem=_short(str(error)))


def _begun(folder: Folder) -> float:
    """Return when a folder was begun, as the file system has it."""
    for name in ("begun.json", "scenario.toml", *folder.pages):
        try:
            return os.lstat(folder.path / name).st_mtime
        except OSError:
            continue
    return 0.0


def _of_run(folder: Folder) -> Facts:
    if not is_finished(folder.path):
        return _of_run_under_way(folder)
    run = read_run(folder.path)
    arm, private = shown_first(run)
    metric = run.metrics[0]
    together = compare(run.sites[run.sites["site"].isin(TOGETHER)], run.overlap)
    is_first = (together["arm"] == arm) & (together["private"] == private) & (together["metric"] == metric.name)
    row = together[is_first & (together["site"] == run.headline)].iloc[0]
    facts = _of_scenario(folder, run.scenario, "failed" if run.failed else "finished")
    spent = run.epsilon(arm).values() if private else ()
    return replace(
        facts,
        when=datetime.fromisoformat(run.manifest["started"]).timestamp(),
        about=f"{run.manifest['task']['title']}, {run.scenario.strategy.label}",
        seeds=len(run.manifest["seeds"]),
        epsilon=max(spent, default=None),
        is_spent=True,
        of=f"{metric.label} {run.headline_place}, {arm}, {PRIVACY[private]}",
        figure=Estimate(float(row["mean"]), float(row["low"]), float(row["high"]), str(row["why"])),
        problem=f"{len(run.failed)} trainings failed" if run.failed else "",
    )


def shown_first(run: Run) -> tuple[str, bool]:
    """Return the arm whose figure stands for the run, and whether it is the one with privacy."""
    arms = list(dict.fromkeys(run.sites["arm"]))
    arm = "federated" if "federated" in arms else str(arms[0])
    private = bool(run.sites.loc[run.sites["arm"] == arm, "private"].any())
    return arm, private


def _of_run_under_way(folder: Folder) -> Facts:
    noted = journal.read(folder.path)
    if journal.is_at_work(folder.path):
        state = "under way"
    elif noted and any(training.failed for training in noted.trainings.values()):
        state = "failed"
    else:
        state = "interrupted"
    facts = _of_scenario(folder, _scenario(folder), state)
    if noted is None:
        return facts
    reasons = [training.failed for training in noted.trainings.values() if training.failed]
    return replace(facts, share=noted.share, problem=_short(reasons[0]) if reasons else "")


def _scenario(folder: Folder) -> Scenario:
    return read(str(folder.path.absolute() / "scenario.toml"), all_used=False)


def _of_scenario(folder: Folder, scenario: Scenario, state: str) -> Facts:
    return Facts(
        folder=folder,
        state=state,
        title=scenario.title,
        when=_begun(folder),
        about=f"{scenario.task_label or 'own table'}, {scenario.strategy.label}",
        arms=", ".join(scenario.arms),
        seeds=scenario.seeds,
        epsilon=scenario.privacy.epsilon if scenario.private else None,
    )


def _of_deployment(folder: Folder) -> Facts:
    facts = _of_scenario(folder, _scenario(folder), "deployment")
    is_over = "deployment.json" in folder.files
    return replace(
        facts, arms="federated", seeds=1, about=f"{facts.about}, {'finished' if is_over else 'not finished'}"
    )


def _of_document(folder: Folder) -> Facts:
    """Return what a sweep, a tuned comparison, a tournament or an audit says of itself in its JSON."""
    page = folder.pages[0]
    document: Mapping[str, Any] = {}
    beside = f"{Path(page).stem}.json"
    if beside in folder.files:
        document = parse_json(read_ordinary(folder.path / beside, _LARGEST_DOCUMENT), str(folder.path / beside))
    scenario = document.get("scenario")
    answers = document.get("answers")
    first = answers[0] if isinstance(answers, list) and answers and isinstance(answers[0], str) else ""
    seeds = document.get("seeds")
    return Facts(
        folder=folder,
        state=folder.kind,
        title=_short(scenario) if isinstance(scenario, str) else folder.kind.capitalize(),
        when=_begun(folder),
        about=_short(first),
        seeds=seeds if type(seeds) is int else None,
    )


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def by(facts: list[Facts], order: str) -> list[Facts]:
    """Return facts in an order; those that lack what they are ordered by come last."""
    if order == "title":
        return sorted(facts, key=lambda one: (one.title.casefold(), -one.when))
    if order == "figure":
        return sorted(facts, key=lambda one: -one.figure.mean if _has_figure(one) else math.inf)  # type: ignore[union-attr]
    if order == "epsilon":
        return sorted(facts, key=lambda one: math.inf if one.epsilon is None else one.epsilon)
    if order == "oldest":
        return sorted(facts, key=lambda one: one.when)
    return sorted(facts, key=lambda one: -one.when)


def _has_figure(facts: Facts) -> bool:
    return facts.figure is not None and not math.isnan(facts.figure.mean)
