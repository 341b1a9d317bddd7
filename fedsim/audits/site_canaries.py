"""Canaries that are whole sites: updates made to be noticed, put through the mechanism, and looked for in its releases.

The mechanism's own code runs with the settings of a scenario: its clip, noise, sampling and shares. What is made up is
the updates. The canary's is as long as the clip lets it be, every other site's is no change at all; an attacker who
knows both has nothing but the noise to cope with, which is what the promise supposes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fedsim.audits.bounds import one_run_bound, paired_bound
from fedsim.audits.canaries import CanaryAudit, gaussian_estimate
from fedsim.audits.claims import SiteClaim, central_of
from fedsim.audits.one_shot import OneShot, directions_of, estimate
from fedsim.audits.target import Effort
from fedsim.audits.trade_off import one_run_noise_bound, paired_noise_bound
from fedsim.data.federation import federate
from fedsim.privacy.accounting import Segment
from fedsim.privacy.central import CentralNoise, PublicSites
from fedsim.privacy.correlated import diagonals
from fedsim.privacy.ledger import Ledger, OwnUpdate, SiteUpdate
from fedsim.privacy.noise_shares import NoiseShare, noisy
from fedsim.privacy.own_update import noised
from fedsim.randomness import Words, choose, stream
from fedsim.scenario.schema import Scenario

_LOUD = 1e6  # a canary's update over the clip; an adaptive clip does not outgrow it
_LOUDEST = 1e37  # what float32 can hold
_CALLS = 40_000  # of a mechanism, that all trials of one audit may take: seconds


Score = Callable[[float, int], float]
"""From what the canary sends, in clips (1, 0 or -1), and the number of a trial to what the attacker reads off."""


def paired(score: Score, claim: SiteClaim, trials: int) -> CanaryAudit:
    """Run the mechanism often with the canary and as often with its neighbour, and tell the two apart.

    The neighbour sends nothing. Where a site may be replaced and nothing is claimed from sampling, it sends the
    opposite, which is twice as far away.

    Args:
        score: Runs all rounds once.
        claim: What is claimed.
        trials: How many with the canary.
    """
    inside = np.array([score(1.0, 2 * number) for number in range(trials)])
    outside = np.array([score(-1.0 if _replaced(claim) else 0.0, 2 * number + 1) for number in range(trials)])
    attacked = claim.segment  # the trade-off curves are those of add or remove one
    if _replaced(claim):
        attacked = replace(attacked, noise_multiplier=attacked.noise_multiplier / 2)
    bounds = paired_bound(inside, outside, claim.delta), paired_noise_bound(inside, outside, attacked, claim.delta)
    return CanaryAudit(*bounds, gaussian_estimate(inside, outside, claim.delta), trials)


def trials_of(claim: SiteClaim, wanted: int) -> int:
    """Return how many pairs are tried: those that are wanted, or what takes seconds."""
    band = claim.release.band if isinstance(claim.release, SiteUpdate) else 1
    return max(100, min(wanted, _CALLS // (2 * claim.rounds * band)))


def _loud(clip: float) -> float:
    return min(_LOUD * clip, max(_LOUDEST, clip))


def _replaced(claim: SiteClaim) -> bool:
    return claim.neighbours == "replace-one" and claim.segment.sampling_rate == 1


def at_the_server(central: CentralNoise, claim: SiteClaim, seed: int) -> Score:
    """Return what watches a server that adds the noise: the heaviest site is the canary."""
    node = max(central.sites.weights, key=central.sites.weights.__getitem__)

    def score(sent: float, trial: int) -> float:
        update = torch.tensor([[sent * _loud(central.clip)]])
        nodes = [node] if sent else []
        watched = _watched(central, central.sites, claim.segment, nodes, update[: len(nodes)], trial, seed)
        bits = not _replaced(claim)  # the opposite is as loud
        return float(_ratio(torch.stack([_with_clip(one) if bits else one.seen for one in watched]), claim.segment))

    return score


def one_run(central: CentralNoise, claim: SiteClaim, canaries: int, seed: int) -> CanaryAudit:
    """Run once with about half of many sites that each have a coordinate of the model to themselves."""
    included = stream(seed, "audit sites").random(canaries) < 0.5
    nodes = np.flatnonzero(included).tolist()
    updates = _loud(central.clip) * torch.eye(canaries)[nodes]
    sites = _alike(canaries, claim.segment.sampling_rate)
    watched = _watched(central, sites, claim.segment, nodes, updates, -1, seed)
    scores = _ratio(torch.stack([one.seen for one in watched]), claim.segment).numpy()
    bound = one_run_bound(scores, included, claim.delta)
    return CanaryAudit(bound, one_run_noise_bound(scores, included, claim.segment, claim.delta), None, canaries)


def random_sites(central: CentralNoise, claim: SiteClaim, canaries: int, size: int, seed: int) -> OneShot:
    """Run once with sites whose updates are random directions, all of them in it; see ``one_shot``."""
    directions, nodes = directions_of(canaries, size, seed), list(range(canaries))  # (canaries, size)
    updates, sites = _loud(central.clip) * directions, _alike(canaries, claim.segment.sampling_rate)
    watched = _watched(central, sites, claim.segment, nodes, updates, -2, seed)
    return estimate(directions, torch.stack([one.seen for one in watched]).sum(0).float(), claim.delta)


def _ratio(seen: Tensor, segment: Segment) -> Tensor:
    """Return how much likelier each coordinate's releases are with its site in them, log, float64 (params,)."""
    once = (2 * seen - 1) / (2 * segment.noise_multiplier**2)
    return torch.logaddexp(torch.tensor(1 - segment.sampling_rate).log(), math.log(segment.sampling_rate) + once).sum(0)


