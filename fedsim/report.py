"""The report of a run: one HTML file that needs nothing else, for those who decide and those who answer for it.

Every sentence is computed from what is in the run directory. What is said about privacy comes from the ledger, which
holds what ran; the scenario only holds what was asked for.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import jinja2
import numpy as np
import pandas as pd
import tomli_w

from fedsim import catalog, charts
from fedsim.comparison import SAME, interval
from fedsim.evaluation import METRICS, POOLED
from fedsim.results import Run, write_bytes

Pairs = list[tuple[str, str]]
Training = Mapping[str, Any]  # one of the ledger's: arm, seed, epsilon {site: value}, entries

WEAK = 10.0  # Ponomareva et al., "How to DP-fy ML", JAIR 77, 2023: tier 3, "weak to no formal privacy guarantees"
_FEW_SEEDS = 5
_FEW_NAMES = 5  # that a sentence can hold
_MOST_SITES = 40  # that are shown one by one
_MOST_NOTES = 60
_HIGHEST = {"auc": 1.0, "accuracy": 1.0, "log_loss": math.inf}
_GOOD = {"auc": "higher", "accuracy": "higher", "log_loss": "lower"}
_NAMES = {"auc": "AUC", "accuracy": "Accuracy", "log_loss": "Log loss"}
_GAINS = {"": "", SAME: SAME, "higher": "gains", "lower": "loses"}
_UNITS = {"record": "One record: one row of one site. Not a person with several rows, and not a whole site."}
_NEIGHBOURS = {
    "add-or-remove-one": "Two data sets of a site are neighbours if one of them has one record more and they are "
    "otherwise equal (add or remove one).",
    "replace-one": "Two data sets of a site are neighbours if one record of them differs and they are otherwise equal "
    "(replace one).",
}
_RELEASED = {
    "federated": "After each round every site sends its model as its noisy steps left it, its public weight (the "
    "denominator above) and the public settings of its mechanism. Nothing else: no row count, no metric, no gradient.",
    "centralized": "The model as the noisy steps on the pooled records left it, after each round.",
    "local": "Nothing leaves a site unless it hands its model on; the claim is for its model after every round.",
}
_TRUST = {
    "federated": "Each site clips and adds the noise itself, before anything leaves it. For this claim neither the "
    "server nor the other sites need to be trusted; only the site that holds the record.",
    "centralized": "Whoever holds the pool sees every record and adds the noise: a trusted pool holder is presumed.",
    "local": "Only the site itself is trusted: it adds the noise to its own training.",
}
_NOT_COVERED = (
    "The figures in this report: validation and test metrics, row counts and numbers of positives are computed from "
    "records without noise.",
    "Choices made by looking at results: tuning of hyperparameters, choosing among seeds, arms or strategies.",
    "Splitting rows into training, validation and test rows: the split is drawn per class, so one record more can "
    "move others.",
    "Repetition: the epsilon holds for one training of one arm under one seed, as it would be deployed. The report "
    "repeats the training for each seed and arm, with and without privacy, on the same records; whoever gets several "
    "of these models, or one of an arm without privacy, learns more.",
    "A person with records at two sites: each site protects its own record, and the two epsilons add up.",
    "The centralized arm presumes that somebody may be trusted with the pooled records.",
    "Whether a site answered in a round, and how long it took.",
)
_PAGE = jinja2.Environment(
    loader=jinja2.PackageLoader("fedsim"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write(run: Run) -> Path:
    """Write ``report.html`` into the run directory and return its path."""
    path = run.path / "report.html"
    write_bytes(path, _render(run).encode())
    return path


def headline(run: Run) -> str:
    """Return what came out, in a few plain sentences."""
    return " ".join(answer for _, answer in findings(run))


def findings(run: Run) -> Pairs:
    """Return the questions a decision maker asks, each with the answer that the numbers give."""
    return _findings(_Numbers(run))


def statement(run: Run) -> Pairs:
    """Return the privacy statement as (term, definition) pairs, from what ran; a term may come several times."""
    if not run.ledger["trainings"]:
        return [
            ("Guarantee", "This run gives no privacy guarantee: nothing was clipped and no noise was added."),
            ("Released", "After each round every site sends its exact model and its public weight. Models like these "
             "can give away records they were trained on; keeping the records at home does not prevent that."),
            ("To get one", 'Set privacy.unit = "record" and a budget in the scenario, and run it again.'),
        ]  # fmt: skip
    trainings = _trainings(run)
    if not trainings:
        return [("Guarantee", "Nothing was released: the first private round would already have exceeded the budget.")]
    arm = _promised_arm(run)
    own = _of_arm(run, arm)
    pairs = [*_claim(run, arm, own), *_mechanism(own), ("Released", _RELEASED[arm]), ("Trust model", _TRUST[arm])]
    pairs += [("Not covered", gap) for gap in _NOT_COVERED]
    pairs += [
        ("Random numbers", "Noise and batches come from a reproducible generator that the seed determines, so that the "
         "run can be repeated. Against somebody who knows the seed there is no guarantee."),
        ("Arithmetic", "Continuous Gaussian noise in float32, not hardened against attacks on floating-point "
         "arithmetic."),
    ]  # fmt: skip
    others = sorted({training["arm"] for training in trainings} - {arm})
    return pairs + [("Other arms", f"{other}: {_in_one_line(_of_arm(run, other))}") for other in others]


@dataclass(frozen=True)
class _Estimate:
    """A mean over seeds with its 95 % interval; what there is none of is NaN."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """``higher`` or ``lower`` than zero, ``not distinguishable`` from it, or nothing without an interval."""
        if math.isnan(self.low):
            return ""
        return "higher" if self.low > 0 else "lower" if self.high < 0 else SAME

    @property
    def known(self) -> bool:
        return not math.isnan(self.mean)

    def value(self, signed: bool = False) -> str:
        return _figure(self.mean, signed) if self.known else "–"

    def bounds(self, signed: bool = False) -> str:
        return f"{_figure(self.low, signed)} to {_figure(self.high, signed)}" if self.verdict else ""

    def text(self, signed: bool = False) -> str:
        """Return ``0.895 (95 % interval 0.843 to 0.947)``, the mean alone, or ``unknown``."""
        if not self.known:
            return "unknown"
        return self.value(signed) + (f" (95 % interval {self.bounds(signed)})" if self.verdict else "")


_UNKNOWN = _Estimate(math.nan, math.nan, math.nan)
_Kind = Literal["mean", "difference", "gain"]


class _Numbers:
    """The comparison of a run, to look things up in."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.table = run.comparison
        keys = ("private", "arm", "metric", "site")
        self._rows = {tuple(row[key] for key in keys): row for row in self.table.to_dict("records")}
        self.private = any(private for private, *_ in self._rows)
        self.kinds = [False, True] if self.private else [False]
        self.arms = [arm for arm in charts.ARMS if (False, arm, "auc", POOLED) in self._rows]
        self.sites = [str(site) for site in dict.fromkeys(run.sites["site"]) if site != POOLED]
        self.shown = self._largest(run.sites)

    def of(self, kind: _Kind, private: bool, arm: str, metric: str = "auc", site: str = POOLED) -> _Estimate:
        """Return a mean, a difference to the centralized arm or a gain over the local arm.

        Its interval is cut where the metric ends: an AUC is never above 1.
        """
        row = self._rows.get((private, arm, metric, site))
        if row is None:
            return _UNKNOWN
        low, high = ("low", "high") if kind == "mean" else (f"{kind}_low", f"{kind}_high")
        lowest = 0.0 if kind == "mean" else -_HIGHEST[metric]
        bounds = np.clip([float(row[low]), float(row[high])], lowest, _HIGHEST[metric])  # NaN stays NaN
        return _Estimate(float(row[kind]), *map(float, bounds))

    def _largest(self, sites: pd.DataFrame) -> list[str]:
        """Return the sites that are shown one by one: all, or those with the most test rows."""
        rows = sites[sites["site"] != POOLED].groupby("site")["rows"].mean()
        largest = set(rows.sort_values(ascending=False, kind="stable").index[:_MOST_SITES])
        return [site for site in self.sites if site in largest]

    def cost(self) -> _Estimate:
        """Return the change in the federated arm's pooled AUC that privacy brings, paired by seed."""
        sites = self.run.sites
        own = sites[(sites["arm"] == "federated") & (sites["site"] == POOLED)]
        by_seed = own.pivot(index="seed", columns="private", values="auc").astype(float)
        return _Estimate(*interval(by_seed[True] - by_seed[False], self.run.scenario.split))


