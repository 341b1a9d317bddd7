"""The privacy statement of a run: what is promised to whom, by what, and what is not.

It is computed from the ledger, which holds what ran; the scenario only holds what was asked for.
"""

import itertools
import math
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any

from fedsim import figures
from fedsim.data.persons import Persons
from fedsim.privacy.accounting import HOPELESS, Segment, composed
from fedsim.privacy.accounting import epsilon as epsilon_of
from fedsim.privacy.ledger import charged_together
from fedsim.privacy.promise import Pairs, Promise, Training, entries_by_site, epsilon_by_site, most_spent, random_of
from fedsim.privacy.tiers import WEAK
from fedsim.privacy.unit import Protected, Unit
from fedsim.privacy.units import released_in, unit_of
from fedsim.report.references.words import UNPROTECTED, references_of
from fedsim.results.evaluation import TOGETHER
from fedsim.results.run_directory import Run
from fedsim.scenario.unit_facts import NO_UNIT

FEW_NAMES = 5  # that a sentence can hold
_SECURE = (
    "In a federated training the server learns the sum of the sites' weighted changes in a round and the list of sites "
    "that answered, and no site's change: each is masked with keys that the sites agree on and that are new in every "
    "round (Bonawitz et al. 2017, without signatures). {who} of a round's sites must answer to "
    "the end; of fewer, nothing is revealed. This presumes a server and sites that keep to the protocol, and fewer "
    "than that many sites that pool what they know with the server. It hides no sum: where all other sites collude, "
    "the last one's change is what remains. The keys come from the operating system, not from the seed."
)
_FITTED = (
    "Not covered. The ranges by which the columns are scaled, and the categories, were taken from the records without "
    'noise (data.ranges = "from-data"): the model\'s inputs, and so what is released, depend on the least and the '
    "greatest value of every column, which are single records. Declare public ranges and run again for a guarantee "
    "that covers the whole way from record to model."
)
_REPRODUCIBLE = (
    "Reproducible: noise and batches come from a generator that the seed determines, so that the run can be repeated. "
    "Against somebody who knows the seed there is no guarantee, and this report prints it: what is stated holds for a "
    "deployment with secret seeds, not for the very models of this run."
)
_ARITHMETIC = "Continuous Gaussian noise in float32, not hardened against attacks on floating-point arithmetic."


def statement(run: Run, arm: str | None = None) -> Pairs:
    """Return the privacy statement as (term, definition) pairs, from what ran; a term may come several times.

    Args:
        run: The run.
        arm: The arm that is stated in full; by default that of ``promised_arm``.
    """
    if not run.ledger["trainings"]:
        return [*unit_of(NO_UNIT).done([]), *_secure(run), *_references(run)]
    if not _trainings(run):
        nothing = "Nothing was released: the first private round would already have exceeded the budget."
        return [("Guarantee", nothing), *_references(run)]

    unit = _unit(run)
    promise = unit.promise
    arm = arm or promised_arm(run)
    own = _trainings(run, arm)
    secret = random_of(own) == "secure"
    masked = run.scenario.secure_aggregation.on and arm == "federated"

    pairs = _claim(run, arm, own, promise)
    pairs.append(("Mechanism", promise.mechanism))
    pairs += unit.done(own)
    if run.ledger["ranges_fitted"]:
        pairs.append(("Preprocessing", _FITTED))

    pairs.append(("Released", promise.released["masked" if masked else arm]))
    pairs.append(("Trust model", promise.trust[arm] + ("" if secret else promise.seed)))
    pairs += _secure(run)
    pairs.append(("Tuning", _tuning(run, own)))
    pairs += _choice_of_round(run, promise)
    pairs += _repetition(run)
    pairs += [("Not covered", gap) for gap in promise.not_covered]
    pairs += _base_weights(run)
    pairs += _references(run)
    pairs.append(("Random numbers", promise.secure if secret else _REPRODUCIBLE))
    pairs.append(("Arithmetic", _ARITHMETIC))

    other_arms = {training["arm"] for training in _trainings(run)} - {arm}
    for other in sorted(other_arms):
        pairs.append(("Other arms", f"{other}: {unit.in_one_line(_trainings(run, other))}"))
    return pairs


