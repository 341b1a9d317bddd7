"""One whole site, protected from the server too by shares of the noise that the sites add under masks.

Relation: that of ``client``: a site is there or not, or its rows are replaced.
Trusted: the sites, but for as many as may collude, to add their shares. Not trusted: the server, the readers of the
models.
The site: clips its change of the model, weighs it, rounds it to a public grid, adds its share of the noise
(``fedsim.privacy.noise_shares``) and sends it under masks.
The server: learns the noisy sum (secure aggregation) and divides it by a public number.
Cost: every round of a site is a release. Nothing is claimed from the choice of a round's sites: the server knows it.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from fedsim.privacy.ledger import Release
from fedsim.privacy.noise_shares import NoiseShare, noisy
from fedsim.privacy.promise import (
    BY_SEED,
    CLIP_OF_A_SITE,
    FILES,
    FROM_THE_SYSTEM,
    Pairs,
    Promise,
    Training,
    each,
    most_rounds,
    releases_in,
)
from fedsim.privacy.unit import Asked, Audited, Cost, Exposure, Place, Protected, Sampled, Unit
from fedsim.privacy.units.client import Client
from fedsim.randomness import Words

_CLIENT = Client.promise  # the same relation, and much the same gaps

_PROMISE = Promise(
    protected="whole site",
    unit=_CLIENT.unit,
    neighbours=_CLIENT.neighbours,
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
        *_CLIENT.not_covered[:-1],
        "That the noise is a rounded Gaussian, and that a sum of them promises no less than a Gaussian, holds for "
        "exact Gaussians: the shares are computed from 64 random bits a number and end at 6.66 standard deviations.",
        FILES,
    ),
    secure="Secure: each site's share of the noise comes "
    + FROM_THE_SYSTEM.format(each="each of its rounds", same=BY_SEED, other="noise"),
    seed=" Presumed is also a noise seed that nobody knows, or the shares of all sites would be known.",
)


class Distributed(Unit):
    """A whole site, by shares of the noise that the sites add under secure aggregation."""

    neighbours = ("add-or-remove-one", "replace-one")
    arms = ("federated",)
    settings = (("secure_aggregation.colluding", "whose sites each add a share of the noise"),)
    needs = (
        (
            "secure_aggregation.drop_outs",
            "how many sites may be missing from a sum, whose shares of the noise are missing, too",
        ),
    )

    protects = Protected.SITE
    place = Place.IN_SHARES
    sampled = Sampled.NOTHING
    releases = (NoiseShare,)
    promise = _PROMISE

    def cost(self, exposure: Exposure) -> Cost:
        """Return the rounds of the site that takes part most often, none of them by chance."""
        return Cost(1.0, exposure.most_rounds)

    def release(self, asked: Asked) -> NoiseShare:
        """Return a site's share of the noise in a round, and its worth in the sum."""
        return NoiseShare(
            noise_multiplier=asked.noise_multiplier,
            clip=asked.clip,
            params=asked.params,
            asked=asked.sites,
            drop_outs=asked.drop_outs,
            colluding=asked.colluding,
            rng=asked.rng,
        )

    def noisy_share(self, change: Tensor, weight: float, did: NoiseShare, words: Words) -> np.ndarray:
        """Clip, weigh and round the site's change of the model, and add its share of the noise."""
        return noisy(change, weight, did, words)

    def done(self, trainings: Sequence[Training]) -> Pairs:
        """Tell what the sites did to their updates, as each wrote it down beside its masked vector."""
        shares = {NoiseShare(**values) for values in releases_in(trainings)}
        in_order = sorted(shares, key=lambda share: (share.asked, share.noise_multiplier))
        of_each = dict.fromkeys(
            f"{share.asked} sites each add noise of standard deviation {share.deviation:.4g}; {share.drop_outs} may be "
            f"missing, {share.colluding} may tell theirs"
            for share in in_order
        )
        reach = " or ".join(sorted({f"{share.sensitivity:.6g}" for share in shares}))

        return [
            ("Sampling", "None is claimed: the server knows whom it asks."),
            (
                "Noise multiplier",
                f"sigma = {each(trainings, 'noise_multiplier')}; the standard deviation of the noise on a sum is at "
                "least sigma times the sensitivity, of shares that are in any sum and known to nobody.",
            ),
            ("Clip", f"{each(trainings, 'clip')}: {CLIP_OF_A_SITE[:-1]}; with rounding the sensitivity is {reach}."),
            ("Shares", f"{' or '.join(of_each)}."),
            ("Rounds", f"{most_rounds(trainings)}, the most in which one site counts."),
        ]

    def audited(self, releases: Sequence[Release]) -> Audited:
        """Return one share, as often as the site adds one."""
        return Audited(releases[0], len(releases))
