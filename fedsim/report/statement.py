"""The privacy statement of a run: what is promised to whom, by what, and what is not.

It is computed from the ledger, which holds what ran; the scenario only holds what was asked for.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from fedsim.privacy import accounting
from fedsim.privacy.accounting import Segment
from fedsim.privacy.correlated import column_norm
from fedsim.privacy.ledger import SiteUpdate, charged_together, to_release
from fedsim.privacy.noise_shares import NoiseShare
from fedsim.privacy.tiers import WEAK
from fedsim.report.statement_words import CLAIMS, Claim
from fedsim.results.evaluation import TOGETHER
from fedsim.results.run_directory import Run, most_spent
from fedsim.scenario.schema import FEDERATED_UNITS

Pairs = list[tuple[str, str]]
Training = Mapping[str, Any]  # one of the ledger's: arm, seed, epsilon {site: value}, entries

FEW_NAMES = 5  # that a sentence can hold
_NOT_PRIVATE = (
    ("Guarantee", "This run gives no privacy guarantee: nothing was clipped and no noise was added."),
    ("Released", "After each round every site's exact model and its public weight, or the sum of them. Models like "
     "these can give away records they were trained on; keeping the records at home does not prevent that."),
    ("To get one", 'Set privacy.unit and a budget in the scenario, and run it again.'),
)  # fmt: skip
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


def statement(run: Run) -> Pairs:
    """Return the privacy statement as (term, definition) pairs, from what ran; a term may come several times."""
    if not run.ledger["trainings"]:
        return [*_NOT_PRIVATE, *_secure(run)]
    if not _trainings(run):
        return [("Guarantee", "Nothing was released: the first private round would already have exceeded the budget.")]
    arm, claim = promised_arm(run), CLAIMS[run.ledger["unit"]]
    own = _trainings(run, arm)
    secret = random_of(own) == "secure"
    others = sorted({training["arm"] for training in _trainings(run)} - {arm})
    return [
        *_claim(run, arm, own, claim),
        ("Mechanism", claim.mechanism),
        *_DONE[run.ledger["unit"]](own),
        *((("Preprocessing", _FITTED),) if run.ledger["ranges_fitted"] else ()),
        ("Released", claim.released["masked" if run.scenario.secure_aggregation.on and arm == "federated" else arm]),
        ("Trust model", claim.trust[arm] + ("" if secret else claim.seed)),
        *_secure(run),
        ("Tuning", _tuning(run, own)),
        *_repetition(run),
        *(("Not covered", gap) for gap in claim.not_covered),
        ("Random numbers", claim.secure if secret else _REPRODUCIBLE),
        ("Arithmetic", _ARITHMETIC),
        *(("Other arms", f"{other}: {_in_one_line(_trainings(run, other))}") for other in others),
    ]


def _secure(run: Run) -> Pairs:
    settings = run.scenario.secure_aggregation
    share = f"{settings.threshold or 2 / 3:.0%}, rounded up,"
    who = share if settings.drop_outs is None else f"All but {settings.drop_outs}"
    return [("Secure aggregation", _SECURE.format(who=who))] if settings.on else []


def promised_arm(run: Run) -> str:
    """Return the arm whose privacy is stated in full: the federated one, if it was trained privately."""
    trained = [training["arm"] for training in _trainings(run)]
    return "federated" if "federated" in trained or not trained else trained[0]


def random_of(trainings: Iterable[Training]) -> str:
    """Return the kind of some trainings' randomness; ``secure`` only if it was so in every step of each."""
    entries = (entry for training in trainings for entry in training["entries"])
    return "secure" if {entry["mechanism"].get("rng") for entry in entries} == {"secure"} else "reproducible"


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


def _claim(run: Run, arm: str, own: list[Training], claim: Claim) -> Pairs:
    """Return what is claimed for whom, and how strong that is."""
    ledger, delta = run.ledger, run.ledger["delta"]
    seeds = f", the most over {len(own)} seeds" if len(own) > 1 else ""
    return [
        ("In plain words", _meaning(float(_up(max(most_spent(own).values()))), delta, claim)),
        *(("Warning", weakness) for weakness in weaknesses(run)),
        ("Unit", claim.unit),
        ("Neighbours", claim.neighbours[ledger["neighbours"]]),
        ("Epsilon", f"{_epsilon_by_site(own)}; an upper bound for {_which(run)} {arm} training{seeds}. The budget was "
         f"{ledger['budget']:g}; training stops before a round that would exceed it."),
        *_of_one_record(own),
        ("Delta", f"{delta:g}: epsilon bounds the privacy loss but for a probability that may be somewhat larger than "
         "delta; e^epsilon times a probability, and delta more, bounds every probability without exception."),
        ("Accountant", f"{ledger['accountant']}. Composed over all steps of all rounds."),
    ]  # fmt: skip