def grouped(pairs: Pairs) -> list[tuple[str, list[str]]]:
    """Return a statement as (term, its definitions), where a term comes several times in a row."""
    return [(term, [text for _, text in own]) for term, own in itertools.groupby(pairs, itemgetter(0))]


def _references(run: Run) -> Pairs:
    """Return that nothing protects the models of scikit-learn beside the arms, where there are some."""
    return [("Not covered", UNPROTECTED)] if references_of(run) else []


def _base_weights(run: Run) -> Pairs:
    """Return that nothing is promised of the rows that a pre-trained model has seen before, where there is one."""
    base = run.manifest.get("base_weights")
    if base is None:
        return []
    text = (
        f"The weights that the model began with, from the file {base['file']} (SHA-256 {base['sha256'][:16]}...). They "
        "were trained elsewhere, and this statement promises nothing to the rows that they were trained on."
    )
    return [("Not covered", text)]


def _unit(run: Run) -> Unit:
    """Return the privacy unit of a run.

    Raises:
        Mistake: The ledger names one that there is not.
    """
    return unit_of(run.ledger["unit"])


def _secure(run: Run) -> Pairs:
    settings = run.scenario.secure_aggregation
    share = f"{figures.share(settings.threshold or 2 / 3)}, rounded up,"
    who = share if settings.drop_outs is None else f"All but {settings.drop_outs}"
    return [("Secure aggregation", _SECURE.format(who=who))] if settings.on else []


def promised_arm(run: Run) -> str:
    """Return the arm whose privacy is stated in full: the federated one, if it was trained privately."""
    trained = [training["arm"] for training in _trainings(run)]
    return "federated" if "federated" in trained or not trained else trained[0]


def epsilons(by_site: Mapping[str, float]) -> str:
    """Return what was spent in a few words: ``epsilon 0.54``, a range over the sites, or that nothing was released."""
    if not by_site:
        return "nothing released"
    least, most = figures.epsilon(min(by_site.values())), figures.epsilon(max(by_site.values()))
    return f"epsilon {most}" if least == most else f"epsilon {least} to {most} (by site)"


def weaknesses(run: Run) -> list[str]:
    """Return what weakens the claim, a sentence each, if anything does."""
    trainings = _trainings(run)
    if not trainings:
        return []
    most = max(most_spent(trainings).values())
    found = (
        [f"Epsilon {figures.epsilon(most)} is above {figures.setting(WEAK)}: a weak formal guarantee."]
        if most > WEAK
        else []
    )
    stopping = run.scenario.training.stopping
    if stopping and stopping.public_sites is None:
        found.append("The guarantee does not cover the choice of the round: figures without noise decided it.")
    if run.ledger["ranges_fitted"]:
        found.insert(0, "The guarantee does not cover preprocessing: ranges were taken from the records.")
    return found + _rows_of_one_person(run) + _loose_delta(run)


def _rows_of_one_person(run: Run) -> list[str]:
    """Return that rows are protected and not persons, where a person is known to have several."""
    counted = run.ledger.get("persons")
    if not counted or counted["most_rows"] < 2 or _unit(run).protects is not Protected.RECORD:
        return []
    return [Persons(**counted).caution]


def listed(names: list[str]) -> str:
    """Return names as in a sentence, ``a, b and c``; those after the first few are only counted."""
    rest = len(names) - FEW_NAMES
    items = [*names[:FEW_NAMES], f"{rest} more"] if rest > 0 else names
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _trainings(run: Run, arm: str | None = None) -> list[Training]:
    """Return the trainings, of all arms or of one, in which something was released under privacy."""
    return [training for training in run.ledger["trainings"] if training["entries"] and arm in (None, training["arm"])]


