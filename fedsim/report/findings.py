"""Put the results of a run into sentences: how good the models are, who gains, what privacy costs and promises.

The interval of a difference decides whether two numbers differ; without an interval there is no verdict. Each sentence
names the question that its interval answers: on these records, or at institutions like these.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import pandas as pd

from fedsim import figures
from fedsim.privacy.tiers import WEAK
from fedsim.privacy.units import unit_of
from fedsim.report.base_findings import base_sentences
from fedsim.report.group_findings import treatment
from fedsim.report.statement import FEW_NAMES, Pairs, epsilons, listed, promised_arm
from fedsim.results.comparison import AGREE, ELSEWHERE, HERE, ONE_SEED, SAME, TWO_SEEDS, state
from fedsim.results.estimate import Estimate
from fedsim.results.evaluation import POOLED, TOGETHER
from fedsim.results.run_directory import Run
from fedsim.scenario.schema import Arm

_MOST_SITES = 40  # that are shown one by one
_FIRST = "What do the figures say?"
_POOL = "Would pooling all records be better?"
_COST = "What does privacy cost?"
_BASE = "Is that better than no model?"
_JOIN = "Which site gains by joining?"


def headline(run: Run) -> str:
    """Summarise the run in a few plain sentences; the first sums up the figures."""
    return " ".join(answer for _, answer in findings(run))


def findings(run: Run) -> Pairs:
    """Answer the questions of a decision maker by the numbers: pairs of question and answer."""
    return answers(Numbers(run))


def in_short(run: Run) -> list[str]:
    """Return the answers that a terminal prints: summary, base rate, pool, cost of privacy, who gains.

    They don't say in each sentence that one or two seeds are too few for a verdict: the terminal says it
    once, below them.
    """
    numbers = Numbers(run, few_seeds_are_known=True)
    asked = {_FIRST, _BASE, _POOL, _COST, _JOIN}
    return [answer for question, answer in answers(numbers) if question in asked]


class Numbers:
    """Look up the figures of a run's comparison.

    Args:
        run: The run.
        few_seeds_are_known: Whether the reader is told elsewhere that there are too few seeds for a
            verdict; then no estimate gives it as the reason why it has no interval.

    Attributes:
        run: The run.
        metric: The headline of its kind of outcome.
        table: Its comparison, which is costly to make.
        private: Whether there are arms with privacy.
        kinds: The kinds of arms: without privacy (False), then with (True).
        gain_kinds: The kinds in which a site's gain by joining can be told, or all kinds if it can in none.
        arms: The arms that were run, in the order in which they are listed everywhere.
        sites: All sites.
        shown: The sites that are listed one by one: all, or the ones with the most test rows.
        pooled: Whether the headline has a pooled figure that differs from the first one.
    """

    def __init__(self, run: Run, few_seeds_are_known: bool = False) -> None:
        self.run = run
        self._known_reasons = (ONE_SEED, TWO_SEEDS) if few_seeds_are_known else ()
        self.metric = run.metrics[0]
        self.table = run.comparison
        keys = ("private", "arm", "metric", "site")
        self._rows = {tuple(row[key] for key in keys): row for row in self.table.to_dict("records")}
        self.private = any(private for private, *_ in self._rows)
        self.kinds = [kind for kind in (False, True) if any(private == kind for private, *_ in self._rows)]
        self.arms = [arm for arm in get_args(Arm) if self.kinds_of(arm)]
        self.gain_kinds = [kind for kind in self.kinds if self.was_run("local", kind)] or self.kinds
        self.sites = [str(site) for site in dict.fromkeys(run.sites["site"]) if site not in TOGETHER]
        self.shown = self._largest(run.sites)
        self.pooled = run.pooled_differs and self.metric.by_site

    def of(
        self,
        kind: Literal["mean", "difference", "gain"],
        private: bool,
        arm: str,
        metric: str = "",
        site: str = "",
        here: bool = False,
    ) -> Estimate:
        """Return a mean, a difference to the centralized arm or a gain over the local arm.

        Args:
            kind: Which of them.
            private: With privacy or without.
            arm: Of which arm.
            metric: Of which metric; by default the headline.
            site: At which site; by default the row that is spoken of first, for all sites.
            here: Whether the interval of a difference or gain answers HERE, else ELSEWHERE.
        """
        row = self._rows.get((private, arm, metric or self.metric.name, site or self.run.headline))
        if row is None:
            return Estimate(math.nan, math.nan, math.nan)
        start = f"{kind}_here_" if here else f"{kind}_"
        if kind == "mean":
            start = ""
        return Estimate(
            float(row[kind]),
            float(row[f"{start}low"]),
            float(row[f"{start}high"]),
            self._untold(str(row[f"{start}why"])),
        )

    def _untold(self, why: str) -> str:
        """Return the reason why there is no interval; nothing if the reader is told it elsewhere."""
        return "" if why in self._known_reasons else why

    def was_run(self, arm: str, private: bool) -> bool:
        """Whether an arm was run with privacy, or without: a unit need not have a meaning in every arm."""
        return (private, arm, self.metric.name, POOLED) in self._rows

    def kinds_of(self, arm: str) -> list[bool]:
        """Return the kinds in which an arm was run, without privacy first."""
        return [kind for kind in self.kinds if self.was_run(arm, kind)]

    def cost(self, here: bool = False, site: str = "") -> Estimate:
        """Return the change in the federated arm's headline that privacy brings, paired by seed; see ``of``."""
        sites = self.run.sites
        federated = (sites["arm"] == "federated") & (sites["site"] == (site or self.run.headline))
        by_seed = sites[federated].pivot(index="seed", columns="private", values=self.metric.name).astype(float)
        changes = by_seed[True] - by_seed[False]

        # On these records, the rows that seeds share are no fault, so nothing is corrected.
        overlap = 0.0 if here else self.run.overlap
        span = self.metric.high - self.metric.low
        stated = state(changes, overlap, (-span, span))
        return Estimate(stated.mean, stated.low, stated.high, self._untold(stated.why))

    def _largest(self, sites: pd.DataFrame) -> list[str]:
        rows = sites[~sites["site"].isin(TOGETHER)].groupby("site")["rows"].mean()
        largest = set(rows.sort_values(ascending=False, kind="stable").index[:_MOST_SITES])
        return [site for site in self.sites if site in largest]