def _of_one_record(own: list[Training]) -> Pairs:
    """Return what the same releases promise one record, where the unit is more than that."""
    found = [value for training in own for value in training.get("record_epsilon", {}).values()]
    if not found:
        return []
    return [
        ("Epsilon of one record", f"{_up(max(found))}, against the same readers at the same delta: one record more or "
         "less changes its site's update into another one, which lies up to twice the clip away.")
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
    of_all: list[Mapping[str, Any]] = []
    by_site: dict[str, list[Mapping[str, Any]]] = {}
    for training in trainings:
        for entry in training["entries"]:
            if charged_together(training):
                of_all.append(entry)
            else:
                by_site.setdefault(entry["site"], []).append(entry)

    # A record of a site is in the pool as well, whatever the site is called.
    released = [_segments([*of_all, *own], 1) for own in by_site.values()]
    return _most(run, released or [_segments(of_all, 1)])


def _segments(entries: list[Mapping[str, Any]], times: int) -> tuple[Segment, ...]:
    steps: Counter[tuple[float, float]] = Counter()
    for one in (to_release(entry["mechanism"]).segment() for entry in entries):
        steps[one.sampling_rate, one.noise_multiplier] += times * one.steps
    return tuple(Segment(rate, noise, count) for (rate, noise), count in sorted(steps.items()))


def _most(run: Run, released: Iterable[tuple[Segment, ...]]) -> str:
    delta, neighbours = run.ledger["delta"], run.ledger["neighbours"]
    most = max(accounting.epsilon(segments, delta, neighbours) for segments in set(released))
    return f"an epsilon above {accounting.HOPELESS:g}" if math.isinf(most) else f"epsilon {_up(most)}"


def _meaning(epsilon: float, delta: float, claim: Claim) -> str:
    """Return what epsilon bounds, and the ceiling it puts on any attacker who asks whether somebody took part."""
    factor = math.exp(min(epsilon, 700.0))  # e^700 is near the largest float
    advantage = math.tanh(epsilon / 2) + 2 * delta / (factor + 1)  # (e^epsilon - 1 + 2 delta) / (e^epsilon + 1)
    right = min(100.0, math.ceil(5000 * (1 + advantage)) / 100)
    times = "more than a million" if factor > 1e6 else f"about {factor:,.0f}" if factor > 100 else f"about {factor:.3g}"
    size = ", a loose bound" if factor > 100 else ""
    return (
        f"Whether or not one {claim.protected} is used, {claim.sent} at most e^epsilon times as likely, and delta "
        f"more. At epsilon {epsilon:.2f} that is a factor of {times}{size}. Somebody who sees all that and "
        f"must guess, at even odds, whether the {claim.protected} was used, is right at most {right:.2f} % of the time "
        "(50 % is guessing). These are ceilings that are proven for every attack, not forecasts of one."
    )


def _loose_delta(run: Run) -> list[str]:
    delta, rows = run.ledger["delta"], _training_rows(run)
    if run.ledger["unit"] in FEDERATED_UNITS:
        loose = delta * len(rows) >= 1
        return [f"Delta {delta:g} is not below one over the number of sites, {len(rows)}."] if loose else []
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
    inside = run.sites[~run.sites["site"].isin(TOGETHER)]
    tested = inside.groupby("site", sort=False)["rows"].mean()
    return {str(site): float(rows) / split.test * (1 - split.test - split.validation) for site, rows in tested.items()}


def _in_shares(own: list[Training]) -> Pairs:
    """Return what the sites did to their updates, as each wrote it down beside its masked vector."""
    counts = [Counter(entry["site"] for entry in training["entries"]) for training in own]
    most = max(count for counter in counts for count in counter.values())
    shares = {NoiseShare(**entry["mechanism"]) for training in own for entry in training["entries"]}
    each = " or ".join(dict.fromkeys(
        f"{share.asked} sites each add noise of standard deviation {share.deviation:.4g}; {share.drop_outs} may be "
        f"missing, {share.colluding} may tell theirs"
        for share in sorted(shares, key=lambda share: (share.asked, share.noise_multiplier))
    ))  # fmt: skip
    reach = " or ".join(sorted({f"{share.sensitivity:.6g}" for share in shares}))
    return [
        ("Sampling", "None is claimed: the server knows whom it asks."),
        ("Noise multiplier", f"sigma = {_each(own, 'noise_multiplier')}; the standard deviation of the noise on a sum "
         "is at least sigma times the sensitivity, of shares that are in any sum and known to nobody."),
        ("Clip", f"{_each(own, 'clip')}: the largest Euclidean norm of one site's change of the model; with rounding "
         f"the sensitivity is {reach}."),
        ("Shares", f"{each}."),
        ("Rounds", f"{most}, the most in which one site counts."),
    ]  # fmt: skip


def _at_the_server(own: list[Training]) -> Pairs:
    """Return what the server did to the sites' updates, as whoever drew the noise wrote it down."""
    mechanisms = [entry["mechanism"] for training in own for entry in training["entries"]]
    sampled = any(one["sampling_rate"] < 1 for one in mechanisms)
    alone = f"Poisson: each site joins a round with probability {_each(own, 'sampling_rate')}, on its own."
    return [
        ("Sampling", alone if sampled else "None is claimed: all sites, or sites that anybody may know, were asked."),
        ("Noise multiplier", f"sigma = {_each(own, 'noise_multiplier')}; the noise's standard deviation is sigma times "
         "the clip."),
        ("Clip", f"{_clips(mechanisms, own)}: the largest Euclidean norm of one site's change of the model."),
        *_over_rounds(mechanisms[0]),
        ("Weights", f"Each site's public weight over {_each(own, 'heaviest')}, the largest."),
        ("Denominator", f"{_each(own, 'denominator')}: the weight that is expected to join, over the largest."),
        ("Rounds", f"{_most_rounds(own)}, the most in which one site counts."),
    ]  # fmt: skip


def _clips(mechanisms: list[Mapping[str, Any]], own: list[Training]) -> str:
    clips = [one["clip"] for one in mechanisms]
    return _each(own, "clip") if mechanisms[0]["bit_noise"] is None else f"{min(clips):g} to {max(clips):g}"


def _over_rounds(did: Mapping[str, Any]) -> Pairs:
    """Return what ties the rounds together: a clip that moves, or noise that is correlated."""
    found = []
    if did["bit_noise"] is not None:
        together = SiteUpdate(**did).segment().noise_multiplier
        found.append((
            "Adaptive clip",
            "The clip follows a quantile of the norms, by the noisy number of sites within it. The noise on the sum of "
            f"their bits, each plus or minus one half, has the standard deviation {did['bit_noise']:g}; bits and "
            f"updates together cost as much as sigma = {together:.4g} alone.",
        ))  # fmt: skip
    if did["band"] > 1:
        found.append((
            "Correlation",
            f"The noise is correlated over {did['band']} rounds, so that parts of it cancel as rounds add up (banded "
            "square-root factorisation). No site is asked twice within as many rounds, in a schedule that anybody may "
            "know. Sigma is what a round costs a site; the independent noise that it is made of is "
            f"{column_norm(did['band']):.4g} times as large.",
        ))  # fmt: skip
    return found


def _on_updates(own: list[Training]) -> Pairs:
    """Return what the sites did to their updates, as it was reported with each."""
    return [
        ("Noise multiplier", f"sigma = {_each(own, 'noise_multiplier')}; the noise's standard deviation is sigma times "
         "the clip."),
        ("Clip", f"{_each(own, 'clip')}: the largest Euclidean norm of one site's change of the model."),
        ("Rounds", f"{_most_rounds(own)}, the most in which one site sends something."),
    ]  # fmt: skip


def _most_rounds(own: list[Training]) -> int:
    counts = [Counter(entry["site"] for entry in training["entries"]) for training in own]
    return max(count for counter in counts for count in counter.values())


def _at_sites(own: list[Training]) -> Pairs:
    """Return what the sites did to their rows, as it was reported with each update."""
    return [
        ("Sampling", f"Poisson: each row joins a step with probability {_each(own, 'sampling_rate')}, on its own."),
        ("Noise multiplier", f"sigma = {_each(own, 'noise_multiplier')}; the noise's standard deviation is sigma times "
         "the clip."),
        ("Clip", f"{_each(own, 'clip')}: the largest Euclidean norm of one row's gradient."),
        ("Denominator", f"{_each(own, 'expected_batch')}: the expected batch, set in the scenario and so public."),
        ("Steps", _steps(own)),
    ]  # fmt: skip


_DONE = {"record": _at_sites, "client": _at_the_server, "local": _on_updates, "distributed": _in_shares}


def _in_one_line(own: list[Training]) -> str:
    return (
        f"epsilon {_epsilon_by_site(own)}; sampling rate {_each(own, 'sampling_rate')}; "
        f"sigma {_each(own, 'noise_multiplier')}; clip {_each(own, 'clip')}; "
        f"denominator {_each(own, 'expected_batch')}; {_steps(own)}; {random_of(own)} random numbers."
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
