"""One whole site, protected by noise that a trusted server adds to the sum of the sites' updates (DP-FedAvg).

Relation: two federations differ in all rows of one site, which is there or not, or which are replaced.
Trusted: the server. Not trusted: the other sites, the readers of the models.
The site: trains and sends its exact model.
The server: clips each site's change of the model, adds noise to their weighted sum and divides by a public number
(``fedsim.privacy.central``); the strategy is handed the noisy mean alone.
Cost: every round is a release, in which each site takes part with the probability of joining; 1 if it is not by chance.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fedsim.privacy.central import CentralNoise
from fedsim.privacy.correlated import column_norm
from fedsim.privacy.ledger import Release, SiteUpdate
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
    Pairs,
    Promise,
    Training,
    each,
    most_rounds,
    releases_in,
)
from fedsim.privacy.unit import Audited, Cost, Exposure, Place, Protected, Sampled, Unit

_PROMISE = Promise(
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
        FIGURES,
        CHOICES,
        PARTITION,
        REPETITION,
        "Two sites of one owner: together they have more than the epsilon of one, about twice as much.",
        "Who took part in which round, who answered and how long it took. The notes of this report name sites that "
        "were left out.",
        OTHER_ARMS,
        FILES,
    ),
    secure="Secure: the noise comes "
    + FROM_THE_SYSTEM.format(each="each round", same=BY_SEED, other="noise")
    + " Where sites join a round with a probability below 1, who joins is drawn likewise, under a key of its own.",
)


class Client(Unit):
    """A whole site, by noise that the server adds."""

    neighbours = ("add-or-remove-one", "replace-one")
    arms = ("federated",)
    settings = (
        ("privacy.adaptive_clip", "whose noise the server adds"),
        ("privacy.correlated", "whose noise the server adds"),
    )
    needs = ()

    protects = Protected.SITE
    place = Place.AT_SERVER
    sampled = Sampled.SITES
    releases = (SiteUpdate,)
    promise = _PROMISE

    def cost(self, exposure: Exposure) -> Cost:
        """Return the probability of joining and all rounds; 1 and a site's most rounds if sites are chosen otherwise.

        Sites that join on their own with a known probability are in every round with that probability. From any other
        choice nothing is claimed: the site that is chosen most often counts.
        """
        if exposure.joining_rate is None:
            return Cost(1.0, exposure.most_rounds)
        return Cost(exposure.joining_rate, exposure.rounds)

    def at_server(self, **settings: Any) -> CentralNoise:  # noqa: ANN401  its fields
        """Build the server's noise mechanism; the settings are its fields."""
        return CentralNoise(**settings)

    def done(self, trainings: Sequence[Training]) -> Pairs:
        """Tell what the server did to the sites' updates, as it wrote it down with each draw of noise."""
        released = releases_in(trainings)
        sampling = "None is claimed: all sites, or sites that anybody may know, were asked."
        if any(values["sampling_rate"] < 1 for values in released):
            rate = each(trainings, "sampling_rate")
            sampling = f"Poisson: each site joins a round with probability {rate}, on its own."

        return [
            ("Sampling", sampling),
            ("Noise multiplier", f"sigma = {each(trainings, 'noise_multiplier')}; {NOISE_OVER_CLIP}"),
            ("Clip", f"{_clips(released, trainings)}: {CLIP_OF_A_SITE}"),
            *_over_rounds(released[0]),
            ("Weights", f"Each site's public weight over {each(trainings, 'heaviest')}, the largest."),
            (
                "Denominator",
                f"{each(trainings, 'denominator')}: the weight that is expected to join, over the largest.",
            ),
            ("Rounds", f"{most_rounds(trainings)}, the most in which one site counts."),
        ]

    def audited(self, releases: Sequence[Release]) -> Audited:
        """Return one round, as often as the site takes part."""
        return Audited(releases[0], len(releases))


def _clips(released: Sequence[Mapping[str, Any]], trainings: Sequence[Training]) -> str:
    """Write the clip, or from where to where an adaptive one moved."""
    if released[0]["bit_noise"] is None:
        return each(trainings, "clip")

    clips = [values["clip"] for values in released]
    return f"{min(clips):g} to {max(clips):g}"


def _over_rounds(did: Mapping[str, Any]) -> Pairs:
    """Tell what ties the rounds together: a clip that moves, or noise that is correlated."""
    pairs = []
    if did["bit_noise"] is not None:
        together = SiteUpdate(**did).segment().noise_multiplier
        pairs.append((
            "Adaptive clip",
            "The clip follows a quantile of the norms, by the noisy number of sites within it. The noise on the sum of "
            f"their bits, each plus or minus one half, has the standard deviation {did['bit_noise']:g}; bits and "
            f"updates together cost as much as sigma = {together:.4g} alone.",
        ))  # fmt: skip
    if did["band"] > 1:
        pairs.append((
            "Correlation",
            f"The noise is correlated over {did['band']} rounds, so that parts of it cancel as rounds add up (banded "
            "square-root factorisation). No site is asked twice within as many rounds, in a schedule that anybody may "
            "know. Sigma is what a round costs a site; the independent noise that it is made of is "
            f"{column_norm(did['band']):.4g} times as large.",
        ))  # fmt: skip
    return pairs
