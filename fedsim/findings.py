"""The answers of a run in plain words: how good the models are, who gains, what privacy costs and promises.

Whether two numbers differ is said by the interval of their difference, and not said where there is none.
"""

import math
from typing import Literal, get_args

import pandas as pd

from fedsim.claims import CLAIMS
from fedsim.comparison import SAME, interval
from fedsim.estimate import Estimate
from fedsim.evaluation import POOLED
from fedsim.group_findings import treatment
from fedsim.privacy.tiers import WEAK
from fedsim.results import Run
from fedsim.scenario import Arm
from fedsim.statement import FEW_NAMES, Pairs, epsilons, listed, promised_arm

_MOST_SITES = 40  # that are shown one by one
_MEANING = {
    "auc": "The AUC says how often the model ranks a random positive case above a random negative one: 0.5 is "
    "guessing, 1 is perfect.",
    "accuracy": "The accuracy is the share of rows whose class is named rightly.",
    "r2": "R² is the share of the outcome's variance that the model explains: 1 is perfect, 0 is no better than always "
    "saying the mean, below 0 is worse.",
}


def headline(run: Run) -> str:
    """Return what came out, in a few plain sentences."""
    return " ".join(answer for _, answer in findings(run))


def findings(run: Run) -> Pairs:
    """Return the questions a decision maker asks, each with the answer that the numbers give."""
    return answers(Numbers(run))


class Numbers:
    """The comparison of a run, to look things up in.

    Attributes:
        run: The run.
        metric: The headline of its kind of outcome.
        table: Its comparison, which is costly to make.
        private: Whether there are arms with privacy.
        kinds: The kinds of arms there are: without privacy, then with.
        gain_kinds: Those in which a site's gain by joining can be told, if it can in any.
        arms: The arms that were run, in the order in which they are listed everywhere.
        sites: All sites.
        shown: The sites that are shown one by one: all, or those with the most test rows.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.metric = run.metrics[0]
        self.table = run.comparison
        keys = ("private", "arm", "metric", "site")
        self._rows = {tuple(row[key] for key in keys): row for row in self.table.to_dict("records")}
        self.private = any(private for private, *_ in self._rows)
        self.kinds = [False, True] if self.private else [False]
        self.arms = [arm for arm in get_args(Arm) if self.was_run(arm, private=False)]
        self.gain_kinds = [kind for kind in self.kinds if self.was_run("local", kind)] or self.kinds
        self.sites = [str(site) for site in dict.fromkeys(run.sites["site"]) if site != POOLED]
        self.shown = self._largest(run.sites)

    def of(
        self,
        kind: Literal["mean", "difference", "gain"],
        private: bool,
        arm: str,
        metric: str = "",
        site: str = POOLED,
    ) -> Estimate:
        """Return a mean, a difference to the centralized arm or a gain over the local arm (of the headline)."""
        row = self._rows.get((private, arm, metric or self.metric.name, site))
        if row is None:
            return Estimate(math.nan, math.nan, math.nan)
        low, high = ("low", "high") if kind == "mean" else (f"{kind}_low", f"{kind}_high")
        return Estimate(float(row[kind]), float(row[low]), float(row[high]))

    def was_run(self, arm: str, private: bool) -> bool:
        """Whether an arm was run with privacy, or without: a unit need not have a meaning in every arm."""
        return (private, arm, self.metric.name, POOLED) in self._rows

    def cost(self) -> Estimate:
        """Return the change in the federated arm's pooled headline that privacy brings, paired by seed."""
        sites = self.run.sites
        own = sites[(sites["arm"] == "federated") & (sites["site"] == POOLED)]
        by_seed = own.pivot(index="seed", columns="private", values=self.metric.name).astype(float)
        return Estimate(*interval(by_seed[True] - by_seed[False], self.run.overlap))

    def _largest(self, sites: pd.DataFrame) -> list[str]:
        rows = sites[sites["site"] != POOLED].groupby("site")["rows"].mean()
        largest = set(rows.sort_values(ascending=False, kind="stable").index[:_MOST_SITES])
        return [site for site in self.sites if site in largest]


def answers(numbers: Numbers) -> Pairs:
    """Return ``findings`` of the run these numbers are from."""
    found = [("How good is the model they train together?", _quality(numbers))]
    if "federated" in numbers.arms:
        found.append(("Would pooling all records be better?", _against_pool(numbers)))
        if numbers.private:
            found.append(("What does privacy cost?", _cost(numbers)))
        found.append(("Which site gains by joining?", _joining(numbers)))
    if said := treatment(numbers.run, numbers.arms[0]):
        found.append(("Are groups treated differently?", said))
    return [*found, ("What is promised about privacy?", _promise(numbers.run))]


def _quality(numbers: Numbers) -> str:
    return f"{_reached(numbers)} {_MEANING[numbers.metric.name]}{_baseline(numbers)}"


def _baseline(numbers: Numbers) -> str:
    """Return what an accuracy must be compared with."""
    if numbers.run.kind != "classes":
        return ""
    sites = numbers.run.sites
    pooled = sites[sites["site"] == POOLED]
    share = (pooled["most_common"] / pooled["rows"]).mean()
    return f" Always naming the most common class would reach {share:.3f}."


