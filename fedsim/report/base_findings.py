"""Say how good the models are beside the base rate: always giving the same answer, without a model."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fedsim.figures import figure, with_article
from fedsim.outcomes import outcome_of
from fedsim.outcomes.kinds.binary import ACCURACY
from fedsim.outcomes.kinds.number import RMSE
from fedsim.outcomes.metric import Metric
from fedsim.report.blow_ups import blow_ups
from fedsim.results.base_rates import answer_in_words
from fedsim.results.comparison import SAME, UNBOUNDED
from fedsim.results.estimate import Estimate
from fedsim.results.evaluation import POOLED
from fedsim.results.run_directory import Run


@dataclass(frozen=True)
class Beside:
    """An arm's metric beside the base rate.

    Attributes:
        arm: The arm.
        private: With privacy or without.
        mean: The arm's mean.
        base: The base rate's mean.
        better: The arm's advantage over the base rate, above zero where the arm is better.
    """

    arm: str
    private: bool
    mean: float
    base: float
    better: Estimate


def base_answer(run: Run) -> str | None:
    """Return what is always answered, in words; None in runs of older versions."""
    base = run.measured.base_rates
    return None if base.empty else answer_in_words(run.kind, base)


def base_figures(run: Run, site: str) -> Mapping[str, float]:
    """Return {metric: base rate, the mean over seeds} over all sites, NaN where it is not known.

    Args:
        run: The run.
        site: A row that stands for all sites, such as ``run.headline``.
    """
    figures = dict.fromkeys((metric.name for metric in outcome_of(run.kind).metrics), math.nan)
    if run.over_base is not None:
        of_site = run.over_base[run.over_base["site"] == site]
        for name, value in zip(of_site["metric"], of_site["base"], strict=True):
            figures[name] = float(value)
    return figures


def base_sentences(run: Run) -> str:
    """Say what the base rate reaches by each metric, and what it was learned from; empty in older runs."""
    answer = base_answer(run)
    if answer is None:
        return ""
    first = outcome_of(run.kind).metrics[0]
    inside = base_figures(run, run.headline)
    reached = []
    for metric in outcome_of(run.kind).metrics:
        place = f" {run.headline_place}" if metric.by_site else ""
        reached.append(f"{with_article(metric.label)}{place} of {figure(inside[metric.name])}{_unit(run, metric)}")

    sentences = [f"Without a model, {answer} has {_joined(reached)}."]
    if run.kind == "number" and run.pooled_differs:
        pooled = base_figures(run, POOLED)[first.name]
        sentences.append(f"Pooled over the sites, its {first.label} is {figure(pooled)}.")
    sentences += _federated_beside(run, first)
    sentences.append(_learned_from(run))
    return " ".join(sentences)


def _federated_beside(run: Run, metric: Metric) -> Iterator[str]:
    """State the federated model's difference to the base rate; nothing if it was not run, or has no figure."""
    if run.over_base is None:
        return
    federated = [beside for beside in _all_beside(run, run.over_base, metric) if beside.arm == "federated"]
    for beside in federated[-1:]:  # with privacy, if it was run with it
        change = beside.better
        if math.isnan(change.mean):
            return
        place = f" {run.headline_place}" if metric.by_site else ""
        verdicts = {"higher": ": it is better", "lower": ": it is worse", SAME: f", {SAME} from zero"}
        asked = f", {run.asked}" if change.verdict else ""
        yield (
            f"{_upper(_named([beside]))}'s difference to that in {metric.label}{place} is "
            f"{change.text(signed=True)}{asked}{verdicts.get(change.verdict, '')}."
        )


def _learned_from(run: Run) -> str:
    sentence = outcome_of(run.kind).learned_from
    if run.ledger["trainings"]:
        sentence += " The simulator takes it from exact rows, as it does every test figure: no epsilon covers it."
    return sentence


