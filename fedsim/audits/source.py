"""Source inference: at which site is a record, of which it is known that it was trained on?

Hu, Salcic, Sun, Dobbie, Zhang 2021, "Source inference attacks in federated learning",
https://arxiv.org/abs/2109.05659. The attacker is the server: it sees each site's model after each round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedsim.data.federation import Examples
from fedsim.randomness import Words, stream
from fedsim.training.functional import outputs_with
from fedsim.training.losses import RowLosses
from fedsim.training.model import parts_of
from fedsim.training.work import Done, Plan, Streams, Work

TrainAll = Callable[[Sequence[Work]], list[Done]]


@dataclass(frozen=True)
class Source:
    """How often a record's site was named rightly.

    Attributes:
        right: The share of the records, of which each site has equally many.
        guessing: What guessing would reach: 1 over the number of sites.
        sites: How many sites.
    """

    right: float
    guessing: float
    sites: int


def attack(
    model: nn.Module, start: Tensor, losses: RowLosses, sites: Sequence[Examples], plans: Sequence[Plan], rounds: int,
    records: int, seed: int, train_all: TrainAll,
) -> Source:  # fmt: skip
    """Train together as FedAvg does, and name for each record the site whose models had the least loss on it.

    Args:
        model: The architecture.
        start: Where the first round starts, (params,).
        losses: The loss.
        sites: Each site's training rows.
        plans: Each site's plan of one round; its ``expected_batch`` is the site's weight.
        rounds: How many rounds; losses are added up over them.
        records: How many records of each site are attacked at most; no more than the smallest site has.
        seed: Of the audit.
        train_all: The engine's.
    """
    rows = _equally_many(sites, records, seed)
    weights = torch.tensor([plan.expected_batch for plan in plans])
    center, scores = start, np.zeros((len(sites), len(rows)))
    for number in range(rounds):
        works = [
            Work(model, center, own, plan, _streams(seed, number, site), losses)
            for site, (own, plan) in enumerate(zip(sites, plans, strict=True))
        ]
        updated = torch.stack([done.parameters for done in train_all(works)])  # (sites, params)
        scores += losses_on(model, updated, losses, rows)
        center = (weights / weights.sum()).to(updated) @ updated
    return named(scores)


def named(scores: np.ndarray) -> Source:
    """Return how often the least of each column is in the right row.

    Args:
        scores: Losses (sites, records), whose columns are site by site, equally many of each.
    """
    sites, records = scores.shape
    truth = np.repeat(np.arange(sites), records // sites)
    return Source(float((scores.argmin(0) == truth).mean()), 1 / sites, sites)


def losses_on(model: nn.Module, models: Tensor, losses: RowLosses, rows: Examples) -> np.ndarray:
    """Return each model's loss on each record, float64 (models, records), given parameters (models, params)."""
    with torch.no_grad():
        found = [losses(outputs_with(model, parts_of(model, one), rows.inputs), rows.target)
                 for one in models]  # fmt: skip
    return torch.stack(found).double().cpu().numpy()


def _equally_many(sites: Sequence[Examples], records: int, seed: int) -> Examples:
    count, random = min(records, *map(len, sites)), stream(seed, "source records")
    chosen = [torch.from_numpy(random.permutation(len(own))[:count]) for own in sites]
    return Examples(*(
        torch.cat([getattr(own, name)[numbers] for own, numbers in zip(sites, chosen, strict=True)])
        for name in ("inputs", "target")
    ))  # fmt: skip


def _streams(seed: int, number: int, site: int) -> Streams:
    return Streams(Words.of(seed, "source batches", number, site), Words.of(seed, "source noise", number, site), number)