def _findings(numbers: _Numbers) -> Pairs:
    answers = [("How good is the model they train together?", _quality(numbers))]
    if "federated" in numbers.arms:
        answers.append(("Would pooling all records be better?", _against_pool(numbers)))
        if numbers.private:
            answers.append(("What does privacy cost?", _cost(numbers)))
        answers.append(("Which site gains by joining?", _joining(numbers)))
    answers.append(("What is promised about privacy?", _promise(numbers.run)))
    return answers


def _quality(numbers: _Numbers) -> str:
    spent = _spent(numbers.run, _promised_arm(numbers.run))
    promised = f"with {_epsilons(spent)} for each record" if spent else "with nothing released"
    terms = promised if numbers.private else "with no privacy guarantee"
    count = len(numbers.sites)
    many = f"the {count} sites" if count > 1 else "the only site"
    if "federated" in numbers.arms:
        reached = numbers.of("mean", numbers.private, "federated")
        first = f"Without a record leaving its site, {many} together reach an AUC of {reached.text()} {terms}."
    else:
        reached = (f"{arm} reaches {numbers.of('mean', numbers.private, arm).text()}" for arm in numbers.arms)
        first = f"The federated arm was not run. By AUC, {terms}: {'; '.join(reached)}."
    return (
        f"{first} The AUC says how often the model ranks a random positive case above a random negative one: "
        "0.5 is guessing, 1 is perfect."
    )