def answers(numbers: Numbers) -> Pairs:
    """Return ``findings`` of the run these numbers are from."""
    pairs = []

    first = _first(numbers)
    if first:
        pairs.append((_FIRST, first))
    pairs.append(("How good is the model they train together?", _quality(numbers)))
    base = base_sentences(numbers.run)
    if base:
        pairs.append((_BASE, base))

    if "federated" in numbers.arms:
        pairs.append((_POOL, _against_pool(numbers)))
        if numbers.was_run("federated", private=True) and numbers.was_run("federated", private=False):
            pairs.append((_COST, _cost(numbers)))
        pairs.append((_JOIN, _joining(numbers)))

    groups = treatment(numbers.run, numbers.arms[0])
    if groups:
        pairs.append(("Are groups treated differently?", groups))

    pairs.append(("What is promised about privacy?", _promise(numbers.run)))
    return pairs


def _first(numbers: Numbers) -> str:
    """Sum up the comparison of the arms in a sentence; return nothing if there is nothing to compare."""
    run = numbers.run
    label = numbers.metric.label
    private = numbers.was_run("centralized", numbers.private)
    if "local" in numbers.arms:
        private = numbers.gain_kinds[-1]

    # The differences of the federated arm to the others.
    others: dict[str, Estimate] = {}
    if "federated" in numbers.arms and numbers.was_run("local", private):
        others["local"] = numbers.of("gain", private, "federated")
    if "federated" in numbers.arms and numbers.was_run("centralized", private):
        others["centralized"] = numbers.of("difference", private, "federated")
    if not others or math.isnan(numbers.of("mean", private, "federated").mean):
        return ""

    means = {arm: numbers.of("mean", private, arm).value() for arm in ("federated", *others)}
    reached = f"{label} {run.headline_place} is {listed([f'{mean} {arm}' for arm, mean in means.items()])}"
    terms = ""
    if numbers.private:
        terms = " with privacy" if private else " without privacy"
    where = run.asked
    verdicts = {arm: _than(arm, change) for arm, change in others.items() if change.verdict}

    if all(change.why == AGREE for change in others.values()):
        return f"No interval can be given{terms}, because {AGREE} in every difference: the {reached}."
    if not verdicts:
        why = next(iter(others.values())).why
        return f"Nobody can be said to gain or lose by this run{terms}: the {reached}{f', and {why}' if why else ''}."
    if len(verdicts) == len(others) and all(change.verdict == SAME for change in others.values()):
        nobody = "Nobody is seen to gain by joining here" if "local" in others else "Pooling is not seen to be better"
        if "local" in others and _some_site_gains(numbers, private):
            nobody = "Over all sites together no gain by joining is seen"
        equal = " = ".join(means)
        return f"{nobody}{terms}: {where}, {equal} within the 95 % intervals, and the {reached}."
    return f"{_upper(where)}, federated training{terms} is {' and '.join(verdicts.values())}: the {reached}."


