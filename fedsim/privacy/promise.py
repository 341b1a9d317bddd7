"""The words of a privacy statement: the sentences that a unit brings, and figures from the ledger as text."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedsim import figures
from fedsim.randomness import Random

Pairs = list[tuple[str, str]]
"""Terms of a statement and their definitions."""

Training = Mapping[str, Any]
"""One training of ``ledger.json``: arm, seed, epsilon {site: value}, entries."""


@dataclass(frozen=True)
class Promise:
    """The sentences of a statement that depend on its unit, whatever the numbers are.

    Attributes:
        protected: What is protected, for a sentence: ``record``.
        unit: The same, at length.
        neighbours: {relation: between which data sets the promise holds}.
        sent: The subject of the promise, for a sentence: ``whatever a site sends is``.
        released: {arm: what leaves}; ``masked`` is the federated arm under secure aggregation.
        trust: {arm: who is presumed to behave}.
        mechanism: What is done.
        not_covered: What else there is to know, a sentence or two each.
        secure: Where the random numbers come from if all that the promise rests on are secret.
        seed: What is presumed beside ``trust`` if they are not, but follow from a seed.
    """

    protected: str
    unit: str
    neighbours: Mapping[str, str]
    sent: str
    released: Mapping[str, str]
    trust: Mapping[str, str]
    mechanism: str
    not_covered: tuple[str, ...]
    secure: str
    seed: str = " Presumed is also a noise seed that nobody knows but whoever adds the noise."


FROM_THE_SYSTEM = (
    "from AES in counter mode, under a key of 128 bits that the operating system drew for {each} and that was written "
    "nowhere. What is stated holds for the very models of this run. It can't be repeated: another run with the same "
    "seed has the same {same}, and other {other}."
)
BY_SEED = "splits, initial weights and batches"  # batches stay by seed where no promise rests on them
FIGURES = (
    "The figures in this report: validation and test metrics, row counts and numbers of positives are computed from "
    "records without noise."
)
CHOICES = (
    "Choices made by looking at results that are not charged above: tuning of hyperparameters, choosing among seeds, "
    "arms or strategies."
)
REPETITION = (
    "Repetition: the epsilon holds for one training of one arm under one seed, as it would be deployed. The report "
    "repeats the training for each seed and arm, with and without privacy, on the same records; whoever gets several "
    "of these models, or one of an arm without privacy, learns more."
)
SPLITS = (
    "Splitting rows into training, validation and test rows: the split looks at the classes or the times of a site's "
    "rows, so one record more can move others. So does a partition that deals rows out to sites."
)
UNCHECKED = " (a site does not check that)"
FILES = (
    "The other files of the run directory: checkpoints/ holds the models of the arms without privacy, too, and what "
    "sites keep at home. Counts in this report can be small cells, such as one healthy patient. Check both before "
    "handing them on."
)
PARTITION = "A partition that deals rows out to sites by looking at them: the promise takes each site's rows as given."
OTHER_ARMS = (
    "The centralized and the local arm: a whole site has no protection there, so they were run without privacy only."
)
NOISE_OVER_CLIP = "the noise's standard deviation is sigma times the clip."
CLIP_OF_A_SITE = "the largest Euclidean norm of one site's change of the model."


def each(trainings: Sequence[Training], field: str) -> str:
    """Write a field of the releases: once if it is the same everywhere, else for each site."""
    values: dict[str, list[str]] = {}
    for training in trainings:
        for entry in training["entries"]:
            values.setdefault(entry["site"], []).append(f"{entry['mechanism'][field]:g}")
    return by_site(values)


def by_site(values: Mapping[str, Iterable[str]]) -> str:
    """Write ``0.5 at every site`` or ``a: 0.5; b: 0.4``; several values of one site are joined by ``or``."""
    texts = {site: " or ".join(dict.fromkeys(several)) for site, several in values.items()}
    if len(set(texts.values())) > 1:
        return "; ".join(f"{site}: {text}" for site, text in texts.items())

    text = next(iter(texts.values()))
    return f"{text} at every site" if len(texts) > 1 else text


def most_rounds(trainings: Sequence[Training]) -> int:
    """Return the most releases that one site made in one training."""
    counts = [Counter(entry["site"] for entry in training["entries"]) for training in trainings]
    return max(count for counter in counts for count in counter.values())


def releases_in(trainings: Sequence[Training]) -> list[Mapping[str, Any]]:
    """Return the fields of all releases of some trainings."""
    return [entry["mechanism"] for training in trainings for entry in training["entries"]]


def random_of(trainings: Iterable[Training]) -> Random:
    """Return the kind of some trainings' randomness; ``secure`` only if it was so in every step of each."""
    kinds = {entry["mechanism"].get("rng") for training in trainings for entry in training["entries"]}
    return "secure" if kinds == {"secure"} else "reproducible"


def most_spent(trainings: Iterable[Training]) -> dict[str, float]:
    """Return {site: the most epsilon that one of some trainings spent there}."""
    most: dict[str, float] = {}
    for training in trainings:
        for site, spent in training["epsilon"].items():
            most[site] = max(spent, most.get(site, 0.0))
    return most


def epsilon_by_site(trainings: Sequence[Training]) -> str:
    """Write the most epsilon that one training spent, at each site."""
    return by_site({site: [figures.epsilon(spent)] for site, spent in most_spent(trainings).items()})


def steps_in(trainings: Sequence[Training]) -> str:
    """Write the steps of each site: ``3 rounds × 2 steps = 6 steps``."""
    values: dict[str, list[str]] = {}
    for training in trainings:
        for site, entries in entries_by_site(training).items():
            steps_of_rounds = [entry["mechanism"]["steps"] for entry in entries]
            rounds_with = Counter(steps_of_rounds)
            parts = [f"{rounds} rounds × {steps} steps" for steps, rounds in sorted(rounds_with.items())]
            values.setdefault(site, []).append(f"{' + '.join(parts)} = {sum(steps_of_rounds)} steps")
    return by_site(values)


def entries_by_site(training: Training) -> dict[str, list[Mapping[str, Any]]]:
    """Return {site: its entries of the ledger}, in one pass: there may be very many of both."""
    found: dict[str, list[Mapping[str, Any]]] = {site: [] for site in training["epsilon"]}
    for entry in training["entries"]:
        found[entry["site"]].append(entry)
    return found


def steps_in_one_line(trainings: Sequence[Training]) -> str:
    """Write all that noisy steps were, with their epsilon, in one line."""
    return (
        f"epsilon {epsilon_by_site(trainings)}; sampling rate {each(trainings, 'sampling_rate')}; "
        f"sigma {each(trainings, 'noise_multiplier')}; clip {each(trainings, 'clip')}; "
        f"denominator {each(trainings, 'expected_batch')}; {steps_in(trainings)}; "
        f"{random_of(trainings)} random numbers."
    )
