"""Membership of whole sites: can an attacker tell from the final model which sites took part?

Shadow federations of random halves of the sites are trained, in pairs that complement each other, by FedAvg, all sites
of all federations as one cohort. Each serves as the target once, the others as the attacker's references, as in
``membership``; what is looked at is the mean confidence of a site's training rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedsim.audits.claims import SiteClaim, central_of
from fedsim.audits.membership import Membership, confidences, halves, judge, lira
from fedsim.audits.site_canaries import anew
from fedsim.audits.target import Training
from fedsim.data.federation import Federation, Site
from fedsim.flower.grid import node_of
from fedsim.flower.secure.shares import weights_of
from fedsim.planning.participation import share_of_sites, sites_of_round
from fedsim.privacy.unit import Place
from fedsim.privacy.units import unit_of
from fedsim.randomness import Words
from fedsim.scenario.schema import Scenario
from fedsim.training.losses import RowLosses
from fedsim.training.work import Done, Streams, Work, plan

TrainAll = Callable[[Sequence[Work]], list[Done]]
Round = Callable[[int, Tensor, Mapping[int, Tensor], Sequence[int]], Tensor]
"""From a round's number, its model (params,), {site: its update (params,)} of those that took part, and the numbers of
all that were asked to the next model. A site that is asked and is not in the federation sends no change."""
_AT_ONCE = 1000  # works that are trained together
_WORKS = 6000  # that all federations may take: some ten seconds
_FEWEST = 8


@dataclass(frozen=True)
class Attacked:
    """What is attacked: a federation, and what it is trained from and by."""

    scenario: Scenario
    federation: Federation
    start: Tensor
    model: torch.nn.Module
    losses: RowLosses
    train_all: TrainAll


def attack(one: Attacked, claim: SiteClaim, kind: Training, shadows: int, seed: int) -> dict[str, Membership]:
    """Return {attack: how well it does}: ``loss`` and ``lira``; nothing if there are fewer than four sites.

    Args:
        one: The federation.
        claim: What is done to its sites' updates.
        kind: With or without that.
        shadows: How many federations at most, an even number; fewer where they are large.
        seed: Of the audit; it decides about membership, sampling, batches and noise.
    """
    sites = one.federation.sites
    if len(sites) < 4:
        return {}
    expected = share_of_sites(one.scenario, one.federation.names) * len(sites) / 2 * one.scenario.training.rounds
    shadows = max(_FEWEST, min(shadows, 2 * int(_WORKS / expected / 2)))
    members = halves(len(sites), shadows, seed)  # bool (shadows, sites)
    rounds = [_round(one, claim if kind == "private" else None, shadow, seed) for shadow in range(shadows)]
    models = _federate(one, members, rounds, seed)
    found = np.array([[_confidence(one, site, model) for site in sites] for model in models])  # (shadows, sites)
    scores = {"loss": found, "lira": lira(found, members)}
    return {name: judge(own[members], own[~members]) for name, own in scores.items()}


def _federate(one: Attacked, members: np.ndarray, rounds: Sequence[Round], seed: int) -> list[Tensor]:
    """Train a federation of each row's sites; return their final models."""
    scenario, names = one.scenario, one.federation.names
    todo = [plan(scenario, scenario.expected_batch(name), None) for name in names]
    models = [one.start] * len(members)
    for number in range(1, scenario.training.rounds + 1):
        asked = [sites_of_round(scenario, seed + shadow, names, number) for shadow in range(len(members))]
        places = [(shadow, site) for shadow, own in enumerate(asked) for site in own if members[shadow, site]]
        works = [
            Work(one.model, models[shadow], one.federation.sites[site].train, todo[site],
                 _streams(seed, shadow, site, number), one.losses)
            for shadow, site in places
        ]  # fmt: skip
        updates: list[dict[int, Tensor]] = [{} for _ in members]
        for (shadow, site), done in zip(places, _trained(works, one.train_all), strict=True):
            updates[shadow][site] = done.parameters
        models = [
            step(number, model, own, who) for step, model, own, who in zip(rounds, models, updates, asked, strict=True)
        ]
    return models


def _trained(works: Sequence[Work], train_all: TrainAll) -> list[Done]:
    return [done for first in range(0, len(works), _AT_ONCE) for done in train_all(works[first : first + _AT_ONCE])]


def _round(one: Attacked, claim: SiteClaim | None, shadow: int, seed: int) -> Round:
    """Return what a federation does with a round's updates."""
    scenario, names = one.scenario, one.federation.names
    weights = list(weights_of(scenario, names).values())
    if claim is None:
        return lambda number, center, updates, asked: (
            center + _sum(center, updates, weights) / max(sum(weights[site] for site in updates), 1e-9)
        )
    unit = unit_of(scenario.privacy.unit)
    if unit.place is Place.AT_SERVER:
        return _at_the_server(one, claim, shadow, seed)
    if unit.place not in (Place.ON_UPDATES, Place.IN_SHARES):
        raise TypeError(f"expected a unit whose sites or server add noise to updates, got {scenario.privacy.unit}")
    did = claim.release

    def released(number: int, center: Tensor, updates: Mapping[int, Tensor], asked: Sequence[int]) -> Tensor:
        total = torch.zeros_like(center, dtype=torch.float64)
        for site in asked:
            words, update = Words.of(seed, "shadow site noise", shadow, site, number), updates.get(site, center)
            if unit.place is Place.ON_UPDATES:
                total += weights[site] * (unit.noised(center, update, did, words).double() - center)
            else:
                total += torch.from_numpy(unit.noisy_share(update - center, weights[site], did, words))
        return (center + total / sum(weights[site] for site in asked)).float() if asked else center

    return released


def _at_the_server(one: Attacked, claim: SiteClaim, shadow: int, seed: int) -> Round:
    server = anew(
        central_of(one.scenario, claim.segment.noise_multiplier, one.federation.names),
        lambda number: Words.of(seed, "shadow noise at the server", shadow, number),
    )

    def released(number: int, center: Tensor, updates: Mapping[int, Tensor], asked: Sequence[int]) -> Tensor:
        found = torch.stack([*updates.values()]) if updates else center.new_empty(0, len(center))
        nodes = [node_of(site) for site in updates]
        return center + server.release(number, [node_of(site) for site in asked], center, found, nodes)

    return released


def _sum(center: Tensor, updates: Mapping[int, Tensor], weights: Sequence[float]) -> Tensor:
    return sum((weights[site] * (update - center) for site, update in updates.items()), torch.zeros_like(center))


def _confidence(one: Attacked, site: Site, model: Tensor) -> float:
    return float(confidences(one.model, model, site.train, one.losses).mean())


def _streams(seed: int, *place: int) -> Streams:
    return Streams(Words.of(seed, "shadow site batches", *place), Words.of(seed, "no noise", *place), sum(place))