def _than(arm: str, change: Estimate) -> str:
    other = {"local": "training alone", "centralized": "pooling all records"}[arm]
    word = {"higher": "better than", "lower": "worse than", SAME: f"{SAME} from"}[change.verdict]
    return f"{word} {other}"


def _some_site_gains(numbers: Numbers, private: bool) -> bool:
    for site in numbers.sites:
        for here in (True, False):
            if numbers.of("gain", private, "federated", site=site, here=here).verdict == "higher":
                return True
    return False


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]


def _quality(numbers: Numbers) -> str:
    metric = numbers.metric
    meaning = (metric.meaning_inside if numbers.pooled else "") or metric.meaning
    sentences = " ".join(sentence for sentence in (_reached(numbers), meaning) if sentence)
    return f"{sentences}{_baseline(numbers)}"


def _baseline(numbers: Numbers) -> str:
    """Return what older runs know of a base rate: the most common class of the test rows, of all or of each site."""
    if numbers.run.kind != "classes" or not numbers.run.measured.base_rates.empty:
        return ""  # runs with base rates say it in an answer of its own
    sites = numbers.run.sites
    pooled = sites[sites["site"] == POOLED]
    share = (pooled["most_common"] / pooled["rows"]).mean()
    sentence = f" Always naming the most common class would reach {figures.figure(share)}"
    if not numbers.run.pooled_differs:
        return f"{sentence}."

    inside = sites[sites["site"] == numbers.run.headline]
    share_inside = (inside["most_common"] / inside["rows"]).mean()
    return f"{sentence}, and always naming the most common class of the row's own site {figures.figure(share_inside)}."


def _absent(run: Run, arm: str) -> str:
    """Return why an arm has no figures."""
    return "failed" if any(one["arm"] == arm for one in run.failed) else "was not run"


def _reached(numbers: Numbers) -> str:
    run = numbers.run
    count = run.site_count
    terms = _terms(numbers)
    label = numbers.metric.label
    arms = [arm for arm in numbers.arms if numbers.was_run(arm, numbers.private)]
    means = {arm: numbers.of("mean", numbers.private, arm).text() for arm in arms}
    if "federated" not in means:
        reached = (f"{arm} reaches {mean}" for arm, mean in means.items())
        sentence = (
            f"The federated arm {_absent(run, 'federated')}. By {label} {run.headline_place}, {terms}: "
            f"{'; '.join(reached)}."
        )
    else:
        many = f"the {count} sites together reach" if count > 1 else "the only site reaches"
        sentence = (
            f"Without a record leaving its site, {many} {figures.with_article(label)} {run.headline_place} of "
            f"{means['federated']} {terms}."
        )
    return f"{sentence}{_pooled_means(numbers)}{_speaks_of(numbers)}"