def _reached(numbers: Numbers) -> str:
    count, terms, label = len(numbers.sites), _terms(numbers), numbers.metric.label
    run = [arm for arm in numbers.arms if numbers.was_run(arm, numbers.private)]
    means = {arm: numbers.of("mean", numbers.private, arm).text() for arm in run}
    if "federated" not in means:
        reached = (f"{arm} reaches {mean}" for arm, mean in means.items())
        return f"The federated arm was not run. By {label}, {terms}: {'; '.join(reached)}."
    many = f"the {count} sites" if count > 1 else "the only site"
    return f"Without a record leaving its site, {many} together reach {_an(label)} of {means['federated']} {terms}."


def _an(label: str) -> str:
    return f"an {label}" if label[0] in "aAR" else f"a {label}"


def _terms(numbers: Numbers) -> str:
    if not numbers.private:
        return "with no privacy guarantee"
    promised = numbers.run.epsilon(promised_arm(numbers.run))
    return f"with {epsilons(promised)}{f' for each {_protected(numbers.run)}' if promised else ''}"


def _protected(run: Run) -> str:
    return CLAIMS[run.ledger["unit"]].protected


def _against_pool(numbers: Numbers) -> str:
    if "centralized" not in numbers.arms:
        return "How it compares with pooling all records cannot be told: the centralized arm was not run."
    pool = numbers.of("mean", numbers.private, "centralized")
    if not numbers.was_run("centralized", numbers.private):
        exact = numbers.of("mean", False, "centralized")
        return (
            f"A model trained on all records in one place, without privacy, has {_an(numbers.metric.label)} of "
            f"{exact.text()}. There is none with privacy to compare with: pooling leaves no {_protected(numbers.run)} "
            "to protect."
        )
    same = " under the same epsilon" if numbers.private else ""
    change = numbers.of("difference", numbers.private, "federated")
    size = change.text(signed=True)
    said = {
        "higher": f"The federated model is better by {size}.",
        "lower": f"The federated model is worse: the difference is {size}.",
        SAME: f"The federated model's difference to that, {size}, is {SAME} from zero.",
        "": f"The federated model's difference to that is {size}; {_unproven(numbers.run)}.",
    }
    reached = f"{_an(numbers.metric.label)} of {pool.text()}"
    return f"A model trained on all records in one place{same} has {reached}. {said[change.verdict]}"


def _cost(numbers: Numbers) -> str:
    change = numbers.cost()
    said = {
        "higher": ": higher, so no cost is visible",
        "lower": ": privacy lowers it",
        SAME: f", {SAME} from zero",
        "": f"; {_unproven(numbers.run)}",
    }
    return (
        f"Compared with the same federated training without noise, the change in {numbers.metric.label} at "
        f"{epsilons(numbers.run.epsilon('federated'))} is {change.text(signed=True)}{said[change.verdict]}."
    )


def _unproven(run: Run) -> str:
    missing = "one seed gives no interval" if run.scenario.seeds == 1 else "there is no interval"
    return f"{missing}, so it may be chance"


def _joining(numbers: Numbers) -> str:
    if "local" not in numbers.arms:
        return "Which site gains by joining cannot be told: the local arm, each site alone, was not run."
    private = numbers.gain_kinds[-1]
    gains = {site: numbers.of("gain", private, "federated", site=site) for site in numbers.sites}
    said = [_clear(gains, "higher", "gain"), _clear(gains, "lower", "lose"), _unclear(gains, numbers.run)]
    overall = numbers.of("gain", private, "federated")
    verdict = {"": "", SAME: f", {SAME} from zero"}.get(overall.verdict, f", {overall.verdict} than zero")
    same = " at the same epsilon" if private else ", both without privacy" if numbers.private else ""
    return (
        f"Compared with training alone{same}, {'; '.join(filter(None, said))}. "
        f"Over all sites together the change in {numbers.metric.label} is {overall.text(signed=True)}{verdict}."
    )


def _clear(gains: dict[str, Estimate], verdict: str, verb: str) -> str:
    """Return which sites gain, or lose, and how much; nothing if none does."""
    clear = [
        f"{site} ({gain.value(signed=True)}, 95 % interval {gain.bounds(signed=True)})"
        for site, gain in gains.items()
        if gain.verdict == verdict
    ]
    return f"{listed(clear)} {verb}{'s' if len(clear) == 1 else ''}" if clear else ""


def _unclear(gains: dict[str, Estimate], run: Run) -> str:
    """Return of which sites neither can be said; nothing if there are none."""
    sites = [site for site, gain in gains.items() if gain.verdict in ("", SAME)]
    few = "one seed" if run.scenario.seeds == 1 else "these seeds and test rows"
    if not sites:
        return ""
    if len(sites) == len(gains):
        return f"for none of the sites can a gain or loss be told apart from chance with {few}"
    which = listed(sites) if len(sites) <= FEW_NAMES else f"the other {len(sites)} sites"
    return f"for {which} a gain or loss cannot be told apart from chance with {few}"


def _promise(run: Run) -> str:
    if not run.ledger["trainings"]:
        return "This run gives no privacy guarantee."
    promised = run.epsilon(promised_arm(run))
    if not promised:
        return "Nothing was released under privacy: the first private round would already have exceeded the budget."
    weak = f" An epsilon above {WEAK:g} is a weak formal guarantee." if max(promised.values()) > WEAK else ""
    return (
        f"A deployment that trains once like this, with secret seeds, promises one {_protected(run)} "
        f"{epsilons(promised)} at delta {run.ledger['delta']:g}{_but(run)}.{weak} The privacy statement below says "
        "what that covers and what it does not."
    )


def _but(run: Run) -> str:
    return ", but not for preprocessing: ranges were taken from the records" if run.ledger["ranges_fitted"] else ""
