"""The privacy statement of a run: what is promised to whom, by what, and what is not.

It is computed from the ledger, which holds what ran; the scenario only holds what was asked for.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from fedsim.evaluation import POOLED
from fedsim.privacy import accounting
from fedsim.privacy.accounting import Segment
from fedsim.privacy.tiers import WEAK
from fedsim.results import Run, most_spent

Pairs = list[tuple[str, str]]
Training = Mapping[str, Any]  # one of the ledger's: arm, seed, epsilon {site: value}, entries

_POOL = "pooled"  # whose releases are of every site's records
FEW_NAMES = 5  # that a sentence can hold
_NOT_PRIVATE = (
    ("Guarantee", "This run gives no privacy guarantee: nothing was clipped and no noise was added."),
    ("Released", "After each round every site sends its exact model and its public weight. Models like these can give "
     "away records they were trained on; keeping the records at home does not prevent that."),
    ("To get one", 'Set privacy.unit = "record" and a budget in the scenario, and run it again.'),
)  # fmt: skip
_UNITS = {"record": "One record: one row of one site. Not a person with several rows, and not a whole site."}
_NEIGHBOURS = {
    "add-or-remove-one": "Two data sets of a site are neighbours if one of them has one record more and they are "
    "otherwise equal (add or remove one).",
    "replace-one": "Two data sets of a site are neighbours if one record of them differs and they are otherwise equal "
    "(replace one).",
}
_RELEASED = {
    "federated": "After each round every site sends its model as its noisy steps left it, its public weight (the "
    "denominator above) and the public settings of its mechanism. No row count, no metric, no gradient. A site that "
    "fails sends the kind of its error, and is charged as if it had answered.",
    "centralized": "The model as the noisy steps on the pooled records left it, after each round.",
    "local": "Nothing leaves a site unless it hands its model on; the claim is for its model after every round.",
}
_TRUST = {
    "federated": "Each site clips and adds the noise itself, before anything leaves it, so whoever sees what it sends "
    "need not be trusted: the server, the other sites, the readers of the model. Presumed are a site that follows the "
    "protocol, a server that asks for the rounds and the noise stated here (a site does not check that), and a noise "
    "seed that nobody but the site knows.",
    "centralized": "Whoever holds the pool sees every record and adds the noise: a trusted pool holder is presumed.",
    "local": "Only the site itself is trusted: it adds the noise to its own training.",
}
_NOT_COVERED = (
    "The figures in this report: validation and test metrics, row counts and numbers of positives are computed from "
    "records without noise.",
    "Choices made by looking at results that are not charged above: tuning of hyperparameters, choosing among seeds, "
    "arms or strategies.",
    "Splitting rows into training, validation and test rows: the split looks at the classes or the times of a site's "
    "rows, so one record more can move others. So does a partition that deals rows out to sites.",
    "Repetition: the epsilon holds for one training of one arm under one seed, as it would be deployed. The report "
    "repeats the training for each seed and arm, with and without privacy, on the same records; whoever gets several "
    "of these models, or one of an arm without privacy, learns more.",
    "A person with records at two sites: each site protects its own record, and the two epsilons add up.",
    "The centralized arm presumes that somebody may be trusted with the pooled records.",
    "Whether a site answered in a round, and how long it took.",
    "The other files of the run directory: checkpoints/ holds the models of the arms without privacy, too. Counts in "
    "this report can be small cells, such as one healthy patient. Check both before handing them on.",
)
_FITTED = (
    "Not covered. The ranges by which the columns are scaled, and the categories, were taken from the records without "
    'noise (data.ranges = "from-data"): the model\'s inputs, and so what is released, depend on the least and the '
    "greatest value of every column, which are single records. Declare public ranges and run again for a guarantee "
    "that covers the whole way from record to model."
)
_PRESUMED = (
    ("Random numbers", "Noise and batches come from a reproducible generator that the seed determines, so that the "
     "run can be repeated. Against somebody who knows the seed there is no guarantee, and this report prints it: what "
     "is stated holds for a deployment with secret seeds, not for the very models of this run."),
    ("Arithmetic", "Continuous Gaussian noise in float32, not hardened against attacks on floating-point arithmetic."),
)  # fmt: skip


def statement(run: Run) -> Pairs:
    """Return the privacy statement as (term, definition) pairs, from what ran; a term may come several times."""
    if not run.ledger["trainings"]:
        return list(_NOT_PRIVATE)
    if not _trainings(run):
        return [("Guarantee", "Nothing was released: the first private round would already have exceeded the budget.")]
    arm = promised_arm(run)
    own = _trainings(run, arm)
    others = sorted({training["arm"] for training in _trainings(run)} - {arm})
    return [
        *_claim(run, arm, own),
        *_mechanism(own),
        *((("Preprocessing", _FITTED),) if run.ledger["ranges_fitted"] else ()),
        ("Released", _RELEASED[arm]),
        ("Trust model", _TRUST[arm]),
        ("Tuning", _tuning(run, own)),
        *_repetition(run),
        *(("Not covered", gap) for gap in _NOT_COVERED),
        *_PRESUMED,
        *(("Other arms", f"{other}: {_in_one_line(_trainings(run, other))}") for other in others),
    ]


def promised_arm(run: Run) -> str:
    """Return the arm whose privacy is stated in full: the federated one, if it was trained privately."""
    trained = [training["arm"] for training in _trainings(run)]
    return "federated" if "federated" in trained or not trained else trained[0]


def epsilons(by_site: Mapping[str, float]) -> str:
    """Return what was spent in a few words: ``epsilon 0.54``, a range over the sites, or that nothing was released."""
    if not by_site:
        return "nothing released"
    least, most = _up(min(by_site.values())), _up(max(by_site.values()))
    return f"epsilon {most}" if least == most else f"epsilon {least} to {most} (by site)"


def weaknesses(run: Run) -> list[str]:
    """Return what weakens the claim, a sentence each, if anything does."""
    trainings = _trainings(run)
    if not trainings:
        return []
    most = max(most_spent(trainings).values())
    found = [f"Epsilon {_up(most)} is above {WEAK:g}: a weak formal guarantee."] if most > WEAK else []
    if run.ledger["ranges_fitted"]:
        found.insert(0, "The guarantee does not cover preprocessing: ranges were taken from the records.")
    return found + _loose_delta(run)


def listed(names: list[str]) -> str:
    """Return names as in a sentence, ``a, b and c``; those after the first few are only counted."""
    rest = len(names) - FEW_NAMES
    items = [*names[:FEW_NAMES], f"{rest} more"] if rest > 0 else names
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _trainings(run: Run, arm: str | None = None) -> list[Training]:
    """Return the trainings, of all arms or of one, in which something was released under privacy."""
    return [training for training in run.ledger["trainings"] if training["entries"] and arm in (None, training["arm"])]


def _claim(run: Run, arm: str, own: list[Training]) -> Pairs:
    """Return what is claimed for whom, and how strong that is."""
    ledger, delta = run.ledger, run.ledger["delta"]
    seeds = f", the most over {len(own)} seeds" if len(own) > 1 else ""
    return [
        ("In plain words", _meaning(float(_up(max(most_spent(own).values()))), delta)),
        *(("Warning", weakness) for weakness in weaknesses(run)),
        ("Unit", _UNITS[ledger["unit"]]),
        ("Neighbours", _NEIGHBOURS[ledger["neighbours"]]),
        ("Epsilon", f"{_epsilon_by_site(own)}; an upper bound for {_which(run)} {arm} training{seeds}. The budget was "
         f"{ledger['budget']:g}; training stops before a round that would exceed it."),
        ("Delta", f"{delta:g}: the bound may fail with at most about this probability."),
        ("Accountant", f"{ledger['accountant']}. Composed over all steps of all rounds."),
    ]  # fmt: skip


def _which(run: Run) -> str:
    """Return ``one``, or how many trainings the epsilon is for, where choosing among them is charged."""
    tuning = run.ledger["tuning"]
    return f"{tuning['runs']} trainings together, each like this" if tuning["charged"] else "one"


def _tuning(run: Run, own: list[Training]) -> str:
    """Return what was chosen by looking at trainings on these records, and whether epsilon covers that."""
    runs, charged = run.ledger["tuning"]["runs"], run.ledger["tuning"]["charged"]
    if runs is None:
        return (
            "Not declared. By how many trainings on these records the settings were chosen is not known, and no "
            "epsilon here covers that choice; privacy.tuning declares it."
        )
    if runs == 1:
        return "Declared: no setting was chosen by looking at a training on these records."
    if charged:
        return (
            f"Charged. The settings are chosen among {runs} trainings on these records, and the epsilon above is that "
            f"of all {runs} together (composition), so that it covers the choice. Presumed is that none of them "
            "released more than this one: the sampling rate, the noise multiplier and the steps are those stated here, "
            f"other settings may differ. One of them alone has {_each_alone(run, own, 1)}. The scores they are chosen "
            "by are computed on validation rows without noise: records that are validated on are not covered."
        )
    return (
        f"Declared and not charged: the settings were chosen among {runs} trainings on these records, this one "
        f"included, and the epsilon above does not cover that choice. If each of them was private like this one, "
        f"all {runs} together have {_each_alone(run, own, runs)} at the same delta; one without noise is covered by "
        "nothing."
    )


def _repetition(run: Run) -> Pairs:
    """Return what all private trainings of the run come to together, if there are several."""
    trainings = _trainings(run)
    if len(trainings) == 1:
        return []
    text = (
        f"All {len(trainings)} private trainings of this run together, every arm and seed: "
        f"{_all_together(run, trainings)} at the same delta, for a record that was trained on in each, against "
        "somebody who gets all that they released."
    )
    return [("Repetition", text)]


def _each_alone(run: Run, own: list[Training], times: int) -> str:
    """Return the epsilon of one of some trainings, so many times over: of the costliest, at its costliest site."""
    spent = [_segments([entry for entry in one["entries"] if entry["site"] == site], times)
             for one in own for site in one["epsilon"]]  # fmt: skip
    return _most(run, spent)


def _all_together(run: Run, trainings: list[Training]) -> str:
    """Return the epsilon of all of some trainings for a record of the site where that is largest; the pool has all."""
    entries = [entry for one in trainings for entry in one["entries"]]
    sites = dict.fromkeys(entry["site"] for entry in entries if entry["site"] != _POOL) or (_POOL,)
    return _most(run, [_segments([one for one in entries if one["site"] in (site, _POOL)], 1) for site in sites])


def _segments(entries: list[Mapping[str, Any]], times: int) -> tuple[Segment, ...]:
    steps: Counter[tuple[float, float]] = Counter()
    for did in (entry["mechanism"] for entry in entries):
        steps[did["sampling_rate"], did["noise_multiplier"]] += times * did["steps"]
    return tuple(Segment(rate, noise, count) for (rate, noise), count in sorted(steps.items()))


def _most(run: Run, released: Iterable[tuple[Segment, ...]]) -> str:
    delta, neighbours = run.ledger["delta"], run.ledger["neighbours"]
    most = max(accounting.epsilon(segments, delta, neighbours) for segments in set(released))
    return f"an epsilon above {accounting.HOPELESS:g}" if math.isinf(most) else f"epsilon {_up(most)}"


def _meaning(epsilon: float, delta: float) -> str:
    """Return what epsilon bounds, and the ceiling it puts on any attacker who asks whether a record was used."""
    factor = math.exp(min(epsilon, 700.0))  # e^700 is near the largest float
    advantage = math.tanh(epsilon / 2) + 2 * delta / (factor + 1)  # (e^epsilon - 1 + 2 delta) / (e^epsilon + 1)
    right = min(100.0, math.ceil(5000 * (1 + advantage)) / 100)
    times = "more than a million" if factor > 1e6 else f"about {factor:,.0f}" if factor > 100 else f"about {factor:.3g}"
    size = ", a loose bound" if factor > 100 else ""
    return (
        "Whether or not one record is used, whatever a site sends is at most e^epsilon times as likely, apart from a "
        f"chance of delta. At epsilon {epsilon:.2f} that is a factor of {times}{size}. Somebody who sees all that was "
        f"sent and must guess, at even odds, whether the record was used, is right at most {right:.2f} % of the time "
        "(50 % is guessing). These are ceilings that are proven for every attack, not forecasts of one."
    )


def _loose_delta(run: Run) -> list[str]:
    delta, rows = run.ledger["delta"], _training_rows(run)
    if promised_arm(run) == "centralized":
        rows = {"the pool": sum(rows.values())}
    small = [f"{site} (about {count:.0f} training rows)" for site, count in rows.items() if delta * count >= 1]
    if not small:
        return []
    return [
        f"Delta {delta:g} is not below one over the number of rows at {listed(small)}: publishing a random record as "
        "it is would satisfy such a delta."
    ]


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


def _in_one_line(own: list[Training]) -> str:
    return (
        f"epsilon {_epsilon_by_site(own)}; sampling rate {_each(own, 'sampling_rate')}; "
        f"sigma {_each(own, 'noise_multiplier')}; clip {_each(own, 'clip')}; "
        f"denominator {_each(own, 'expected_batch')}; {_steps(own)}."
    )


def _epsilon_by_site(own: list[Training]) -> str:
    return _by_site({site: [_up(value)] for site, value in most_spent(own).items()})


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


def _up(epsilon: float) -> str:
    """Return an upper bound with two digits, rounded up: it must stay an upper bound."""
    return f"{math.ceil(round(epsilon * 100, 6)) / 100:.2f}"