def _claim(run: Run, arm: str, own: list[Training], promise: Promise) -> Pairs:
    """Return what is claimed for whom, and how strong that is."""
    ledger = run.ledger
    delta = ledger["delta"]
    most = max(most_spent(own).values())
    seeds = f", the most over {len(own)} seeds" if len(own) > 1 else ""
    return [
        ("In plain words", _meaning(float(figures.epsilon(most)), delta, promise)),
        *(("Warning", weakness) for weakness in weaknesses(run)),
        ("Unit", promise.unit),
        *_persons(run),
        ("Neighbours", promise.neighbours[ledger["neighbours"]]),
        (
            "Epsilon",
            f"{epsilon_by_site(own)}; an upper bound for {_which(run)} {arm} training{seeds}. The budget was "
            f"{figures.setting(ledger['budget'])}; training stops before a round that would exceed it.",
        ),
        *_of_one_record(own),
        (
            "Delta",
            f"{figures.setting(delta)}: epsilon bounds the privacy loss but for a probability that may be somewhat "
            "larger than delta; e^epsilon times a probability, and delta more, bounds every probability "
            "without exception.",
        ),
        ("Accountant", f"{ledger['accountant']}. Composed over all steps of all rounds."),
    ]


def _persons(run: Run) -> Pairs:
    """Return how many persons the rows are of, where that is known."""
    counted = run.ledger.get("persons")
    return [("Persons", f"{Persons(**counted).said}.")] if counted else []


def _of_one_record(own: list[Training]) -> Pairs:
    """Return what the same releases promise one record, where the unit is more than that."""
    found = [value for training in own for value in training.get("record_epsilon", {}).values()]
    if not found:
        return []
    most = figures.epsilon(max(found))
    words = (
        f"{most}, against the same readers at the same delta: one record more or less changes its site's "
        "update into another one, which lies up to twice the clip away."
    )
    return [("Epsilon of one record", words)]


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


def _choice_of_round(run: Run, promise: Promise) -> Pairs:
    """Return whether epsilon covers that a round was chosen by validation figures, where one was."""
    training = run.scenario.training
    stopping = training.stopping
    if stopping is None:
        return []
    chosen = "which round's model is kept" if stopping.keep == "best" else ""
    ended = "when a training ends" if stopping.patience is not None else ""
    what = " and ".join(part for part in (ended, chosen) if part)
    if stopping.public_sites is None:
        words = (
            f"Not covered. Figures of every round's model on validation records decided {what}, and they are computed "
            "without noise. No epsilon here covers the records that are validated on: that one model is there and not "
            "another tells something of them. Declare sites whose rows are public (training.stopping.public_sites) for "
            "a choice that needs no other records."
        )
    else:
        sites = listed(stopping.public_sites)
        words = (
            f"Made on rows that are declared public. Figures of every round's model on the validation records of "
            f"{sites} alone decided {what}. Whatever this statement promises a {promise.protected} elsewhere, it "
            "promises with the choice as well: the choice is computed from models that it covers already, and from "
            f"these rows. That the rows of {sites} are public is the scenario's declaration (training.stopping."
            "public_sites); nothing here checks it, and no epsilon covers what the choice tells of them."
        )
    words += " All rounds that ran are charged, those after the round that is kept as well."
    if stopping.patience is not None:
        words += (
            f" The noise was set for all {training.rounds} rounds. The epsilon above counts those that ran, and how "
            "many those are was decided on the way: it tells what was spent, and is no promise that was made "
            f"beforehand. That promise is the budget, {figures.setting(run.ledger['budget'])}."
        )
    return [("Choice of the round", words)]


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
    spent = []
    for training in own:
        for entries in entries_by_site(training).values():
            spent.append(_spent(entries, times))
    return _most(run, spent)


def _all_together(run: Run, trainings: list[Training]) -> str:
    """Return the epsilon of all of some trainings for a record of the site where that is largest; the pool has all."""
    of_all: list[Mapping[str, Any]] = []
    by_site: dict[str, list[Mapping[str, Any]]] = {}
    for training in trainings:
        for entry in training["entries"]:
            if charged_together(training):
                of_all.append(entry)
            else:
                by_site.setdefault(entry["site"], []).append(entry)

    # A record of a site is in the pool as well, whatever the site is called.
    spent = [_spent([*of_all, *own]) for own in by_site.values()]
    return _most(run, spent or [_spent(of_all)])