def _against_pool(numbers: _Numbers) -> str:
    if "centralized" not in numbers.arms:
        return "How it compares with pooling all records cannot be told: the centralized arm was not run."
    pool = numbers.of("mean", numbers.private, "centralized")
    same = " under the same epsilon" if numbers.private else ""
    change = numbers.of("difference", numbers.private, "federated")
    said = {
        "higher": f"The federated model is better by {change.text(True)}.",
        "lower": f"The federated model is worse: the difference is {change.text(True)}.",
        SAME: f"The federated model's difference to that, {change.text(True)}, is {SAME} from zero.",
        "": f"The federated model's difference to that is {change.text(True)}; {_unproven(numbers.run)}.",
    }
    return f"A model trained on all records in one place{same} has an AUC of {pool.text()}. {said[change.verdict]}"


def _cost(numbers: _Numbers) -> str:
    change = numbers.cost()
    said = {
        "higher": f"{change.text(True)}: higher, so no cost is visible.",
        "lower": f"{change.text(True)}: privacy lowers it.",
        SAME: f"{change.text(True)}, {SAME} from zero.",
        "": f"{change.text(True)}; {_unproven(numbers.run)}.",
    }
    epsilons = _epsilons(_spent(numbers.run, "federated"))
    return (
        f"Compared with the same federated training without noise, the change in AUC at {epsilons} is "
        f"{said[change.verdict]}"
    )


def _joining(numbers: _Numbers) -> str:
    if "local" not in numbers.arms:
        return "Which site gains by joining cannot be told: the local arm, each site alone, was not run."
    gains = {site: numbers.of("gain", numbers.private, "federated", site=site) for site in numbers.sites}
    said = []
    for verdict, verb in (("higher", "gain"), ("lower", "lose")):
        clear = [
            f"{site} ({gain.value(True)}, 95 % interval {gain.bounds(True)})"
            for site, gain in gains.items()
            if gain.verdict == verdict
        ]
        if clear:
            said.append(f"{_listed(clear)} {verb}{'s' if len(clear) == 1 else ''}")
    unclear = [site for site, gain in gains.items() if gain.verdict in ("", SAME)]
    if unclear:
        said.append(f"{_chance(unclear, len(gains))} with {_rows_and_seeds(numbers.run)}")
    overall = numbers.of("gain", numbers.private, "federated")
    verdict = {"": "", SAME: f", {SAME} from zero"}.get(overall.verdict, f", {overall.verdict} than zero")
    same = " at the same epsilon" if numbers.private else ""
    return (
        f"Compared with training alone{same}, {'; '.join(said)}. "
        f"Over all sites together the change in AUC is {overall.text(True)}{verdict}."
    )


def _chance(sites: list[str], count: int) -> str:
    if len(sites) == count:
        return "for none of the sites can a gain or loss be told apart from chance"
    which = _listed(sites) if len(sites) <= _FEW_NAMES else f"the other {len(sites)} sites"
    return f"for {which} a gain or loss cannot be told apart from chance"


def _rows_and_seeds(run: Run) -> str:
    return "one seed" if len(run.scenario.all_seeds) == 1 else "these seeds and test rows"


def _promise(run: Run) -> str:
    if not run.ledger["trainings"]:
        return "This run gives no privacy guarantee."
    spent = _spent(run, _promised_arm(run))
    if not spent:
        return "Nothing was released under privacy: the first private round would already have exceeded the budget."
    weak = f" An epsilon above {WEAK:g} is a weak formal guarantee." if max(spent.values()) > WEAK else ""
    return (
        f"One record at one site is promised {_epsilons(spent)} at delta {run.ledger['delta']:g}, for one training."
        f"{weak} The privacy statement below says what that covers and what it does not."
    )


