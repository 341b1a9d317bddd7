"""One person: all rows of a person at one site, protected by noise in the steps of the site's training (DP-SGD).

Relation: two data sets of a site differ in one person, who is there with all rows or not there at all, or whose rows
are replaced by other rows of one person.
Trusted: each site, with its own rows. Not trusted: the server, the other sites, the readers of the model.
The site: draws persons and takes all rows of each (Poisson sampling), clips the sum of a person's gradients, adds noise
to each step's sum (``fedsim.privacy.optimizer``, and the same for many sites at once in
``fedsim.engines.stack.persons``), divides it by the public number of persons expected in a step, and sends the model
that its steps led to.
The server: aggregates, as without privacy.
Cost: every step of a site is a release, in which each person takes part with the sampling rate. How many rows a person
has does not enter: whoever has 40 rows moves a step's sum by no more than whoever has one.

McMahan, Ramage, Talwar, Zhang, "Learning Differentially Private Recurrent Language Models", ICLR 2018,
https://arxiv.org/abs/1710.06963, draws persons and bounds what each adds; here inside a site.
"""

from collections.abc import Sequence

from fedsim.privacy.ledger import Mechanism, Release
from fedsim.privacy.promise import (
    CHOICES,
    FIGURES,
    FILES,
    FROM_THE_SYSTEM,
    NOISE_OVER_CLIP,
    REPETITION,
    UNCHECKED,
    Pairs,
    Promise,
    Training,
    each,
    steps_in,
    steps_in_one_line,
)
from fedsim.privacy.unit import Asked, Audited, Cost, Exposure, Place, Protected, Sampled, Unit, steps_together

_PROMISE = Promise(
    protected="person",
    unit="One person at one site: all rows of one name there, however many there are. A person who is at several sites "
    "is protected at each of them for what is there, and the epsilons of these sites add up. It is no whole site: for "
    "a site with all its rows there is no finite guarantee worth a number.",
    neighbours={
        "add-or-remove-one": "Two data sets of a site are neighbours if one of them has one person more, with all rows "
        "of that person, and they are otherwise equal (add or remove one).",
        "replace-one": "Two data sets of a site are neighbours if the rows of one person are others, in any number, "
        "and they are otherwise equal (replace one).",
    },
    sent="whatever a site sends is",
    released={
        "federated": "After each round every site sends its model as its noisy steps left it, its public weight (the "
        "denominator above) and the public settings of its mechanism. No number of rows or of persons, no metric, no "
        "gradient. A site that fails sends the kind of its error, and is charged as if it had answered.",
        "masked": "After each round every site sends, under masks, the change that its noisy steps made to its model, "
        "and the public settings of its mechanism; the server learns the sum. No number of rows or of persons, no "
        "metric, no gradient. A site that fails sends the kind of its error, and is charged as if it had answered.",
        "centralized": "The model as the noisy steps on the pooled records left it, after each round.",
        "local": "Nothing leaves a site unless it hands its model on; the claim is for its model after every round.",
    },
    trust={
        "federated": "Each site clips and adds the noise itself, before anything leaves it, so whoever sees what it "
        "sends need not be trusted: the server, the other sites, the readers of the model. Presumed are a site that "
        "follows the protocol, and names all rows of a person alike, and a server that asks for the rounds and the "
        "noise stated here" + UNCHECKED + ".",
        "centralized": "Whoever holds the pool sees every record and adds the noise: a trusted pool holder is "
        "presumed. In the pool, too, a person is the rows of one name at one site.",
        "local": "Only the site itself is trusted: it adds the noise to its own training.",
    },
    mechanism="DP-SGD by persons: in each step persons are drawn, each with all rows; the gradients of a person's rows "
    "are summed and their sum is clipped, the clipped sums are added up, Gaussian noise is added, and the whole is "
    "divided by a public number.",
    not_covered=(
        FIGURES,
        CHOICES,
        "Splitting persons into those of training, validation and test: the split looks at the classes or the times of "
        "a site's rows, so one person more can move others. So does a partition that deals persons out to sites.",
        REPETITION,
        "A person with rows at two sites: each site protects what it has, and the two epsilons add up.",
        "A person whose rows bear several names is several persons here, each protected by itself; whoever has k names "
        "at a site has up to k times this epsilon, at a much larger delta.",
        "The centralized arm presumes that somebody may be trusted with the pooled records.",
        "Whether a site answered in a round, and how long it took.",
        FILES,
    ),
    secure="Secure: noise and batches come "
    + FROM_THE_SYSTEM.format(
        each="each of a site's rounds", same="splits and initial weights", other="noise and batches"
    ),
)


class Person(Unit):
    """A person with all rows at a site, by DP-SGD there."""

    neighbours = ("add-or-remove-one", "replace-one")
    arms = ("federated", "centralized", "local")
    settings = ()
    needs = ()
    persons = True
    forbids = (
        (
            "training.precision",
            "each person's gradient is clipped, and a clipped sum whose numbers are rounded to eight bits may be "
            "longer than the clip",
        ),
    )

    protects = Protected.PERSON
    place = Place.IN_STEPS
    sampled = Sampled.PERSONS
    releases = (Mechanism,)
    promise = _PROMISE

    def cost(self, exposure: Exposure) -> Cost:
        """Return the sampling rate of persons, and the steps of the site that takes part most often."""
        return Cost(exposure.row_rate, exposure.most_rounds * exposure.steps)

    def release(self, asked: Asked) -> Mechanism:
        """Return the steps of a round."""
        return Mechanism(
            sampling_rate=asked.sampling_rate,
            noise_multiplier=asked.noise_multiplier,
            clip=asked.clip,
            expected_batch=asked.expected_batch,
            steps=asked.steps,
            rng=asked.rng,
        )

    def done(self, trainings: Sequence[Training]) -> Pairs:
        """Tell what the sites did to their persons, as it was reported with each update."""
        return [
            (
                "Sampling",
                f"Poisson: each person joins a step with probability {each(trainings, 'sampling_rate')}, independently "
                "of the others and with all rows.",
            ),
            ("Noise multiplier", f"sigma = {each(trainings, 'noise_multiplier')}; {NOISE_OVER_CLIP}"),
            (
                "Clip",
                f"{each(trainings, 'clip')}: the largest Euclidean norm of the sum of one person's gradients.",
            ),
            (
                "Denominator",
                f"{each(trainings, 'expected_batch')}: the number of persons expected in a step, set in the scenario "
                "and so public.",
            ),
            ("Steps", steps_in(trainings)),
        ]

    def in_one_line(self, trainings: Sequence[Training]) -> str:
        """Tell the same of a further arm, with its epsilon."""
        return steps_in_one_line(trainings)

    def audited(self, releases: Sequence[Release]) -> Audited:
        """Return all steps of a training in one go; rounds that were not alike count as the first was."""
        return steps_together(releases)