@dataclass(frozen=True)
class _Watched:
    """What a round's release shows.

    Attributes:
        seen: Of each coordinate, over the clip, float64 (params,): 1 for a canary, with noise.
        did: What was done.
        bits: The noisy sum of the bits, which the next clip gives away; None if the clip does not move.
    """

    seen: Tensor
    did: SiteUpdate
    bits: float | None


def _with_clip(one: _Watched) -> Tensor:
    """Return what a round shows of one site that is louder than the clip, of sum and bits by what each is worth."""
    if one.bits is None or one.did.bit_noise is None:
        return one.seen
    on_sum, on_bits = one.did.noise_multiplier**-2, (2 * one.did.bit_noise) ** -2
    return (on_sum * one.seen - on_bits * 2 * one.bits) / (on_sum + on_bits)  # its bit is minus one half


def _alike(sites: int, rate: float) -> PublicSites:
    expected = rate * sites
    return PublicSites(
        {node: str(node) for node in range(sites)}, dict.fromkeys(range(sites), 1.0), rate,
        lambda number: (expected, expected),
    )  # fmt: skip


def _watched(
    central: CentralNoise, sites: PublicSites, segment: Segment, nodes: Sequence[int], updates: Tensor, trial: int,
    seed: int,
) -> Iterator[_Watched]:  # fmt: skip
    """Yield what each round's release shows.

    The mechanism begins anew, with noise of its own and an empty ledger. Sites join a round with the segment's
    probability; at 1, each is in every ``band``-th round, which is as often as correlated noise allows. Who sees the
    releases takes the correlation out, as ``correlated`` says, and looks where a site's updates then are.

    Args:
        central: The mechanism.
        sites: Its sites.
        segment: The sampling rate, and how many rounds a site is in at most.
        nodes: The sites that send something.
        updates: What they send whenever they are asked, (sites, params).
        trial: A number that no other run has.
        seed: Of the audit.
    """
    server = anew(
        replace(central, sites=sites), lambda number: Words.of(seed, "audited noise at the server", trial, number)
    )
    center, filters = torch.zeros(updates.shape[1]), diagonals(server.band)
    last: deque[Tensor] = deque(maxlen=server.band)  # the releases, the newest first
    for number in range(server.band * segment.steps):
        words = Words.of(seed, "audited sites", trial, number).draw(len(nodes))
        there = np.flatnonzero(choose(words, segment.sampling_rate) & (number % server.band == 0)).tolist()
        asked, did = [nodes[place] for place in there], server.planned(number + 1)
        released = server.release(number + 1, asked, center, updates[there], asked).double()
        last.appendleft(released * did.denominator / did.clip)
        together = sum((part * value for part, value in zip(last, filters, strict=False)), center.double())
        yield _Watched(filters[number % server.band] * together, did, _bits(server, number + 1, did.clip))


