"""How good models are: inside the sites, pooled over them, and at each."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fedsim.data.federation import INSIDE, POOLED, TOGETHER, Examples, Federation
from fedsim.data.tables import Number
from fedsim.results.metrics import score, score_inside
from fedsim.scenario.kinds import Kind
from fedsim.training.functional import outputs_with

__all__ = ["HEADLINE", "INSIDE", "POOLED", "TOGETHER", "answers", "evaluate", "headline_of", "scores_of"]
HEADLINE = INSIDE  # the row of a table of scores that is spoken of first, and that strategies are ranked by
_ROWS = 2**15  # rows that go through a model at once


_Asked = tuple[str, Mapping[str, Tensor], Examples]


@dataclass(frozen=True)
class Answers:
    """What a model said of some rows of one site.

    Attributes:
        site: Its name.
        target: What was true, as in ``Examples``, (rows,).
        said: What the model said, as ``said`` returns it.
        groups: {protected attribute: its value for each row}, of test rows.
    """

    site: str
    target: np.ndarray
    said: np.ndarray
    groups: Mapping[str, np.ndarray]


def evaluate(
    model: nn.Module,
    parameters: Mapping[str, Mapping[str, Tensor]],
    federation: Federation,
    part: Literal["validation", "test"],
    kind: Kind = "binary",
    sites: bool = True,
    range: Number | None = None,
) -> pd.DataFrame:
    """Score every site's rows with the model that site would use.

    Args:
        model: Gives the architecture; its own parameters are not used.
        parameters: {site: the parameters of its model}.
        federation: The sites.
        part: Which rows.
        kind: What the task's targets are.
        sites: Whether to measure at each site too, not only all together.
        range: The public range of a number, by which targets are scaled.

    Returns:
        One row for each site and two for all together: site, rows, what the rows are like, and the metrics of the
        kind. In the row INSIDE each row is compared with rows of its own site only (see ``metrics.score_inside``): its
        AUC and R² don't reward a model for telling sites apart. In the row POOLED all rows are in one pot. Accuracy,
        log loss and RMSE are means over rows, so that they are the same in both. What the rows are like: how many are
        ``positives`` or of the ``most_common`` class (in the row INSIDE, of the most common class of their own site),
        or their ``mean`` in the outcome's unit. A metric that can't be computed, such as the AUC where only one class
        occurs, is missing.
    """
    return scores_of(answers(model, parameters, federation, part, kind), kind, sites, range)


def answers(
    model: nn.Module,
    parameters: Mapping[str, Mapping[str, Tensor]],
    federation: Federation,
    part: Literal["validation", "test"],
    kind: Kind = "binary",
) -> list[Answers]:
    """Return what each site's model says of its rows; arguments as of ``evaluate``."""
    groups: dict[str, Mapping[str, np.ndarray]] = {}

    def asked() -> Iterator[_Asked]:
        for site in federation.sites:
            groups[site.name] = site.groups if part == "test" else {}
            yield site.name, parameters[site.name], getattr(site, part)

    return [
        Answers(name, examples.target.cpu().numpy(), said(outputs, kind), groups[name])
        for name, examples, outputs in predict(model, asked())
    ]


def scores_of(
    found: Sequence[Answers], kind: Kind = "binary", sites: bool = True, range: Number | None = None
) -> pd.DataFrame:
    """Return the table ``evaluate`` makes, from what the models said."""
    rows = [measure(one.site, one.target, one.said, kind, range) for one in found] if sites else []
    target = np.concatenate([one.target for one in found])
    together = np.concatenate([one.said for one in found])
    site = np.repeat(np.arange(len(found)), [len(one.target) for one in found])

    pooled = measure(POOLED, target, together, kind, range)
    inside = pooled | {"site": INSIDE} | score_inside(kind, target, together, site)
    if kind == "classes":
        inside["most_common"] = sum(int(np.bincount(one.target).max()) for one in found if len(one.target))
    return pd.DataFrame([*rows, inside, pooled])


def headline_of(sites: Collection[str]) -> str:
    """Return the row that is spoken of first, given the names of all rows: older tables have no HEADLINE."""
    return HEADLINE if HEADLINE in sites else POOLED


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
                outputs = outputs_with(model, together[0][1], inputs)
            split = outputs.split([len(examples) for _, _, examples in together])
            yield from ((name, examples, own) for (name, _, examples), own in zip(together, split, strict=True))


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


def said(outputs: Tensor, kind: Kind) -> np.ndarray:
    """Return what outputs say, float64: probabilities (rows,) or (rows, classes), or scaled numbers (rows,)."""
    found = outputs.softmax(1) if kind == "classes" else outputs.squeeze(1)
    return (found.sigmoid() if kind == "binary" else found).cpu().numpy().astype(np.float64)


def measure(
    site: str, target: np.ndarray, found: np.ndarray, kind: Kind = "binary", range: Number | None = None
) -> dict[str, object]:
    """Return a row of the table ``evaluate`` makes, given targets (rows,) and what the model said of them."""
    figures = score(kind, target, found, range.scale if range else 1.0)
    return {"site": site, "rows": len(target), **_about(target, kind, range), **figures}


def _about(target: np.ndarray, kind: Kind, range: Number | None) -> dict[str, object]:
    if kind == "binary":
        return {"positives": int((target == 1).sum())}
    if kind == "classes":
        return {"most_common": int(np.bincount(target).max()) if len(target) else 0}
    mean = float(target.mean(dtype=float)) if len(target) else None
    return {"mean": range.in_units(mean) if range and mean is not None else mean}
