"""Membership of sites: which sites took part, by the final model of a whole federation?

Shadow federations of random halves of the sites are trained by FedAvg, all sites of all federations as one cohort. They
serve as targets and references as ``shadow_models`` says; the score is LiRA's on the mean confidence of a site's
training rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from fedsim.audits.attack import Attack
from fedsim.audits.claims import SITES
from fedsim.audits.finding import IN_WORDS, MEMBERS, Finding, Row
from fedsim.audits.shadow_models import Membership, confidences, halves, judge, lira
from fedsim.audits.site_mechanisms import anew, central_noise_of
from fedsim.audits.target import Target
from fedsim.data.federation import Site
from fedsim.flower.grid import node_of
from fedsim.flower.secure.shares import weights_of
from fedsim.planning.participation import share_of_sites, sites_of_round
from fedsim.privacy.unit import Place
from fedsim.privacy.units import unit_of
from fedsim.randomness import Words
from fedsim.training.work import Done, Streams, Work, plan

_AT_ONCE = 1000  # works that are trained together
_WORKS = 6000  # that all federations may take: some ten seconds
_FEWEST = 8  # federations
_FEWEST_SITES = 4


class Round(Protocol):
    """How a federation makes the next model of a round's updates."""

    def __call__(
        self, number: int, center: Tensor, updates: Mapping[int, Tensor], asked: Sequence[int], /
    ) -> Tensor:  # fmt: skip
        """Return the next model, (params,).

        Args:
            number: Of the round.
            center: Its model, (params,).
            updates: {site: its update (params,)} of the sites that took part.
            asked: The numbers of all sites that were asked. A site that is asked and not in the federation sends no
                change.
        """
        ...


class SiteMembership(Attack):
    """Tells sites that took part from others."""

    places = SITES
    question = MEMBERS
    label = "which sites"
    sections: ClassVar = {"membership": {}}

    def run(self, target: Target) -> Finding | None:
        """Attack federations of halves of the sites; None if there are fewer than four sites."""
        found = attack(target)
        if not found:
            return None
        figures = ", ".join(f"{name} {result}" for name, result in found.items())
        hint = "AUC, where 0.5 is guessing, and in brackets the sites found at 1 % false alarms"
        return self.finding(
            target,
            measured=tuple(result.measured(name, target.promised) for name, result in found.items()),
            words=(f"{IN_WORDS[target.training]}: AUC (found at 1 % false alarms)", figures),
            rows=(
                Row("Which sites, LiRA", hint, str(found["lira"])),
                Row("Which sites, by the loss alone", "", str(found["loss"])),
            ),
            section={"membership": {target.training: {name: asdict(result) for name, result in found.items()}}},
        )


def attack(target: Target) -> dict[str, Membership]:
    """Return {score: how well it tells members}: ``loss`` and ``lira``; nothing if there are fewer than four sites."""
    sites = target.federation.sites
    if len(sites) < _FEWEST_SITES:
        return {}
    scenario = target.scenario
    asked_each_round = share_of_sites(scenario, target.federation.names) * len(sites)
    works = asked_each_round / 2 * scenario.training.rounds  # of one federation, as expected
    shadows = max(_FEWEST, min(target.effort.shadows, 2 * int(_WORKS / works / 2)))
    members = halves(len(sites), shadows, target.seed)  # bool (shadows, sites)

    models = federate(target, members, [round_of(target, shadow) for shadow in range(shadows)])
    found = np.array([[_confidence(target, site, model) for site in sites] for model in models])  # (shadows, sites)
    scores = {"loss": found, "lira": lira(found, members)}
    return {name: judge(score[members], score[~members]) for name, score in scores.items()}