def _unproven(run: Run) -> str:
    if len(run.scenario.all_seeds) == 1:
        return "one seed gives no interval, so it may be chance"
    return "there is no interval, so it may be chance"


def _listed(names: list[str]) -> str:
    rest = len(names) - _FEW_NAMES
    items = [*names[:_FEW_NAMES], f"{rest} more"] if rest > 0 else names
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _trainings(run: Run) -> list[Training]:
    """Return the trainings in which something was released under privacy."""
    return [training for training in run.ledger["trainings"] if training["entries"]]


def _promised_arm(run: Run) -> str:
    """Return the arm whose privacy is stated in full: the federated one, if it was trained privately."""
    trained = [training["arm"] for training in _trainings(run)]
    return "federated" if "federated" in trained or not trained else trained[0]


def _of_arm(run: Run, arm: str) -> list[Training]:
    return [training for training in _trainings(run) if training["arm"] == arm]


def _spent(run: Run, arm: str) -> dict[str, float]:
    return _most(_of_arm(run, arm))


def _most(own: list[Training]) -> dict[str, float]:
    """Return {site: the most that one of these trainings spent there}."""
    spent: dict[str, float] = {}
    for site, value in (item for training in own for item in training["epsilon"].items()):
        spent[site] = max(value, spent.get(site, 0.0))
    return spent


def _claim(run: Run, arm: str, own: list[Training]) -> Pairs:
    """Return what is claimed for whom, and how strong that is."""
    ledger, delta = run.ledger, run.ledger["delta"]
    seeds = f", the most over {len(own)} seeds" if len(own) > 1 else ""
    pairs = [
        ("In plain words", _meaning(float(_up(max(_most(own).values()))), delta)),
        ("Unit", _UNITS[ledger["unit"]]),
        ("Neighbours", _NEIGHBOURS[ledger["neighbours"]]),
        ("Epsilon", f"{_by_site(_bounds(own))}; an upper bound for one {arm} training{seeds}. The budget was "
         f"{ledger['budget']:g}; training stops before a round that would exceed it."),
        ("Delta", f"{delta:g}: the bound may fail with at most about this probability."),
        ("Accountant", f"{ledger['accountant']}. Composed over all steps of all rounds."),
    ]  # fmt: skip
    return [pairs[0], *(("Warning", warning) for warning in _warnings(run)), *pairs[1:]]


def _meaning(epsilon: float, delta: float) -> str:
    """Return what epsilon bounds, and the ceiling it puts on any attacker who asks whether a record was used."""
    factor = math.exp(min(epsilon, 700.0))  # e^700 is near the largest float
    advantage = math.tanh(epsilon / 2) + 2 * delta / (factor + 1)  # (e^epsilon - 1 + 2 delta) / (e^epsilon + 1)
    right = min(100.0, math.ceil(50e2 * (1 + advantage)) / 1e2)
    times = "more than a million" if factor > 1e6 else f"about {factor:,.0f}" if factor > 100 else f"about {factor:.3g}"
    size = ", a loose bound" if factor > 100 else ""
    return (
        "Whether or not one record is used, whatever a site sends is at most e^epsilon times as likely, apart from a "
        f"chance of delta. At epsilon {epsilon:.2f} that is a factor of {times}{size}. Somebody who sees all that was "
        f"sent and must guess, at even odds, whether the record was used, is right at most {right:.2f} % of the time "
        "(50 % is guessing). These are ceilings that are proven for every attack, not forecasts of one."
    )


def _warnings(run: Run) -> list[str]:
    """Return what weakens the claim, if anything does."""
    if not _trainings(run):
        return []
    delta, most, found = run.ledger["delta"], max(_most(_trainings(run)).values()), []
    if most > WEAK:
        found.append(f"Epsilon {_up(most)} is above {WEAK:g}: a weak formal guarantee.")
    small = {site: rows for site, rows in _training_rows(run).items() if delta * rows >= 1}
    if small:
        sites = _listed([f"{site} (about {rows:.0f} training rows)" for site, rows in small.items()])
        found.append(
            f"Delta {delta:g} is not below one over the number of rows at {sites}: publishing a random record as it is "
            "would satisfy such a delta."
        )
    return found


