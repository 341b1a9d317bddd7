"""The words of the privacy statement that depend on the privacy unit: what is promised, by what, and what is not."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """What a statement says of a unit, whatever the numbers are.

    Attributes:
        protected: What is protected, for a sentence: ``record``.
        unit: The same, at length.
        neighbours: {relation: between which data sets the promise holds}.
        sent: Of what the promise speaks, for a sentence: ``whatever a site sends is``.
        released: {arm: what leaves}.
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


_FROM_THE_SYSTEM = (
    "from AES in counter mode, under a key of 128 bits that the operating system drew for {each} and that was written "
    "nowhere. What is stated holds for the very models of this run. It can't be repeated: another run with the same "
    "seed has the same {same}, and other {other}."
)
_BY_SEED = "splits, initial weights and batches"  # batches stay by seed where no promise rests on them
_FIGURES = (
    "The figures in this report: validation and test metrics, row counts and numbers of positives are computed from "
    "records without noise."
)
_CHOICES = (
    "Choices made by looking at results that are not charged above: tuning of hyperparameters, choosing among seeds, "
    "arms or strategies."
)
_REPETITION = (
    "Repetition: the epsilon holds for one training of one arm under one seed, as it would be deployed. The report "
    "repeats the training for each seed and arm, with and without privacy, on the same records; whoever gets several "
    "of these models, or one of an arm without privacy, learns more."
)
_FILES = (
    "The other files of the run directory: checkpoints/ holds the models of the arms without privacy, too, and what "
    "sites keep at home. Counts in this report can be small cells, such as one healthy patient. Check both before "
    "handing them on."
)

RECORD = Claim(
    protected="record",
    unit="One record: one row of one site. A row is no person: a person with k rows at a site has up to k times this "
    "epsilon, at a much larger delta. It is no whole site, either: for a site with all its rows there is no finite "
    "guarantee worth a number.",
    neighbours={
        "add-or-remove-one": "Two data sets of a site are neighbours if one of them has one record more and they are "
        "otherwise equal (add or remove one).",
        "replace-one": "Two data sets of a site are neighbours if one record of them differs and they are otherwise "
        "equal (replace one).",
    },
    sent="whatever a site sends is",
    released={
        "federated": "After each round every site sends its model as its noisy steps left it, its public weight (the "
        "denominator above) and the public settings of its mechanism. No row count, no metric, no gradient. A site "
        "that fails sends the kind of its error, and is charged as if it had answered.",
        "masked": "After each round every site sends, under masks, the change that its noisy steps made to its model, "
        "and the public settings of its mechanism; the server learns the sum. No row count, no metric, no gradient. A "
        "site that fails sends the kind of its error, and is charged as if it had answered.",
        "centralized": "The model as the noisy steps on the pooled records left it, after each round.",
        "local": "Nothing leaves a site unless it hands its model on; the claim is for its model after every round.",
    },
    trust={
        "federated": "Each site clips and adds the noise itself, before anything leaves it, so whoever sees what it "
        "sends need not be trusted: the server, the other sites, the readers of the model. Presumed are a site that "
        "follows the protocol and a server that asks for the rounds and the noise stated here (a site does not check "
        "that).",
        "centralized": "Whoever holds the pool sees every record and adds the noise: a trusted pool holder is "
        "presumed.",
        "local": "Only the site itself is trusted: it adds the noise to its own training.",
    },
    mechanism="DP-SGD: in each step every row's gradient is clipped, the gradients are summed, Gaussian noise is added "
    "to the sum, and the sum is divided by a public number.",
    not_covered=(
        _FIGURES,
        _CHOICES,
        "Splitting rows into training, validation and test rows: the split looks at the classes or the times of a "
        "site's rows, so one record more can move others. So does a partition that deals rows out to sites.",
        _REPETITION,
        "A person with records at two sites: each site protects its own record, and the two epsilons add up.",
        "The centralized arm presumes that somebody may be trusted with the pooled records.",
        "Whether a site answered in a round, and how long it took.",
        _FILES,
    ),
    secure="Secure: noise and batches come "
    + _FROM_THE_SYSTEM.format(
        each="each of a site's rounds", same="splits and initial weights", other="noise and batches"
    ),
)

CLIENT = Claim(
    protected="whole site",
    unit="One whole site, with all its rows and in all rounds. Not two sites that belong together.",
    neighbours={
        "add-or-remove-one": "Two federations are neighbours if one of them has the rows of one site more and they are "
        "otherwise equal (add or remove one site; one that is removed adds nothing to any sum). The list of "
        "sites and their weights are public.",
        "replace-one": "Two federations are neighbours if the rows of one site differ and they are otherwise equal "
        "(replace one site).",
    },
    sent="all global models together are",
    released={
        "federated": "After each round the global model, which follows from the noisy mean of the clipped updates and "
        "from models before it. The sites' own updates go to the server exactly as they are, and no further. What a "
        "site keeps at home, such as a model of its own, is not released and not covered. A round in which no site "
        "answers releases noise, and is charged like any other.",
    },
    trust={
        "federated": "The server is trusted: it sees every site's exact update and who took part, and it clips, adds "
        "the noise and forgets the rest. The promise is against everyone else who sees the global models: the other "
        "sites, the readers of the model. It is not against the server. Where sites join a round with a probability "
        "below 1, it is presumed that nobody else learns who joined.",
    },
    mechanism="Noise at the server: in each round every site's change of the model is clipped and counts by its "
    "public weight, at most once; the changes are summed, Gaussian noise is added to the sum, and the sum is divided "
    "by a public number, whoever answered.",
    not_covered=(
        _FIGURES,
        _CHOICES,
        "A partition that deals rows out to sites by looking at them: the promise takes each site's rows as given.",
        _REPETITION,
        "Two sites of one owner: together they have more than the epsilon of one, about twice as much.",
        "Who took part in which round, who answered and how long it took. The notes of this report name sites that "
        "were left out.",
        "The centralized and the local arm: a whole site has no protection there, so they were run without privacy "
        "only.",
        _FILES,
    ),
    secure="Secure: the noise comes "
    + _FROM_THE_SYSTEM.format(each="each round", same=_BY_SEED, other="noise")
    + " Where sites join a round with a probability below 1, who joins is drawn likewise, under a key of its own.",
)

