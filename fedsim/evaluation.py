"""How good models are: AUC, accuracy and log loss, pooled over the sites and inside each."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.func import functional_call

from fedsim.federation import POOLED, Federation

METRICS = ("auc", "accuracy", "log_loss")


def evaluate(
    model: nn.Module,
    parameters: Mapping[str, Mapping[str, Tensor]],
    federation: Federation,
    part: Literal["validation", "test"],
    sites: bool = True,
) -> pd.DataFrame:
    """Score every site's rows with the model that site would use.

    Args:
        model: Gives the architecture; its own parameters are not used.
        parameters: {site: the parameters of its model}.
        federation: The sites.
        part: Which rows.
        sites: Whether to measure inside each site too, not only pooled.

    Returns:
        One row for each site and one for all together (site = POOLED): site, rows, positives and the metrics.
        A metric that can't be computed, such as the AUC where only one class occurs, is missing.
    """
    targets, probabilities = {}, {}
    model.eval()
    for site in federation.sites:
        examples = getattr(site, part)
        with torch.no_grad():
            logits = functional_call(model, dict(parameters[site.name]), (examples.inputs,))
        targets[site.name] = examples.target.cpu().numpy()
        probabilities[site.name] = torch.sigmoid(logits.squeeze(1)).cpu().numpy().astype(np.float64)
    rows = [_measure(name, targets[name], probabilities[name]) for name in targets] if sites else []
    rows.append(_measure(POOLED, np.concatenate([*targets.values()]), np.concatenate([*probabilities.values()])))
    return pd.DataFrame(rows)


def _measure(site: str, target: np.ndarray, probability: np.ndarray) -> dict[str, object]:
    found = bool(np.isfinite(probability).all()) and len(target) > 0
    return {
        "site": site,
        "rows": len(target),
        "positives": int(target.sum()),
        "auc": _auc(target, probability) if found else None,
        "accuracy": float(((probability >= 0.5) == target).mean()) if found else None,
        "log_loss": _log_loss(target, probability) if found else None,
    }


def _auc(target: np.ndarray, probability: np.ndarray) -> float | None:
    """Return the Mann-Whitney statistic: how often a positive row is ranked above a negative one, ties half."""
    positives = int(target.sum())
    pairs = positives * (len(target) - positives)
    if not pairs:
        return None
    ranks = rankdata(probability)
    return float((ranks[target == 1].sum() - positives * (positives + 1) / 2) / pairs)


def _log_loss(target: np.ndarray, probability: np.ndarray) -> float:
    """Return the mean negative log likelihood, probabilities kept 1e-15 away from 0 and 1."""
    likelihood = np.where(target == 1, probability, 1 - probability)
    return float(-np.log(np.maximum(likelihood, 1e-15)).mean())
