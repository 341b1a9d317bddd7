"""Membership inference: can an attacker tell from a model whether a record was in its training data?

Shadow models are trained on random halves of the records, in pairs that complement each other, all as one cohort. Each
of them serves as the target once, the others as the attacker's references: an attacker who has as many records like
these and knows how the training goes, which is more than most have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor, nn

from fedsim.audits.bounds import RATES, roc
from fedsim.data.federation import Examples
from fedsim.randomness import Words, stream
from fedsim.training.functional import outputs_with
from fedsim.training.losses import RowLosses
from fedsim.training.model import parts_of
from fedsim.training.work import Done, Plan, Streams, Work

TrainAll = Callable[[Sequence[Work]], list[Done]]


@dataclass(frozen=True)
class Membership:
    """How well one attack tells members from others, over all targets.

    Attributes:
        auc: 0.5 is guessing.
        tpr: The share of members found where one in a hundred of the others is accused.
        tpr_thousand: The same where one in a thousand is.
        curve: The share of members found at each false-positive rate of ``bounds.RATES``.
    """

    auc: float
    tpr: float
    tpr_thousand: float
    curve: tuple[float, ...]


def attack(
    model: nn.Module, start: Tensor, losses: RowLosses, rows: Examples, todo: Plan, shadows: int, seed: int,
    train_all: TrainAll,
) -> dict[str, Membership]:  # fmt: skip
    """Return {attack: how well it does}: ``loss``, ``lira`` and ``rmia``.

    Args:
        model: The architecture.
        start: Where every training starts, (params,).
        losses: The loss.
        rows: The records; each is a member in half of the trainings.
        todo: The plan of a whole training.
        shadows: How many models, an even number.
        seed: Of the audit; it decides about membership, batches and noise.
        train_all: The engine's.
    """
    members = halves(len(rows), shadows, seed)  # bool (shadows, rows)
    works = []
    for number, own in enumerate(torch.from_numpy(members)):
        streams = Streams(Words.of(seed, "shadow batches", number), Words.of(seed, "shadow noise", number), number)
        works.append(Work(model, start, Examples(rows.inputs[own], rows.target[own]), todo, streams, losses))
    found = np.stack([confidences(model, done.parameters, rows, losses) for done in train_all(works)])
    scores = {"loss": found, "lira": lira(found, members), "rmia": rmia(found, members)}
    return {name: judge(own[members], own[~members]) for name, own in scores.items()}


def judge(inside: np.ndarray, outside: np.ndarray) -> Membership:
    """Return how well scores of members, (trials,), and of others tell them apart."""
    auc, tpr, thousand, *curve = roc(inside, outside, (0.01, 0.001, *RATES))
    return Membership(auc, tpr, thousand, tuple(curve))


def lira(confidences: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Score by the likelihood ratio of a record's confidence in models with it and without it.

    Carlini, Chien, Nasr, Song, Terzis, Tramer 2022, https://arxiv.org/abs/2112.03570, Algorithm 1, online, with
    variances shared by all records, which it advises for few shadow models.

    Args:
        confidences: logit(p) of each record's own class, (models, rows).
        members: Whether the record was in the model's data, bool (models, rows).

    Returns:
        For each model as the target and each record a score that rises with membership, (models, rows).
    """
    scores = np.empty_like(confidences)
    for target in range(len(confidences)):
        others = np.arange(len(confidences)) != target
        seen, was_in = confidences[others], members[others]
        log_likelihoods = []
        for own in (was_in, ~was_in):
            count = np.maximum(own.sum(0), 1)
            mean = (seen * own).sum(0) / count
            spread = np.sqrt((((seen - mean) ** 2) * own).sum() / own.sum()) + 1e-9
            log_likelihoods.append(norm.logpdf(confidences[target], mean, spread))
        scores[target] = log_likelihoods[0] - log_likelihoods[1]
    return scores


def rmia(confidences: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Score by how many other records a record beats in its gain over the reference models.

    Zarifzadeh, Liu, Shokri 2024, https://arxiv.org/abs/2312.03262, equation 4, gamma 1, online; arguments as in
    ``lira``. The other records are all records that the target was not trained on, as the attacker supposes.
    """
    probabilities = 1 / (1 + np.exp(-np.clip(confidences, -500, 500)))
    scores = np.empty_like(confidences)
    for target in range(len(confidences)):
        others = np.arange(len(confidences)) != target
        seen, was_in = probabilities[others], members[others]
        usual = sum((seen * own).sum(0) / np.maximum(own.sum(0), 1) for own in (was_in, ~was_in)) / 2
        gain = probabilities[target] / np.maximum(usual, 1e-12)
        scores[target] = np.searchsorted(np.sort(gain), gain, "right") / len(gain)
    return scores


def halves(rows: int, shadows: int, seed: int) -> np.ndarray:
    """Return who is in which model's data, bool (shadows, rows): pairs of complementary halves."""
    random = stream(seed, "shadow halves")
    chosen = [random.permutation(rows) < rows // 2 for _ in range(shadows // 2)]
    return np.stack([mask for one in chosen for mask in (one, ~one)])


def confidences(model: nn.Module, parameters: Tensor, rows: Examples, losses: RowLosses) -> np.ndarray:
    """Return logit(p) of each record's own outcome, (rows,), where -log(p) is its loss."""
    with torch.no_grad():
        outputs = outputs_with(model, parts_of(model, parameters), rows.inputs).double()
        target = rows.target.double() if rows.target.is_floating_point() else rows.target
        loss = losses(outputs, target).cpu().numpy()
    loss = np.clip(loss, 1e-300, None)
    return -loss - np.log(-np.expm1(-loss))
