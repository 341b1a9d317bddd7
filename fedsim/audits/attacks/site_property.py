"""Property inference: which share of a site's rows has some outcome, read off the update it sends?

A meta-classifier in the manner of Ganju, Wang, Yang, Gunter, Borisov 2018, "Property inference attacks on fully
connected neural networks", https://doi.org/10.1145/3243734.3243834: the attacker trains on made-up sites whose share it
knows, and learns to read the share off the update. A property of a site is not what record-level privacy protects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fedsim import figures
from fedsim.audits.attack import Attack
from fedsim.audits.claims import RECORDS
from fedsim.audits.finding import IN_WORDS, SITES, Finding, Measured, Row
from fedsim.audits.target import Target
from fedsim.data.federation import Examples
from fedsim.randomness import Words, stream
from fedsim.scenario.kinds import Kind
from fedsim.training.work import Streams, Work

_PENALTIES = 10.0 ** np.arange(-6, 5)
_IN_WORDS: Mapping[Kind, str] = {
    "binary": "the share of positive outcomes",
    "classes": "the share of the most common class",
    "number": "the share above the median",
}


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


class PropertyInference(Attack):
    """Reads off each site's update how common an outcome is there."""

    places = RECORDS
    question = SITES
    label = "a site's outcome"
    sections: ClassVar = {"property": {}}

    def run(self, target: Target) -> Finding | None:
        """Attack the first sites; None where nothing can be learned of the outcome."""
        found = attack(target)
        if found is None:
            return None
        words = _IN_WORDS.get(target.kind, "the share of rows whose mean target is above the median")
        error = figures.figure(found.error)
        blind = figures.figure(found.blind)
        return self.finding(
            target,
            measured=(Measured(words, "mean distance", found.error),),
            words=(
                f"{IN_WORDS[target.training]}: {words}",
                f"wrong by {error}, guessing by {blind}; a site's, not a record's",
            ),
            rows=(
                Row(
                    "What is a site like?",
                    f"{words}; guessing is off by {blind}",
                    f"off by {error}",
                ),
            ),
            section={"property": {target.training: asdict(found)}},
        )


def attack(target: Target) -> Property | None:
    """Guess for each site the share of its training rows that have the property, from its update in the first round.

    Returns:
        None if all or none of the attacker's rows have the property: then nothing can be learned of it.
    """
    known = target.known
    has_it = has_property(target.kind, known.target, known.target)
    without = torch.nonzero(~has_it).flatten()
    having = torch.nonzero(has_it).flatten()
    if not len(without) or not len(having):
        return None

    guessed = []
    true = []
    for number, site in enumerate(target.sites):
        random = stream(target.seed, "property", number)
        shares = random.random(target.effort.shadows)
        count = max(1, round(site.plan.expected_batch / site.plan.sampling_rate))  # public; the site's own is not
        made = [_made(known, without, having, share, count, random) for share in shares]
        works = []
        for shadow, rows in enumerate([site.rows, *made]):
            streams = _streams(target.seed, number, shadow)
            works.append(Work(target.model, target.start, rows, site.plan, streams, target.losses))
        done = target.train_all(works)
        updates = torch.stack([result.parameters - target.start for result in done]).double().cpu().numpy()

        guess = ridge(updates[1:], shares, updates[0])
        guessed.append(float(np.clip(guess, 0, 1)))
        true.append(_mean(has_property(target.kind, known.target, site.rows.target)))
    error = float(np.abs(np.subtract(guessed, true)).mean())
    blind = float(np.abs(np.subtract(_mean(has_it), true)).mean())
    return Property(error, blind, len(true))


def has_property(kind: Kind, known: Tensor, target: Tensor) -> Tensor:
    """Tell which rows have the property, bool (rows,), by their targets and the targets that the attacker knows."""
    if not len(known):
        return target.reshape(len(target), -1).float().mean(1) > 0 if target.dim() > 1 else target > 0
    if kind == "binary":
        return target == 1
    if kind == "classes":
        return target == known.mode().values
    means = target.flatten(1).float().mean(1) if target.dim() > 1 else target
    means_known = known.flatten(1).float().mean(1) if known.dim() > 1 else known
    return means > means_known.median()


def ridge(seen: np.ndarray, known: np.ndarray, asked: np.ndarray) -> float:
    """Predict one more example by ridge regression; the penalty is chosen by leaving out one.

    Args:
        seen: Examples (examples, features).
        known: The number that belongs to each, (examples,).
        asked: The features of one more, (features,).
    """
    middle = seen.mean(0)
    scale = seen.std(0) + 1e-12
    inputs = (seen - middle) / scale
    asked = (asked - middle) / scale
    products = inputs @ inputs.T / inputs.shape[1]  # (examples, examples)
    mean = known.mean()

    best = 0.0
    least = np.inf
    for penalty in _PENALTIES:
        inverse = np.linalg.inv(products + penalty * np.eye(len(known)))
        weights = inverse @ (known - mean)
        left_out = np.square(weights / np.diag(inverse)).sum()
        if left_out < least:
            best = mean + asked @ inputs.T / inputs.shape[1] @ weights
            least = left_out
    return float(best)


def _mean(has_it: Tensor) -> float:
    return float(has_it.double().mean())


def _made(
    known: Examples, without: Tensor, having: Tensor, share: float, count: int, random: np.random.Generator
) -> Examples:
    """Make up a site of so many rows, drawn with replacement, of which a share has the property."""
    sizes: Sequence[tuple[Tensor, int]] = (
        (without, count - round(share * count)),
        (having, round(share * count)),
    )
    chosen = [rows[torch.from_numpy(random.integers(len(rows), size=size))] for rows, size in sizes]
    numbers = torch.cat(chosen)
    return Examples(known.inputs[numbers], known.target[numbers])


def _streams(seed: int, site: int, shadow: int) -> Streams:
    return Streams(
        batches=Words.of(seed, "property batches", site, shadow),
        noise=Words.of(seed, "property noise", site, shadow),
        layers=shadow,
    )