def anew(central: CentralNoise, words: Callable[[int], Words]) -> CentralNoise:
    """Return the same mechanism before its first round, with other noise and an empty ledger."""
    ledger = Ledger(central.ledger.delta, central.ledger.neighbours)
    return replace(central, ledger=ledger, adaptive=copy(central.adaptive), words=words)


def _bits(server: CentralNoise, number: int, before: float) -> float | None:
    """Return the noisy sum of a round's bits, from the clip before and after it."""
    adaptive = server.adaptive
    if adaptive is None:
        return None
    within = adaptive.quantile - math.log(adaptive.clip / before) / adaptive.rate
    return (within - 0.5) * server.sites.expected(number)[0]


def by_itself(did: OwnUpdate, rounds: int, seed: int) -> Score:
    """Return what watches a site that adds the noise itself."""
    center = torch.zeros(1)

    def score(sent: float, trial: int) -> float:
        update = torch.tensor([sent * _loud(did.clip)])
        places = [(trial, number) for number in range(rounds)]
        seen = [noised(center, update, did, Words.of(seed, "audited update", *place)) for place in places]
        return float(torch.stack(seen).double().sum()) / did.clip

    return score


def under_masks(share: NoiseShare, rounds: int, trials: int, seed: int) -> Score:
    """Return what watches sums of noise shares: as many sites are missing as may be, and as many tell their shares.

    What those send is known and can be taken off. The other sites send no change, so the noise of all trials comes from
    one call each: numbers of a share do not depend on each other.
    """
    others = share.asked - share.drop_outs - share.colluding - 1
    nothing, noise = torch.zeros(2 * trials), np.zeros(2 * trials)
    for site in range(others):
        for number in range(rounds):
            noise += noisy(nothing, 1.0, share, Words.of(seed, "audited shares", site, number))

    def score(sent: float, trial: int) -> float:
        update = torch.tensor([sent * _loud(share.clip)])
        places = [(trial, number) for number in range(rounds)]
        own = [noisy(update, 1.0, share, Words.of(seed, "audited share", *place))[0] for place in places]
        return float(sum(own) + noise[trial]) / share.sensitivity

    return score


def bounds(
    scenario: Scenario, claim: SiteClaim, effort: Effort, tell: Callable[[str], None]
) -> dict[str, CanaryAudit | OneShot]:
    """Return the fields of an audit that hold bounds on epsilon, and the estimate where there is one.

    Args:
        scenario: The experiment.
        claim: What is claimed for each of its sites.
        effort: How much to try.
        tell: Called with the name of each attack before it starts.
    """
    tell("a whole site, in or out")
    trials, did, rounds = trials_of(claim, effort.trials), claim.release, claim.rounds
    if isinstance(did, OwnUpdate):
        return {"paired": paired(by_itself(did, rounds, effort.seed), claim, trials)}
    if isinstance(did, NoiseShare):
        return {"paired": paired(under_masks(did, rounds, trials, effort.seed), claim, trials)}
    if not isinstance(did, SiteUpdate):
        raise TypeError(f"expected a release that an attack is known for, got a {type(did).__name__}")
    names = federate(scenario, scenario.seed).names
    central = central_of(scenario, claim.segment.noise_multiplier, names)
    found = paired(at_the_server(central, claim, effort.seed), claim, trials)
    tell("many sites in one run")
    return {
        "paired": found,
        "one_run": one_run(central, claim, effort.canaries, effort.seed),
        "one_shot": random_sites(central, claim, effort.directions, effort.size, effort.seed),
    }