def _training_rows(run: Run) -> dict[str, float]:
    """Return {site: about how many rows it trains on}, estimated from its test rows and the shares of the split."""
    split = run.scenario.split
    inside = run.sites[run.sites["site"] != POOLED]
    tested = inside.groupby("site", sort=False)["rows"].mean()
    return {str(site): float(rows) / split.test * (1 - split.test - split.validation) for site, rows in tested.items()}


def _mechanism(own: list[Training]) -> Pairs:
    """Return what the sites did to their rows, as it was reported with each update."""
    return [
        ("Mechanism", "DP-SGD: in each step every row's gradient is clipped, the gradients are summed, Gaussian noise "
         "is added to the sum, and the sum is divided by a public number."),
        ("Sampling", f"Poisson: each row joins a step with probability {_each(own, 'sampling_rate')}, on its own."),
        ("Noise multiplier", f"sigma = {_each(own, 'noise_multiplier')}; the noise's standard deviation is sigma times "
         "the clip."),
        ("Clip", f"{_each(own, 'clip')}: the largest Euclidean norm of one row's gradient."),
        ("Denominator", f"{_each(own, 'expected_batch')}: the expected batch, set in the scenario and so public."),
        ("Steps", _steps(own)),
    ]  # fmt: skip


def _bounds(own: list[Training]) -> dict[str, list[str]]:
    return {site: [_up(value)] for site, value in _most(own).items()}


def _in_one_line(own: list[Training]) -> str:
    return (
        f"epsilon {_by_site(_bounds(own))}; sampling rate {_each(own, 'sampling_rate')}; "
        f"sigma {_each(own, 'noise_multiplier')}; clip {_each(own, 'clip')}; "
        f"denominator {_each(own, 'expected_batch')}; {_steps(own)}."
    )


def _each(own: list[Training], field: str) -> str:
    """Return a field of the mechanisms: once if it is the same everywhere, else for each site."""
    values: dict[str, list[str]] = {}
    for entry in (entry for training in own for entry in training["entries"]):
        values.setdefault(entry["site"], []).append(f"{entry['mechanism'][field]:g}")
    return _by_site(values)


def _steps(own: list[Training]) -> str:
    values: dict[str, list[str]] = {}
    for training in own:
        for site in training["epsilon"]:
            counts = Counter(entry["mechanism"]["steps"] for entry in training["entries"] if entry["site"] == site)
            rounds = " + ".join(f"{count} rounds × {steps} steps" for steps, count in sorted(counts.items()))
            values.setdefault(site, []).append(f"{rounds} = {sum(k * n for k, n in counts.items())} steps")
    return _by_site(values)


def _by_site(values: Mapping[str, Iterable[str]]) -> str:
    """Return ``0.5 at every site`` or ``a: 0.5; b: 0.4``; several values of one site are joined by ``or``."""
    texts = {site: " or ".join(dict.fromkeys(each)) for site, each in values.items()}
    if len(set(texts.values())) > 1:
        return "; ".join(f"{site}: {text}" for site, text in texts.items())
    text = next(iter(texts.values()))
    return f"{text} at every site" if len(texts) > 1 else text


def _epsilons(spent: Mapping[str, float]) -> str:
    if not spent:
        return "nothing released"
    least, most = _up(min(spent.values())), _up(max(spent.values()))
    return f"epsilon {most}" if least == most else f"epsilon {least} to {most} (by site)"


def _up(epsilon: float) -> str:
    """Return an upper bound with two digits, rounded up: it must stay an upper bound."""
    return f"{math.ceil(round(epsilon * 100, 6)) / 100:.2f}"


def _figure(value: float, signed: bool = False) -> str:
    """Return a number with three digits, or four where three would hide its sign; never ``-0.000``."""
    digits = 4 if signed and 0 < abs(value) < 0.0005 else 3
    rounded = round(value, digits) + 0.0  # -0.0 + 0.0 is 0.0
    return f"{rounded:{'+' if signed and rounded else ''}.{digits}f}".replace("-", "−")


