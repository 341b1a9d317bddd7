"""One record: one row of one site, protected by noise in the steps of the site's training (DP-SGD).

Relation: two data sets of a site differ in one row, which is there or not, or which is replaced.
Trusted: each site, with its own rows. Not trusted: the server, the other sites, the readers of the model.
The site: clips each row's gradient, adds noise to each step's sum (``fedsim.privacy.optimizer``, and the same for many
sites at once in ``fedsim.engines.stack.train``), and sends the model that its steps led to.
The server: aggregates, as without privacy.
Cost: every step of a site is a release, in which each row takes part with the sampling rate.
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
    SPLITS,
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
    protected="record",
    unit="One record: one row of one site. A row is no person: a person with k rows at a site has up to k times this "
    "epsilon, at a much larger delta; the unit person protects all of them. It is no whole site, either: for a site "
    "with all its rows there is no finite guarantee worth a number.",
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
        "follows the protocol and a server that asks for the rounds and the noise stated here" + UNCHECKED + ".",
        "centralized": "Whoever holds the pool sees every record and adds the noise: a trusted pool holder is "
        "presumed.",
        "local": "Only the site itself is trusted: it adds the noise to its own training.",
    },
    mechanism="DP-SGD: in each step every row's gradient is clipped, the gradients are summed, Gaussian noise is added "
    "to the sum, and the sum is divided by a public number.",
    not_covered=(
        FIGURES,
        CHOICES,
        SPLITS,
        REPETITION,
        "A person with records at two sites: each site protects its own record, and the two epsilons add up.",
        "The centralized arm presumes that somebody may be trusted with the pooled records.",
        "Whether a site answered in a round, and how long it took.",
        FILES,
    ),
    secure="Secure: noise and batches come "
    + FROM_THE_SYSTEM.format(
        each="each of a site's rounds", same="splits and initial weights", other="noise and batches"
    ),
)


class Record(Unit):
    """A record, by DP-SGD at its site."""

    neighbours = ("add-or-remove-one", "replace-one")
    arms = ("federated", "centralized", "local")
    settings = ()
    needs = ()
    forbids = (
        (
            "training.precision",
            "each row's gradient is clipped, and a clipped sum whose numbers are rounded to eight bits may be "
            "longer than the clip",
        ),
    )

    protects = Protected.RECORD
    place = Place.IN_STEPS
    sampled = Sampled.ROWS
    releases = (Mechanism,)
    promise = _PROMISE

    def cost(self, exposure: Exposure) -> Cost:
        """Return the sampling rate of rows, and the steps of the site that takes part most often."""
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
        """Tell what the sites did to their rows, as it was reported with each update."""
        return [
            (
                "Sampling",
                f"Poisson: each row joins a step with probability {each(trainings, 'sampling_rate')}, on its own.",
            ),
            ("Noise multiplier", f"sigma = {each(trainings, 'noise_multiplier')}; {NOISE_OVER_CLIP}"),
            ("Clip", f"{each(trainings, 'clip')}: the largest Euclidean norm of one row's gradient."),
            (
                "Denominator",
                f"{each(trainings, 'expected_batch')}: the expected batch, set in the scenario and so public.",
            ),
            ("Steps", steps_in(trainings)),
        ]

    def in_one_line(self, trainings: Sequence[Training]) -> str:
        """Tell the same of a further arm, with its epsilon."""
        return steps_in_one_line(trainings)

    def audited(self, releases: Sequence[Release]) -> Audited:
        """Return all steps of a training in one go; rounds that were not alike count as the first was."""
        return steps_together(releases)
