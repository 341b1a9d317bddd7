"""Source inference: at which site is a record of which it is known that it was trained on?

Hu, Salcic, Sun, Dobbie, Zhang 2021, "Source inference attacks in federated learning",
https://arxiv.org/abs/2109.05659. The attacker is the server: it sees each site's model after each round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from fedsim import figures
from fedsim.audits.attack import Attack
from fedsim.audits.claims import RECORDS
from fedsim.audits.finding import IN_WORDS, SITES, Finding, Measured, Row
from fedsim.audits.target import Target, joined
from fedsim.data.federation import Examples
from fedsim.randomness import Words, stream
from fedsim.training.functional import outputs_with
from fedsim.training.losses import RowLosses
from fedsim.training.model import parts_of
from fedsim.training.work import Streams, Work

_OF_EACH = 100  # site: records whose source is guessed


@dataclass(frozen=True)
class Source:
    """How often a record's site was named rightly.

    Attributes:
        right: The share of the records, of which each site has equally many.
        guessing: The share that guessing would reach: 1 over the number of sites.
        sites: How many sites.
    """

    right: float
    guessing: float
    sites: int


class SourceInference(Attack):
    """Names the sites that records are at."""

    places = RECORDS
    question = SITES
    label = "at which site"
    sections: ClassVar = {"source": {}}

    def run(self, target: Target) -> Finding | None:
        """Attack the first sites; None if there is only one."""
        if len(target.sites) < 2:
            return None
        found = attack(target)
        right = figures.share(found.right, 1)
        guessing = figures.share(found.guessing, 1)
        return self.finding(
            target,
            measured=(Measured("named rightly", "share", found.right),),
            words=(f"{IN_WORDS[target.training]}: {right} named rightly, guessing {guessing}",),
            rows=(
                Row(
                    "At which site is a record?",
                    f"named rightly; guessing reaches {guessing}",
                    right,
                ),
            ),
            section={"source": {target.training: asdict(found)}},
        )


def attack(target: Target, records: int = _OF_EACH) -> Source:
    """Train together as FedAvg does, and name for each record the site whose models had the least loss on it.

    Args:
        target: Its sites are attacked, in all rounds of its scenario; their ``expected_batch`` is their weight.
        records: How many records of each site are attacked at most; no more than the smallest site has.
    """
    rows = _equally_many([site.rows for site in target.sites], records, target.seed)
    weights = torch.tensor([site.plan.expected_batch for site in target.sites])
    center = target.start
    scores = np.zeros((len(target.sites), len(rows)))
    for number in range(target.scenario.training.rounds):
        works = []
        for place, site in enumerate(target.sites):
            streams = _streams(target.seed, number, place)
            works.append(Work(target.model, center, site.rows, site.plan, streams, target.losses))
        updated = torch.stack([done.parameters for done in target.train_all(works)])  # (sites, params)

        scores += losses_on(target.model, updated, target.losses, rows)
        center = (weights / weights.sum()).to(updated) @ updated
    return named(scores)


def named(scores: np.ndarray) -> Source:
    """Count how often the least of each column is in the right row.

    Args:
        scores: Losses (sites, records), whose columns are site by site, equally many of each.
    """
    sites, records = scores.shape
    truth = np.repeat(np.arange(sites), records // sites)
    right = float((scores.argmin(0) == truth).mean())
    return Source(right, 1 / sites, sites)


def losses_on(model: nn.Module, models: Tensor, losses: RowLosses, rows: Examples) -> np.ndarray:
    """Compute each model's loss on each record, float64 (models, records), given parameters (models, params)."""
    with torch.no_grad():
        of_each = []
        for parameters in models:
            outputs = outputs_with(model, parts_of(model, parameters), rows.inputs)
            of_each.append(losses(outputs, rows.target))
    return torch.stack(of_each).double().cpu().numpy()


def _equally_many(sites: Sequence[Examples], records: int, seed: int) -> Examples:
    """Choose equally many rows of each site at random."""
    count = min(records, *map(len, sites))
    random = stream(seed, "source records")
    parts = []
    for rows in sites:
        chosen = torch.from_numpy(random.permutation(len(rows))[:count])
        parts.append(rows.some(chosen))
    return joined(parts)


def _streams(seed: int, number: int, site: int) -> Streams:
    return Streams(
        batches=Words.of(seed, "source batches", number, site),
        noise=Words.of(seed, "source noise", number, site),
        layers=number,
    )
