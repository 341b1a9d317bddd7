"""How good models are: AUC, accuracy and log loss, pooled over the sites and inside each."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Literal

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.func import functional_call

from fedsim.federation import POOLED, Examples, Federation
from fedsim.losses import Kind

METRICS = ("auc", "accuracy", "log_loss")
_ROWS = 2**15  # rows that go through a model at once


def evaluate(
    model: nn.Module,
    parameters: Mapping[str, Mapping[str, Tensor]],
    federation: Federation,
    part: Literal["validation", "test"],
    kind: Kind = "binary",
    sites: bool = True,
) -> pd.DataFrame:
    """Score every site's rows with the model that site would use.

    Args:
        model: Gives the architecture; its own parameters are not used.
        parameters: {site: the parameters of its model}.
        federation: The sites.
        part: Which rows.
        kind: What the task's targets are.
        sites: Whether to measure inside each site too, not only pooled.

    Returns:
        One row for each site and one for all together (site = POOLED): site, rows, positives and the metrics.
        A metric that can't be computed, such as the AUC where only one class occurs, is missing.
    """
    asked = ((site.name, parameters[site.name], getattr(site, part)) for site in federation.sites)
    targets, found = {}, {}
    for name, examples, outputs in predict(model, asked):
        targets[name], found[name] = examples.target.cpu().numpy(), probabilities(outputs, kind)
    rows = [measure(name, targets[name], found[name]) for name in targets] if sites else []
    rows.append(measure(POOLED, np.concatenate([*targets.values()]), np.concatenate([*found.values()])))
    return pd.DataFrame(rows)


def predict(
    model: nn.Module, asked: Iterable[tuple[str, Mapping[str, Tensor], Examples]]
) -> Iterator[tuple[str, Examples, Tensor]]:
    """Yield the outputs (rows, outputs) for the rows of each (site, parameters, rows) that is asked for.

    Sites one after another that use the same parameters go through the model together.
    """
    model.eval()
    for _, same in groupby(asked, key=lambda one: id(one[1])):
        for together in _chunks(same):
            inputs = torch.cat([examples.inputs for _, _, examples in together])
            with torch.no_grad():
                outputs = functional_call(model, dict(together[0][1]), (inputs,))
            split = outputs.split([len(examples) for _, _, examples in together])
            yield from ((name, examples, own) for (name, _, examples), own in zip(together, split, strict=True))


_Asked = tuple[str, Mapping[str, Tensor], Examples]


def _chunks(asked: Iterable[_Asked]) -> Iterator[list[_Asked]]:
    """Yield lists of what is asked for, with a bounded number of rows in all."""
    chunk, rows = [], 0
    for one in asked:
        chunk, rows = [*chunk, one], rows + len(one[2])
        if rows >= _ROWS:
            yield chunk
            chunk, rows = [], 0
    if chunk:
        yield chunk


def probabilities(outputs: Tensor, kind: Kind) -> np.ndarray:
    """Return what a model's outputs say: float64 (rows,) of a binary target, (rows, classes) of classes."""
    likely = torch.sigmoid(outputs.squeeze(1)) if kind == "binary" else outputs.softmax(1)
    return likely.cpu().numpy().astype(np.float64)


def measure(site: str, target: np.ndarray, probability: np.ndarray) -> dict[str, object]:
    """Return a row of the table ``evaluate`` makes; ``positives`` are the rows whose target is not 0."""
    found = bool(np.isfinite(probability).all()) and len(target) > 0
    many = probability.ndim == 2
    guess = probability.argmax(1) if many else probability >= 0.5
    likelihood = probability[np.arange(len(target)), target.astype(int)] if many else (
        np.where(target == 1, probability, 1 - probability)
    )  # fmt: skip
    return {
        "site": site,
        "rows": len(target),
        "positives": int((target != 0).sum()),
        "auc": (_auc_of_classes if many else _auc)(target, probability) if found else None,
        "accuracy": float((guess == target).mean()) if found else None,
        "log_loss": float(-np.log(np.maximum(likelihood, 1e-15)).mean()) if found else None,
    }


def _auc_of_classes(target: np.ndarray, probability: np.ndarray) -> float | None:
    """Return the mean AUC of each class against the rest, of the classes that occur."""
    each = [_auc((target == number).astype(float), probability[:, number]) for number in range(probability.shape[1])]
    known = [auc for auc in each if auc is not None]
    return float(np.mean(known)) if known else None


def _auc(target: np.ndarray, probability: np.ndarray) -> float | None:
    """Return the Mann-Whitney statistic: how often a positive row is ranked above a negative one, ties half."""
    positives = int(target.sum())
    pairs = positives * (len(target) - positives)
    if not pairs:
        return None
    ranks = rankdata(probability)
    return float((ranks[target == 1].sum() - positives * (positives + 1) / 2) / pairs)