def _spent(entries: Iterable[Mapping[str, Any]], times: int = 1) -> tuple[Segment, ...]:
    """Compose entries of the ledger, so many times over."""
    return composed((released_in(entry).segment() for entry in entries), times)


def _most(run: Run, spent: Iterable[tuple[Segment, ...]]) -> str:
    """Return the largest epsilon of several parties' releases."""
    delta = run.ledger["delta"]
    neighbours = run.ledger["neighbours"]
    most = max(epsilon_of(segments, delta, neighbours) for segments in set(spent))
    return f"an epsilon above {figures.setting(HOPELESS)}" if math.isinf(most) else f"epsilon {figures.epsilon(most)}"


def _meaning(epsilon: float, delta: float, promise: Promise) -> str:
    """Return what epsilon bounds, and the ceiling it puts on any attacker who asks whether somebody took part."""
    factor = math.exp(min(epsilon, 700.0))  # e^700 is near the largest float
    advantage = math.tanh(epsilon / 2) + 2 * delta / (factor + 1)  # (e^epsilon - 1 + 2 delta) / (e^epsilon + 1)
    right = min(100.0, math.ceil(5000 * (1 + advantage)) / 100)
    times = "more than a million" if factor > 1e6 else f"about {factor:,.0f}" if factor > 100 else f"about {factor:.3g}"
    size = ", a loose bound" if factor > 100 else ""
    return (
        f"Whether or not one {promise.protected} is used, {promise.sent} at most e^epsilon times as likely, and "
        f"delta more. At epsilon {figures.epsilon(epsilon)} that is a factor of {times}{size}. Somebody who sees "
        f"all that and must guess, at even odds, whether the {promise.protected} was used, is right at most "
        f"{right:.2f} % of the time (50 % is guessing). These are ceilings that are proven for every attack, "
        "not forecasts of one."
    )


def _loose_delta(run: Run) -> list[str]:
    delta, rows = run.ledger["delta"], _training_rows(run)
    whose = "row"
    counted = run.ledger.get("persons")
    if counted and _unit(run).protects is Protected.PERSON:
        split = run.scenario.split
        rows = {site: persons * (1 - split.test - split.validation) for site, persons in counted["of_sites"].items()}
        whose = "person"
    if _unit(run).protects is Protected.SITE:
        sites = run.site_count
        loose = delta * sites >= 1
        return [f"Delta {figures.setting(delta)} is not below one over the number of sites, {sites}."] if loose else []
    if promised_arm(run) == "centralized":
        rows = {"the pool": sum(rows.values())}
    many = "training rows" if whose == "row" else "persons to train on"
    small = [f"{site} (about {count:.0f} {many})" for site, count in rows.items() if delta * count >= 1]
    unseen = []
    if whose == "row" and promised_arm(run) != "centralized" and len(rows) < run.site_count:
        unseen.append(
            f"Whether delta is below one over a site's rows was looked at for the {len(rows)} of the {run.site_count} "
            "sites that were tested."
        )
    if not small:
        return unseen
    return [
        *unseen,
        f"Delta {figures.setting(delta)} is not below one over the number of {whose}s at {listed(small)}: "
        f"publishing a random {'record as it is' if whose == 'row' else 'person as they are'} would satisfy such a "
        "delta.",
    ]


def _training_rows(run: Run) -> dict[str, float]:
    """Return {site: about how many rows it trains on}, estimated from its test rows and the shares of the split."""
    split = run.scenario.split
    inside = run.sites[~run.sites["site"].isin(TOGETHER)]
    tested = inside.groupby("site", sort=False)["rows"].mean()
    return {str(site): float(rows) / split.test * (1 - split.test - split.validation) for site, rows in tested.items()}
