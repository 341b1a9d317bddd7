"""One whole site, protected from the server too by noise that it adds to its own update (local differential privacy).

Relation: two federations differ in the rows of one site, in any way: they are replaced. A site that sends something
can't be absent, so that its update moves by up to twice the clip.
Trusted: each site, with its own rows. Not trusted: the server, the other sites, the readers of the models.
The site: clips its change of the model and adds noise to it before it is sent (``fedsim.privacy.own_update``).
The server: aggregates, as without privacy.
Cost: every round of a site is a release. Nothing is claimed from the other sites' noise or from who takes part.
"""

from collections.abc import Sequence

from torch import Tensor

from fedsim.privacy.ledger import OwnUpdate, Release
from fedsim.privacy.own_update import noised
from fedsim.privacy.promise import (
    BY_SEED,
    CHOICES,
    CLIP_OF_A_SITE,
    FIGURES,
    FILES,
    FROM_THE_SYSTEM,
    NOISE_OVER_CLIP,
    OTHER_ARMS,
    PARTITION,
    REPETITION,
    UNCHECKED,
    Pairs,
    Promise,
    Training,
    each,
    most_rounds,
)
from fedsim.privacy.unit import Asked, Audited, Cost, Exposure, Place, Protected, Sampled, Unit
from fedsim.randomness import Words

_PROMISE = Promise(
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
        "that follows the protocol and a server that asks for the rounds and the noise stated here, each round once"
        + UNCHECKED
        + ".",
    },
    mechanism="Noise on each update: in each round a site clips its change of the model and adds Gaussian noise to it "
    "before it is sent. Any change may be replaced by any other, which lies up to twice the clip away; nothing is "
    "claimed from the other sites' noise or from who takes part.",
    not_covered=(
        FIGURES,
        CHOICES,
        PARTITION,
        REPETITION,
        "Two sites of one owner: each has its epsilon, and they add up.",
        "Whether a site answered in a round, and how long it took.",
        OTHER_ARMS,
        FILES,
    ),
    secure="Secure: the noise on each update comes "
    + FROM_THE_SYSTEM.format(each="each of a site's rounds", same=BY_SEED, other="noise"),
)


class Local(Unit):
    """A whole site, by noise that it adds to its own update."""

    neighbours = ("replace-one",)
    arms = ("federated",)
    settings = ()
    needs = ()

    protects = Protected.SITE
    place = Place.ON_UPDATES
    sampled = Sampled.NOTHING
    releases = (OwnUpdate,)
    promise = _PROMISE

    def cost(self, exposure: Exposure) -> Cost:
        """Return the rounds of the site that takes part most often, none of them by chance."""
        return Cost(1.0, exposure.most_rounds)

    def release(self, asked: Asked) -> OwnUpdate:
        """Return the noisy update of a round."""
        return OwnUpdate(asked.noise_multiplier, asked.clip, asked.rng)

    def noised(self, center: Tensor, update: Tensor, did: OwnUpdate, words: Words) -> Tensor:
        """Clip the site's change of the model and add Gaussian noise to it."""
        return noised(center, update, did, words)

    def done(self, trainings: Sequence[Training]) -> Pairs:
        """Tell what the sites did to their updates, as it was reported with each."""
        return [
            ("Noise multiplier", f"sigma = {each(trainings, 'noise_multiplier')}; {NOISE_OVER_CLIP}"),
            ("Clip", f"{each(trainings, 'clip')}: {CLIP_OF_A_SITE}"),
            ("Rounds", f"{most_rounds(trainings)}, the most in which one site sends something."),
        ]

    def audited(self, releases: Sequence[Release]) -> Audited:
        """Return one update, as often as the site sends one."""
        return Audited(releases[0], len(releases))
