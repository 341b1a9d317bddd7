"""Property inference: what is a site like, by the update it sends? Which share of its rows has some outcome?

A meta-classifier in the manner of Ganju, Wang, Yang, Gunter, Borisov 2018, "Property inference attacks on fully
connected neural networks", https://doi.org/10.1145/3243734.3243834: the attacker trains on made-up sites of which he
knows the share, and learns to read it off the update. A property of a site is not what record-level privacy protects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedsim.data.federation import Examples
from fedsim.randomness import Words, stream
from fedsim.training.losses import RowLosses
from fedsim.training.work import Done, Plan, Streams, Work

TrainAll = Callable[[Sequence[Work]], list[Done]]
_PENALTIES = 10.0 ** np.arange(-6, 5)


@dataclass(frozen=True)
class Property:
    """How well the share of rows with some outcome is read off each site's first update.

    Attributes:
        error: The mean distance of the guessed from the true share, over the sites.
        blind: The same if the share among the attacker's own rows is guessed for every site.
        sites: How many sites were attacked.
    """

    error: float
    blind: float
    sites: int


def attack(
    model: nn.Module, start: Tensor, losses: RowLosses, sites: Sequence[tuple[Examples, Plan]], own: Examples,
    has: Callable[[Tensor], Tensor], shadows: int, seed: int, train_all: TrainAll,
) -> Property | None:  # fmt: skip
    """Guess for each site the share of its training rows that have the property, from its update in the first round.

    Args:
        model: The architecture.
        start: What the sites were sent, (params,).
        losses: The loss.
        sites: Each site's training rows and plan of one round.
        own: The attacker's rows: like the sites', but none of them.
        has: From targets (rows,) to which have the property, bool (rows,).
        shadows: How many sites to make up for each.
        seed: Of the audit.
        train_all: The engine's.

    Returns:
        None if all or none of the attacker's rows have the property: then nothing can be learned of it.
    """
    kinds = [torch.nonzero(has(own.target) == wanted).flatten() for wanted in (False, True)]
    if not all(map(len, kinds)):
        return None
    guessed, true = [], []
    for number, (rows, todo) in enumerate(sites):
        random = stream(seed, "property", number)
        shares = random.random(shadows)
        count = max(1, round(todo.expected_batch / todo.sampling_rate))  # public; the site's own count is not
        made = [_made(own, kinds, share, count, random) for share in shares]
        works = [
            Work(model, start, one, todo, _streams(seed, number, shadow), losses)
            for shadow, one in enumerate([rows, *made])
        ]
        updates = torch.stack([done.parameters - start for done in train_all(works)]).double().cpu().numpy()
        guessed.append(float(np.clip(ridge(updates[1:], shares, updates[0]), 0, 1)))
        true.append(float(has(rows.target).double().mean()))
    usual = float(has(own.target).double().mean())
    error, blind = (float(np.abs(np.subtract(found, true)).mean()) for found in (guessed, usual))
    return Property(error, blind, len(true))


def ridge(seen: np.ndarray, known: np.ndarray, asked: np.ndarray) -> float:
    """Return what ridge regression says of one more example; the penalty is chosen by leaving out one.

    Args:
        seen: Examples (examples, features).
        known: What is known of each, (examples,).
        asked: The one more, (features,).
    """
    middle, scale = seen.mean(0), seen.std(0) + 1e-12
    inputs, asked = (seen - middle) / scale, (asked - middle) / scale
    products, mean = inputs @ inputs.T / inputs.shape[1], known.mean()
    best, least = 0.0, np.inf
    for penalty in _PENALTIES:
        inverse = np.linalg.inv(products + penalty * np.eye(len(known)))
        weights = inverse @ (known - mean)
        left_out = np.square(weights / np.diag(inverse)).sum()
        if left_out < least:
            best, least = mean + asked @ inputs.T / inputs.shape[1] @ weights, left_out
    return float(best)


def _made(own: Examples, kinds: Sequence[Tensor], share: float, count: int, random: np.random.Generator) -> Examples:
    """Return a site of so many rows, drawn with replacement, of which a share has the property."""
    having = round(share * count)
    chosen = torch.cat([
        kind[torch.from_numpy(random.integers(len(kind), size=size))]
        for kind, size in zip(kinds, (count - having, having), strict=True)
    ])  # fmt: skip
    return Examples(own.inputs[chosen], own.target[chosen])


def _streams(seed: int, site: int, shadow: int) -> Streams:
    return Streams(
        Words.of(seed, "property batches", site, shadow), Words.of(seed, "property noise", site, shadow), shadow
    )