def why_pooled(run: Run) -> str:
    """Say why figures are pooled over the sites, and what that means."""
    if run.from_before_inside:
        reason = "This run is older than the figures inside sites"
    else:
        label = run.metrics[0].label
        reason = f"At no site can test rows be compared with each other, so that no {label} inside sites is defined"
    return (
        f"{reason}: its figures are pooled over the sites, and so they also reward a model for telling the sites apart."
    )


def _pooled_means(numbers: Numbers) -> str:
    """Return the pooled figure, over the rows of all sites in one pot, and why it comes second."""
    run = numbers.run
    label = numbers.metric.label
    if run.headline == POOLED:
        return f" {why_pooled(run)}" if len(numbers.sites) > 1 else ""
    if not numbers.pooled:
        return ""
    arms = [arm for arm in numbers.arms if numbers.was_run(arm, numbers.private)]
    means = [f"{numbers.of('mean', numbers.private, arm, site=POOLED).value()} {arm}" for arm in arms]
    return f" Pooled over the sites, the {label} is {listed(means)}: this also rewards a model for telling sites apart."


def _speaks_of(numbers: Numbers) -> str:
    """Name the question that the intervals of the means answer; return nothing if there are no intervals."""
    run = numbers.run
    if not any(numbers.of("mean", numbers.private, arm).verdict for arm in numbers.arms):
        return ""
    if run.same_rows:
        return (
            " All seeds test the same rows, so intervals speak of training again on these records; what would happen "
            "at institutions like these cannot be told."
        )
    return " Intervals of such means speak of institutions like these, with another sample of records."


def _terms(numbers: Numbers) -> str:
    if not numbers.private:
        return "with no privacy guarantee"
    promised = numbers.run.epsilon(promised_arm(numbers.run))
    return f"with {epsilons(promised)}{f' for each {_protected(numbers.run)}' if promised else ''}"


def _protected(run: Run) -> str:
    return unit_of(run.ledger["unit"]).promise.protected


def _against_pool(numbers: Numbers) -> str:
    """Compare the federated model with one that is trained on all records in one place."""
    run = numbers.run
    private = numbers.private
    if "centralized" not in numbers.arms:
        absent = _absent(run, "centralized")
        return f"How it compares with pooling all records cannot be told: the centralized arm {absent}."
    pool = numbers.of("mean", private, "centralized")
    if not numbers.was_run("centralized", private):
        exact = numbers.of("mean", False, "centralized")
        return (
            "A model trained on all records in one place, without privacy, has "
            f"{figures.with_article(numbers.metric.label)} {run.headline_place} of {exact.text()}. There is none with "
            f"privacy to compare with: pooling leaves no {_protected(run)} to protect."
        )

    same = f" under the same {_spent_alike(run)}" if private else ""
    answer = _two_answers(
        numbers,
        numbers.of("difference", private, "federated", here=True),
        numbers.of("difference", private, "federated"),
        "the federated model's difference to that",
        {"higher": ": it is better", "lower": ": it is worse"},
    )
    pooled = ""
    if numbers.pooled:
        change = numbers.of("difference", private, "federated", site=POOLED, here=True)
        pooled = f" Pooled over the sites, the difference {HERE} is {change.text(signed=True)}."
    reached = f"{figures.with_article(numbers.metric.label)} {run.headline_place} of {pool.value()}"
    return f"A model trained on all records in one place{same} has {reached}. {answer}{pooled}"


def _cost(numbers: Numbers) -> str:
    """Compare the private federated training with the same training without noise."""
    sentences = _two_answers(
        numbers,
        numbers.cost(here=True),
        numbers.cost(),
        f"the change in {numbers.metric.label} {numbers.run.headline_place} that privacy brings at "
        f"{epsilons(numbers.run.epsilon('federated'))}, compared with the same federated training without noise,",
        {"higher": ": higher, so no cost is visible", "lower": ": privacy lowers it"},
    )
    if numbers.pooled:
        change = numbers.cost(here=True, site=POOLED)
        sentences += f" Pooled over the sites, the change {HERE} is {change.text(signed=True)}."
    return sentences


