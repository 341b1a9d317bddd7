"""The mechanisms that protect whole sites, watched: updates made to be noticed are looked for in their releases.

The mechanism's own code runs with the settings of a scenario: its clip, noise, sampling and shares. Only the updates
are made up. The canary's is as long as the clip lets it be, every other site's is no change at all; an attacker who
knows both has nothing but the noise to cope with, which is what the promise supposes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fedsim.audits.claims import SiteClaim, central_of
from fedsim.audits.target import Target
from fedsim.privacy.accounting import Segment
from fedsim.privacy.central import CentralNoise, PublicSites
from fedsim.privacy.correlated import diagonals
from fedsim.privacy.ledger import Ledger, OwnUpdate, SiteUpdate
from fedsim.privacy.noise_shares import NoiseShare, noisy
from fedsim.privacy.own_update import noised
from fedsim.randomness import Words, choose

_LOUD = 1e6  # a canary's update over the clip; an adaptive clip does not outgrow it
_LOUDEST = 1e37  # the largest number that float32 can hold, nearly


class Score(Protocol):
    """An attacker that watches all rounds of a mechanism once."""

    def __call__(self, sent: float, trial: int) -> float:
        """Return the canary's score; higher means that it was in.

        Args:
            sent: The canary's update, in clips: 1, 0 or -1.
            trial: A number that no other run has.
        """
        ...


class RoundWords(Protocol):
    """The random words of a round's noise."""

    def __call__(self, number: int, /) -> Words:
        """Return the words of the round of this number; no two rounds share any."""
        ...


def score_of(target: Target, trials: int) -> Score:
    """Watch the mechanism that the target claims for its sites, in so many pairs of runs."""
    claim = target.site_claim
    if isinstance(claim.release, OwnUpdate):
        return by_itself(claim.release, claim.rounds, target.seed)
    if isinstance(claim.release, NoiseShare):
        return under_masks(claim.release, claim.rounds, trials, target.seed)
    if isinstance(claim.release, SiteUpdate):
        return at_the_server(central_noise_of(target), claim, target.seed)
    raise TypeError(f"expected a release that an attack is known for, got a {type(claim.release).__name__}")


def central_noise_of(target: Target) -> CentralNoise:
    """Build the server's mechanism as the target's scenario has it, with the noise that is claimed."""
    names = target.federation.names
    return central_of(target.scenario, target.site_claim.segment.noise_multiplier, names)


def is_replaced(claim: SiteClaim) -> bool:
    """Tell whether the canary's neighbour sends the opposite update: sites are replaced, and nothing is sampled."""
    return claim.neighbours == "replace-one" and claim.segment.sampling_rate == 1


def loud(clip: float) -> float:
    """Return the length of an update that is clipped for certain."""
    return min(_LOUD * clip, max(_LOUDEST, clip))


def at_the_server(central: CentralNoise, claim: SiteClaim, seed: int) -> Score:
    """Watch a server that adds the noise; the heaviest site is the canary."""
    node = max(central.sites.weights, key=central.sites.weights.__getitem__)
    bits_tell = not is_replaced(claim)  # the opposite update is as loud

    def score(sent: float, trial: int) -> float:
        update = torch.tensor([[sent * loud(central.clip)]])
        nodes = [node] if sent else []
        rounds = releases(central, central.sites, claim.segment, nodes, update[: len(nodes)], trial, seed)
        shown = [_with_clip(release) if bits_tell else release.seen for release in rounds]
        return float(log_ratio(torch.stack(shown), claim.segment))

    return score


def by_itself(mechanism: OwnUpdate, rounds: int, seed: int) -> Score:
    """Watch a site that adds the noise itself."""
    center = torch.zeros(1)

    def score(sent: float, trial: int) -> float:
        update = torch.tensor([sent * loud(mechanism.clip)])
        seen = []
        for number in range(rounds):
            words = Words.of(seed, "audited update", trial, number)
            seen.append(noised(center, update, mechanism, words))
        return float(torch.stack(seen).double().sum()) / mechanism.clip

    return score


def under_masks(share: NoiseShare, rounds: int, trials: int, seed: int) -> Score:
    """Watch sums of noise shares: as many sites are missing as may be, and as many tell their shares.

    The attacker knows those shares and can take them off. The other sites send no change, so the noise of all trials
    comes from one call each: numbers of a share do not depend on each other.
    """
    others = share.asked - share.drop_outs - share.colluding - 1
    nothing = torch.zeros(2 * trials)
    noise = np.zeros(2 * trials)
    for site in range(others):
        for number in range(rounds):
            noise += noisy(nothing, 1.0, share, Words.of(seed, "audited shares", site, number))

    def score(sent: float, trial: int) -> float:
        update = torch.tensor([sent * loud(share.clip)])
        released = []
        for number in range(rounds):
            words = Words.of(seed, "audited share", trial, number)
            released.append(noisy(update, 1.0, share, words)[0])
        return float(sum(released) + noise[trial]) / share.sensitivity

    return score


