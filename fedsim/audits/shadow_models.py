"""Shadow models: references that tell an attacker how sure a model is of records it knows, and of others.

They are trained on random halves of the records, or of the sites, in pairs that complement each other. Each of them
serves as the target once, the others as the attacker's references: an attacker who has as many records like these and
knows how the training goes, which is more than most have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor, nn

from fedsim import figures
from fedsim.audits.bounds import RATES, ceiling, roc
from fedsim.audits.claims import AnyClaim
from fedsim.audits.finding import Measured
from fedsim.data.federation import Examples
from fedsim.randomness import stream
from fedsim.training.functional import outputs_with
from fedsim.training.losses import RowLosses
from fedsim.training.model import parts_of


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

    def measured(self, name: str, claim: AnyClaim | None) -> Measured:
        """Return the AUC for a finding. It has no interval, so it refutes nothing."""
        limit = ceiling(claim.epsilon, claim.delta) if claim else None
        return Measured(name, "AUC", self.auc, limit=limit)

    def __str__(self) -> str:
        """Print the AUC, and in brackets the share found at 1 % false alarms."""
        return f"{figures.figure(self.auc)} ({figures.share(self.tpr, 1)})"


def judge(inside: np.ndarray, outside: np.ndarray) -> Membership:
    """Compare scores of members, (trials,), with those of others."""
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
        references = np.arange(len(confidences)) != target
        seen = confidences[references]  # (models - 1, rows)
        was_in = members[references]

        log_likelihoods = []
        for chosen in (was_in, ~was_in):
            count = np.maximum(chosen.sum(0), 1)
            mean = (seen * chosen).sum(0) / count
            spread = np.sqrt((((seen - mean) ** 2) * chosen).sum() / chosen.sum()) + 1e-9
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
        references = np.arange(len(confidences)) != target
        seen = probabilities[references]
        was_in = members[references]

        # p(x): the mean over models with the record and models without it, with equal weights.
        mean_with = (seen * was_in).sum(0) / np.maximum(was_in.sum(0), 1)
        mean_without = (seen * ~was_in).sum(0) / np.maximum((~was_in).sum(0), 1)
        usual = (mean_with + mean_without) / 2
        gain = probabilities[target] / np.maximum(usual, 1e-12)
        scores[target] = np.searchsorted(np.sort(gain), gain, "right") / len(gain)
    return scores


def halves(rows: int, shadows: int, seed: int) -> np.ndarray:
    """Draw the members of each model's data, bool (shadows, rows): pairs of complementary halves."""
    random = stream(seed, "shadow halves")
    masks = []
    for _ in range(shadows // 2):
        mask = random.permutation(rows) < rows // 2
        masks += [mask, ~mask]
    return np.stack(masks)


def confidences(model: nn.Module, parameters: Tensor, rows: Examples, losses: RowLosses) -> np.ndarray:
    """Compute logit(p) of each record's own outcome, (rows,), where -log(p) is its loss."""
    with torch.no_grad():
        outputs = outputs_with(model, parts_of(model, parameters), rows.inputs).double()
        target = rows.target.double() if rows.target.is_floating_point() else rows.target
        loss = losses(outputs, target).cpu().numpy()
    loss = np.clip(loss, 1e-300, None)
    return -loss - np.log(-np.expm1(-loss))