def cautions(run: Run) -> list[str]:
    """Return the warnings that follow from figures.

    They are on seeds without test rows, sites that are not tested, trainings that blew up, and arms that are no better
    than the base rate.
    """
    warnings = [*_untested_seeds(run), *_untested_sites(run), *blow_ups(run)]
    answer = base_answer(run)
    over_base = run.over_base
    if answer is None or over_base is None:
        return warnings

    metrics = [outcome_of(run.kind).metrics[0]]
    if run.kind == "binary":
        metrics.append(ACCURACY)  # a rare outcome makes a high accuracy easy to reach
    for metric in metrics:
        worse: list[Beside] = []
        unsure: list[Beside] = []
        for beside in _all_beside(run, over_base, metric):
            if math.isnan(beside.better.mean):
                continue
            if beside.better.mean <= 0:
                worse.append(beside)
            elif beside.better.verdict == SAME or beside.better.why == UNBOUNDED:
                unsure.append(beside)

        if worse:
            figures = _figures(run, metric, worse)
            warnings.append(f"{_upper(_named(worse))} {_is(worse)} no better than {answer}: {figures}.")
        if unsure:
            figures = _figures(run, metric, unsure)
            warnings.append(
                f"{_upper(_named(unsure))} cannot be told apart from {answer}, {run.asked}: {figures}, and the "
                f"interval of {'each' if len(unsure) > 1 else 'the'} difference includes zero."
            )
    return warnings


def _untested_seeds(run: Run) -> Iterator[str]:
    pooled = run.sites[run.sites["site"] == POOLED]
    tested = pooled.groupby("seed")["rows"].max()
    untested = [str(seed) for seed, rows in tested.items() if rows == 0]
    if untested:
        seeds = f"seed{'s' if len(untested) > 1 else ''} {', '.join(untested)}"
        yield f"Under {seeds} no site has a test row: only the other {len(tested) - len(untested)} give figures."


def _untested_sites(run: Run) -> Iterator[str]:
    most = run.scenario.evaluation.most_sites
    if run.site_count > most:
        yield (
            f"All figures, the base rate included, are those of {most} of the {run.site_count} sites, drawn at random "
            "(evaluation.most_sites)."
        )


def _all_beside(run: Run, over_base: pd.DataFrame, metric: Metric) -> Iterator[Beside]:
    means = _of_metric(run, run.comparison, metric)
    mean_of = {(row["arm"], row["private"]): row["mean"] for row in means}
    for row in _of_metric(run, over_base, metric):
        yield Beside(
            arm=str(row["arm"]),
            private=bool(row["private"]),
            mean=float(mean_of[row["arm"], row["private"]]),
            base=float(row["base"]),
            better=_better(row, metric),
        )


def _of_metric(run: Run, table: pd.DataFrame, metric: Metric) -> list[dict[Any, Any]]:
    """Return the rows about a metric over all sites, of the row that is reported first."""
    return table[(table["site"] == run.headline) & (table["metric"] == metric.name)].to_dict("records")


def _better(row: dict[Any, Any], metric: Metric) -> Estimate:
    """Return an arm's advantage over the base rate: its difference, turned where less is better."""
    mean = float(row["difference"])
    low = float(row["difference_low"])
    high = float(row["difference_high"])
    if metric.better == "lower":
        mean, low, high = -mean, -high, -low
    return Estimate(mean, low, high, str(row["difference_why"]))


def _named(arms: list[Beside]) -> str:
    """Name the models of some arms, e.g. ``the federated model and the local models, with privacy``."""
    names = []
    for beside in arms:
        models = "models" if beside.arm == "local" else "model"
        privacy = " with privacy" if beside.private else ""
        names.append(f"the {beside.arm} {models}{privacy}")
    return _joined(names)


def _is(arms: list[Beside]) -> str:
    return "is" if len(arms) == 1 and arms[0].arm != "local" else "are"


def _figures(run: Run, metric: Metric, arms: list[Beside]) -> str:
    """Return ``AUC inside sites 0.49 and 0.48 against 0.5``."""
    place = f" {run.headline_place}" if metric.by_site else ""
    means = [figure(beside.mean) for beside in arms]
    return f"{metric.label}{place} {_joined(means)} against {figure(arms[0].base)}{_unit(run, metric)}"


def _unit(run: Run, metric: Metric) -> str:
    unit = run.manifest["task"]["unit"]
    return f" {unit}" if metric is RMSE and unit else ""


def _joined(items: list[str]) -> str:
    if len(items) == 1:
        return items[0]
    return f"{', '.join(items[:-1])} and {items[-1]}"


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