def _two_answers(numbers: Numbers, here: Estimate, elsewhere: Estimate, what: str, words: dict[str, str]) -> str:
    """State a difference in two sentences, each with the question that its interval answers."""
    first = f"{_upper(HERE)}, {what} is {here.text(signed=True)}{_judged(here, words)}."
    if numbers.run.same_rows:
        return f"{first} What it would be {ELSEWHERE} cannot be told, because all seeds test the same records."
    if not here.why and not here.verdict:
        return first
    if not elsewhere.verdict:
        return f"{first} What it would be {ELSEWHERE} cannot be told: {elsewhere.why}."
    bounds = elsewhere.bounds(signed=True)
    return f"{first} {_upper(ELSEWHERE)}, the 95 % interval is {bounds}{_judged(elsewhere, words)}."


def _judged(change: Estimate, words: dict[str, str]) -> str:
    """Return the verdict on a difference, to end its sentence."""
    if change.verdict == SAME:
        return f", {SAME} from zero"
    if change.why in (ONE_SEED, TWO_SEEDS):
        return ", so it may be chance"
    return words.get(change.verdict, "")


def _joining(numbers: Numbers) -> str:
    """Say which sites gain by joining, and what all sites together gain."""
    run = numbers.run
    if "local" not in numbers.arms:
        return f"Which site gains by joining cannot be told: the local arm, each site alone, {_absent(run, 'local')}."
    private = numbers.gain_kinds[-1]
    same = ""
    if numbers.private:
        same = f" at the same {_spent_alike(run)}" if private else ", both without privacy"

    # Site by site, for each of the two questions.
    here = _who_gains(numbers, private, here=True)
    sentences = [f"Compared with training alone{same}, {HERE} {here}."]
    elsewhere = _who_gains(numbers, private, here=False)
    if run.same_rows:
        sentences.append(f"Who would gain {ELSEWHERE} cannot be told, because all seeds test the same records.")
    elif elsewhere == here:
        sentences.append(f"{_upper(ELSEWHERE)}, that cannot be told either.")
    else:
        sentences.append(f"{_upper(ELSEWHERE)}, {elsewhere}.")

    # All sites together.
    words = {"higher": ", higher than zero", "lower": ", lower than zero"}
    overall = _two_answers(
        numbers,
        numbers.of("gain", private, "federated", here=True),
        numbers.of("gain", private, "federated"),
        f"the change in {numbers.metric.label} {run.headline_place} by joining",
        words,
    )
    sentences.append(overall)
    if numbers.pooled:
        change = numbers.of("gain", private, "federated", site=POOLED, here=True)
        sentences.append(f"Pooled over the sites, the change {HERE} is {change.text(signed=True)}.")
    return " ".join(sentences)


def _who_gains(numbers: Numbers, private: bool, here: bool) -> str:
    gains = {site: numbers.of("gain", private, "federated", site=site, here=here) for site in numbers.sites}
    parts = [_clear(gains, "higher", "gain"), _clear(gains, "lower", "lose"), _unclear(gains, numbers.run)]
    return "; ".join(part for part in parts if part)


def _clear(gains: dict[str, Estimate], verdict: str, verb: str) -> str:
    """Name the sites that gain, or lose, and how much; return nothing if none does."""
    clear = [
        f"{site} ({gain.value(signed=True)}, {gain.interval(signed=True)})"
        for site, gain in gains.items()
        if gain.verdict == verdict
    ]
    if not clear:
        return ""
    return f"{listed(clear)} {verb}{'s' if len(clear) == 1 else ''}"