def _render(run: Run) -> str:
    numbers = _Numbers(run)
    task = catalog.load("tasks", run.scenario.task)
    notes = [f"{_label(note)}: {note['note']}" for note in run.manifest["notes"]]
    page = _PAGE.get_template("report.html.j2")
    return page.render(
        run=run,
        task=task,
        numbers=numbers,
        started=f"{datetime.fromisoformat(run.manifest['started']):%d %B %Y, %H:%M UTC}",
        findings=_findings(numbers),
        cautions=_cautions(run),
        groups=_arm_groups(numbers),
        names=_NAMES,
        good=_GOOD,
        arms_chart=charts.arms(numbers.table),
        curves_chart=charts.curves(run.rounds) if _has_curves(run.rounds) else None,
        sites_chart=_sites_chart(numbers),
        sites=_site_rows(numbers),
        statement=[(term, [text for _, text in pairs]) for term, pairs in itertools.groupby(statement(run), _first)],
        notes=notes[:_MOST_NOTES],
        notes_left=max(0, len(notes) - _MOST_NOTES),
        scenario=tomli_w.dumps(run.scenario.model_dump(exclude_none=True), indent=2),
    )


def _first(pair: tuple[str, str]) -> str:
    return pair[0]


def _label(training: Mapping[str, Any]) -> str:
    return f"{training['arm']}, {charts.PRIVACY[training['private']]}, seed {training['seed']}"


def _cautions(run: Run) -> list[str]:
    """Return what a reader must know before the numbers."""
    seeds, notes = len(run.scenario.all_seeds), len(run.manifest["notes"])
    found = _warnings(run)
    if seeds == 1:
        found.append("One seed: there are no intervals, and no difference in this report can be told from chance.")
    elif seeds < _FEW_SEEDS:
        found.append(f"Only {seeds} seeds: the intervals are very wide. Take {_FEW_SEEDS} or more before deciding.")
    if notes:
        found.append(f"Not everything went by the book: see the {notes} notes at the end.")
    return found


def _arm_groups(numbers: _Numbers) -> list[dict[str, Any]]:
    """Return the table of arms: without and with privacy, a row for each arm, a cell for each metric."""
    groups = []
    for private in numbers.kinds:
        rows = [
            {
                "arm": arm,
                "key": charts.key(arm, private),
                "cells": [_cell(numbers, private, arm, metric) for metric in METRICS],
            }
            for arm in numbers.arms
        ]
        spent = [f"{arm} {_epsilons(_spent(numbers.run, arm))}" for arm in numbers.arms] if private else []
        same = {text.partition(" ")[2] for text in spent}
        groups.append({"label": charts.PRIVACY[private], "terms": same.pop() if len(same) == 1 else "; ".join(spent),
                       "rows": rows})  # fmt: skip
    return groups


def _cell(numbers: _Numbers, private: bool, arm: str, metric: str) -> dict[str, str]:
    mean, change = (numbers.of(kind, private, arm, metric) for kind in ("mean", "difference"))
    better = {"": "", SAME: SAME, _GOOD[metric]: "better"}
    return {
        "mean": mean.value(),
        "bounds": mean.bounds(),
        "change": "reference" if arm == "centralized" else change.value(signed=True),
        "change_bounds": change.bounds(signed=True),
        "verdict": better.get(change.verdict, "worse"),
    }


def _has_curves(rounds: pd.DataFrame) -> bool:
    return not rounds.empty and bool(rounds[["auc", "log_loss"]].notna().any().any())


def _sites_chart(numbers: _Numbers) -> str:
    labels = {row["site"]: f"{row['site']} ({row['rows']} test rows)" for row in _site_rows(numbers)}
    gains = {
        (private, site): f"{gain.value(True)} ({gain.bounds(True)})" if gain.verdict else gain.value(True)
        for private in numbers.kinds
        for site in labels
        for gain in [numbers.of("gain", private, "federated", site=site)]
    }
    return charts.sites(numbers.table, labels, gains)


def _site_rows(numbers: _Numbers) -> list[dict[str, Any]]:
    """Return a row for each site: how much it was tested on, and what it gains by joining."""
    sites = numbers.run.sites
    own = sites[(sites["arm"] == numbers.arms[0]) & ~sites["private"].astype(bool)]
    rows = []
    for name in numbers.shown:
        seeds = own[own["site"] == name]
        gains = [numbers.of("gain", private, "federated", site=name) for private in numbers.kinds]
        rows.append(
            {
                "site": name,
                "rows": _span(seeds["rows"]),
                "positives": _span(seeds["positives"]),
                "negatives": _span(seeds["rows"] - seeds["positives"]),
                "known": f"{int(seeds['auc'].notna().sum())} of {len(seeds)}",
                "gains": [(gain.value(True), gain.bounds(True), _GAINS[gain.verdict]) for gain in gains],
            }
        )
    return rows


def _span(counts: pd.Series) -> str:
    least, most = int(counts.min()), int(counts.max())
    return f"{most}" if least == most else f"{least}–{most}"