def federate(target: Target, members: np.ndarray, rounds: Sequence[Round]) -> list[Tensor]:
    """Train a federation of each row's sites, bool (shadows, sites); return their final models, (params,) each."""
    scenario = target.scenario
    names = target.federation.names
    sites = target.federation.sites
    models = [target.start] * len(members)
    for number in range(1, scenario.training.rounds + 1):
        asked = [sites_of_round(scenario, target.seed + shadow, names, number) for shadow in range(len(members))]
        places = [(shadow, site) for shadow, chosen in enumerate(asked) for site in chosen if members[shadow, site]]
        site_plans = [plan(scenario, scenario.expected_batch(name), None, number) for name in names]
        works = []
        for shadow, site in places:
            streams = _streams(target.seed, shadow, site, number)
            works.append(
                Work(target.model, models[shadow], sites[site].train, site_plans[site], streams, target.losses)
            )
        updates: list[dict[int, Tensor]] = [{} for _ in members]
        for (shadow, site), done in zip(places, _trained(target, works), strict=True):
            updates[shadow][site] = done.parameters
        models = [
            step(number, models[shadow], updates[shadow], asked[shadow]) for shadow, step in enumerate(rounds)
        ]  # fmt: skip
    return models


def _trained(target: Target, works: Sequence[Work]) -> list[Done]:
    results: list[Done] = []
    for first in range(0, len(works), _AT_ONCE):
        results += target.train_all(works[first : first + _AT_ONCE])
    return results


def round_of(target: Target, shadow: int) -> Round:
    """Build the aggregation of one federation, with the target's noise or without."""
    if target.training == "plain":
        return _averaging(target)
    if target.place is Place.AT_SERVER:
        return _at_the_server(target, shadow)
    return _at_the_sites(target, shadow)


def _averaging(target: Target) -> Round:
    """FedAvg of the sites that took part."""
    weights = list(weights_of(target.scenario, target.federation.names).values())

    def aggregated(number: int, center: Tensor, updates: Mapping[int, Tensor], asked: Sequence[int]) -> Tensor:
        total = torch.zeros_like(center)
        for site, update in updates.items():
            total = total + weights[site] * (update - center)
        return center + total / max(sum(weights[site] for site in updates), 1e-9)

    return aggregated


def _at_the_sites(target: Target, shadow: int) -> Round:
    """FedAvg of updates that the sites have added noise to, alone or in shares."""
    weights = list(weights_of(target.scenario, target.federation.names).values())
    mechanism = target.site_claim.release
    unit = unit_of(target.scenario.privacy.unit)
    if unit.place not in (Place.ON_UPDATES, Place.IN_SHARES):
        raise TypeError(f"expected a unit whose sites add noise to updates, got {target.scenario.privacy.unit}")

    def aggregated(number: int, center: Tensor, updates: Mapping[int, Tensor], asked: Sequence[int]) -> Tensor:
        if not asked:
            return center
        total = torch.zeros_like(center, dtype=torch.float64)
        for site in asked:
            words = Words.of(target.seed, "shadow site noise", shadow, site, number)
            update = updates.get(site, center)
            if unit.place is Place.ON_UPDATES:
                total += weights[site] * (unit.noised(center, update, mechanism, words).double() - center)
            else:
                total += torch.from_numpy(unit.noisy_share(update - center, weights[site], mechanism, words))
        return (center + total / sum(weights[site] for site in asked)).float()

    return aggregated


def _at_the_server(target: Target, shadow: int) -> Round:
    """The server's noisy mean."""
    server = anew(
        central_noise_of(target),
        lambda number: Words.of(target.seed, "shadow noise at the server", shadow, number),
    )

    def aggregated(number: int, center: Tensor, updates: Mapping[int, Tensor], asked: Sequence[int]) -> Tensor:
        stacked = torch.stack([*updates.values()]) if updates else center.new_empty(0, len(center))
        asked_nodes = [node_of(site) for site in asked]
        nodes = [node_of(site) for site in updates]
        return center + server.release(number, asked_nodes, center, stacked, nodes)

    return aggregated


def _confidence(target: Target, site: Site, model: Tensor) -> float:
    return float(confidences(target.model, model, site.train, target.losses).mean())


def _streams(seed: int, *place: int) -> Streams:
    return Streams(
        batches=Words.of(seed, "shadow site batches", *place),
        noise=Words.of(seed, "no noise", *place),
        layers=sum(place),
    )