LOCAL = Claim(
    protected="whole site",
    unit="One whole site, with all its rows and in all rounds, and so each of its records, at the same epsilon. Not "
    "two sites that belong together.",
    neighbours={
        "replace-one": "Two federations are neighbours if the rows of one site differ, in any way, and they are "
        "otherwise equal (replace one site).",
    },
    sent="whatever a site sends is",
    released={
        "federated": "After each round every site sends its model after clipping and noise, its public weight and the "
        "public settings of its mechanism. No row count, no metric, no exact model. What a site keeps at home, such as "
        "a model of its own, is exact, not released and not covered. A site that fails sends the kind of its error, "
        "and is charged as if it had answered.",
        "masked": "After each round every site sends, under masks, its change of the model after clipping and noise, "
        "and the public settings of its mechanism; the server learns the sum. No row count, no metric, no exact model. "
        "What a site keeps at home, such as a model of its own, is exact, not released and not covered. A site that "
        "fails sends the kind of its error, and is charged as if it had answered.",
    },
    trust={
        "federated": "Each site clips its update and adds the noise itself, before anything leaves it, so whoever sees "
        "what it sends need not be trusted: the server, the other sites, the readers of the model. Presumed are a site "
        "that follows the protocol and a server that asks for the rounds and the noise stated here, each round once (a "
        "site does not check that).",
    },
    mechanism="Noise on each update: in each round a site clips its change of the model and adds Gaussian noise to it "
    "before it is sent. Any change may be replaced by any other, which lies up to twice the clip away; nothing is "
    "claimed from the other sites' noise or from who takes part.",
    not_covered=(
        _FIGURES,
        _CHOICES,
        "A partition that deals rows out to sites by looking at them: the promise takes each site's rows as given.",
        _REPETITION,
        "Two sites of one owner: each has its epsilon, and they add up.",
        "Whether a site answered in a round, and how long it took.",
        "The centralized and the local arm: a whole site has no protection there, so they were run without privacy "
        "only.",
        _FILES,
    ),
    secure="Secure: the noise on each update comes "
    + _FROM_THE_SYSTEM.format(each="each of a site's rounds", same=_BY_SEED, other="noise"),
)

DISTRIBUTED = Claim(
    protected="whole site",
    unit=CLIENT.unit,
    neighbours=CLIENT.neighbours,
    sent="the sums of all rounds together are",
    released={
        "masked": "After each round the noisy sum of the sites' clipped changes, to the server, and the global model "
        "that follows from it. Every site sends its clipped change with its share of the noise, under masks. What a "
        "site keeps at home, such as a model of its own, is not released and not covered.",
    },
    trust={
        "federated": "The server need not be trusted with the updates: it learns noisy sums, and so do the readers of "
        "the model. The server and all sites are presumed to keep to the protocol, however curious they are, and no "
        "more than the stated number of sites to tell others their shares of the noise. One site that adds no noise "
        "takes its share away, and a server that swaps keys or states another number of sites than it asks reads what "
        "it likes. Masks hide vectors from whoever can't break X25519 and ChaCha20; noise hides a site from "
        "everybody.",
    },
    mechanism="Noise in shares: in each round every site clips its change of the model, weighs it by its public "
    "weight, at most once, rounds it to a grid and adds its share of the noise; the changes are summed under secure "
    "aggregation, and the sum is divided by a public number, whoever answered. If more sites are missing than may be, "
    "the round is refused and nothing is revealed; the sites that had trained are charged all the same.",
    not_covered=(
        *CLIENT.not_covered[:-1],
        "That the noise is a rounded Gaussian, and that a sum of them promises no less than a Gaussian, holds for "
        "exact Gaussians: the shares are computed from 64 random bits a number and end at 6.66 standard deviations.",
        _FILES,
    ),
    secure="Secure: each site's share of the noise comes "
    + _FROM_THE_SYSTEM.format(each="each of its rounds", same=_BY_SEED, other="noise"),
    seed=" Presumed is also a noise seed that nobody knows, or the shares of all sites would be known.",
)

CLAIMS: Mapping[str, Claim] = {"record": RECORD, "client": CLIENT, "local": LOCAL, "distributed": DISTRIBUTED}
"""{privacy unit: what is claimed}."""