def _unclear(gains: dict[str, Estimate], run: Run) -> str:
    """Name the sites of which neither can be said; return nothing if there are none."""
    agreed = [f"{site} ({gain.value(signed=True)})" for site, gain in gains.items() if gain.why == AGREE]
    sites = [site for site, gain in gains.items() if gain.verdict in ("", SAME) and gain.why != AGREE]

    parts = []
    if agreed:
        parts.append(f"{AGREE} on the change at {listed(agreed)}, so that a gain or loss has no interval there")
    few = {1: "one seed", 2: "two seeds"}.get(run.scenario.seeds, "these seeds and test rows")
    if sites and len(sites) == len(gains):
        parts.append(f"for none of the sites can a gain or loss be told apart from chance with {few}")
    elif sites:
        which = listed(sites) if len(sites) <= FEW_NAMES else f"the other {len(sites)} sites"
        parts.append(f"for {which} a gain or loss cannot be told apart from chance with {few}")
    return "; ".join(parts)


def _promise(run: Run) -> str:
    """State the guarantee of a deployment that trains once, or that there is none."""
    if not run.ledger["trainings"]:
        return "This run gives no privacy guarantee."
    promised = run.epsilon(promised_arm(run))
    if not promised:
        return "Nothing was released under privacy: the first private round would already have exceeded the budget."
    weak = (
        f" An epsilon above {figures.setting(WEAK)} is a weak formal guarantee."
        if max(promised.values()) > WEAK
        else ""
    )
    delta = figures.setting(run.ledger["delta"])
    return (
        f"A deployment that trains once like this, with secret seeds, promises one {_protected(run)} "
        f"{epsilons(promised)} at delta {delta}{_but(run)}.{weak} The privacy statement below says "
        "what that covers and what it does not."
    )


def _but(run: Run) -> str:
    return ", but not for preprocessing: ranges were taken from the records" if run.ledger["ranges_fitted"] else ""


def _spent_alike(run: Run) -> str:
    """Return what all private arms have in common: the epsilon they spent, or where they end early only the budget."""
    stopping = run.scenario.training.stopping
    return "budget" if stopping and stopping.patience is not None else "epsilon"


def rounds_kept(run: Run) -> list[str]:
    """Return which rounds' models were kept and how many rounds ran, a line for each arm; nothing without a choice."""
    training = run.scenario.training
    stopping = training.stopping
    by_arm: dict[tuple[str, bool], list[Mapping[str, Any]]] = {}
    for one in run.manifest.get("chosen_rounds", []):
        by_arm.setdefault((one["arm"], one["private"]), []).append(one)
    if stopping is None:
        return []

    lines = []
    for (arm, private), chosen in by_arm.items():
        kept = _from_to([one["kept_round"] for one in chosen])
        ran = _from_to([one["rounds"] for one in chosen])
        which = f"the model of round {kept} is kept, the {'best' if stopping.keep == 'best' else 'last'}"
        line = f"{arm.capitalize()}{', private' if private else ''}: {which} of {ran} that ran"
        stopped = sum(one["stopped"] for one in chosen)
        if stopped:
            who = "training" if len(chosen) == 1 else f"{stopped} of {len(chosen)} trainings"
            line += f"; {who} ended before round {training.rounds}, after {stopping.patience} without a gain"
        lines.append(f"{line}.")
    return lines


def _from_to(numbers: Sequence[int]) -> str:
    """Return ``7``, or ``4 to 9`` of several numbers."""
    least = min(numbers)
    most = max(numbers)
    return f"{least}" if least == most else f"{least} to {most}"


def answers_by_question(run: Run, here: Estimate, wide: Estimate, words: dict[str, str]) -> list[dict[str, str]]:
    """Return the intervals of a difference, each with its question and a verdict in these words."""
    questions = [(HERE, here)]
    if not run.same_rows:
        questions.append((run.asked, wide))

    answers = []
    for question, change in questions:
        if change.below():
            answers.append(
                {"question": question, "bounds": change.below(signed=True), "verdict": words[change.verdict]}
            )
    return answers