def log_ratio(seen: Tensor, segment: Segment) -> Tensor:
    """Compute how much likelier each coordinate's releases are with its site in them, log, float64 (params,)."""
    of_each = (2 * seen - 1) / (2 * segment.noise_multiplier**2)
    without = torch.tensor(1 - segment.sampling_rate).log()
    return torch.logaddexp(without, math.log(segment.sampling_rate) + of_each).sum(0)


@dataclass(frozen=True)
class RoundRelease:
    """A round's release, as the attacker reads it.

    Attributes:
        seen: Of each coordinate, over the clip, float64 (params,): 1 for a canary, with noise.
        did: The mechanism.
        bits: The noisy sum of the bits, which the next clip gives away; None if the clip does not move.
    """

    seen: Tensor
    did: SiteUpdate
    bits: float | None


def _with_clip(release: RoundRelease) -> Tensor:
    """Combine a round's sum and bits on one site that is louder than the clip, each by its weight."""
    if release.bits is None or release.did.bit_noise is None:
        return release.seen
    on_sum = release.did.noise_multiplier**-2
    on_bits = (2 * release.did.bit_noise) ** -2
    return (on_sum * release.seen - on_bits * 2 * release.bits) / (on_sum + on_bits)  # its bit is minus one half


def sites_alike(sites: int, rate: float) -> PublicSites:
    """Make up so many sites of equal weight that each join a round with the same probability."""
    expected = rate * sites
    return PublicSites(
        names={node: str(node) for node in range(sites)},
        weights=dict.fromkeys(range(sites), 1.0),
        sampling_rate=rate,
        expected=lambda number: (expected, expected),
    )


def releases(
    central: CentralNoise, sites: PublicSites, segment: Segment, nodes: Sequence[int], updates: Tensor, trial: int,
    seed: int,
) -> Iterator[RoundRelease]:  # fmt: skip
    """Yield what each round's release shows.

    The mechanism begins anew, with noise of its own and an empty ledger. Sites join a round with the segment's
    probability; at 1, each is in every ``band``-th round, which is as often as correlated noise allows. The attacker
    takes the correlation out, as ``correlated`` says, and looks where a site's updates then are.

    Args:
        central: The mechanism.
        sites: Its sites.
        segment: The sampling rate, and how many rounds a site is in at most.
        nodes: The sites that send something.
        updates: Their updates whenever they are asked, (sites, params).
        trial: A number that no other run has.
        seed: Of the audit.
    """
    server = anew(
        replace(central, sites=sites), lambda number: Words.of(seed, "audited noise at the server", trial, number)
    )
    center = torch.zeros(updates.shape[1])
    filters = diagonals(server.band)
    last: deque[Tensor] = deque(maxlen=server.band)  # the releases, the newest first
    for number in range(server.band * segment.steps):
        words = Words.of(seed, "audited sites", trial, number).draw(len(nodes))
        joins = choose(words, segment.sampling_rate) & (number % server.band == 0)
        places = np.flatnonzero(joins).tolist()
        asked = [nodes[place] for place in places]
        did = server.planned(number + 1)
        released = server.release(number + 1, asked, center, updates[places], asked).double()

        last.appendleft(released * did.denominator / did.clip)
        together = sum((part * value for part, value in zip(last, filters, strict=False)), center.double())
        yield RoundRelease(
            seen=filters[number % server.band] * together,
            did=did,
            bits=_bits(server, number + 1, did.clip),
        )


def anew(central: CentralNoise, words: RoundWords) -> CentralNoise:
    """Return the same mechanism before its first round, with other noise and an empty ledger."""
    ledger = Ledger(central.ledger.delta, central.ledger.neighbours)
    return replace(central, ledger=ledger, adaptive=copy(central.adaptive), words=words)


def _bits(server: CentralNoise, number: int, before: float) -> float | None:
    """Work out the noisy sum of a round's bits from the clip before and after it."""
    adaptive = server.adaptive
    if adaptive is None:
        return None
    within = adaptive.quantile - math.log(adaptive.clip / before) / adaptive.rate
    expected, _ = server.sites.expected(number)
    return (within - 0.5) * expected
