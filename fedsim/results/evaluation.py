"""Evaluate models: inside the sites, pooled over them, and at each."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fedsim.data.federation import INSIDE, POOLED, TOGETHER, Examples, Federation
from fedsim.data.scale import Scale
from fedsim.data.tables import Number
from fedsim.outcomes import outcome_of
from fedsim.outcomes.measure import score, score_inside
from fedsim.scenario.kinds import Kind
from fedsim.training.functional import in_batches, outputs_with, rows_at_once

__all__ = [
    "HEADLINE",
    "INSIDE",
    "POOLED",
    "TOGETHER",
    "answers",
    "evaluate",
    "headline_figures",
    "headline_of",
    "scores_of",
]
HEADLINE = INSIDE  # the row of scores that is reported first, and that strategies are ranked by
_ROWS = 2**15  # rows that go through a model at once


_Request = tuple[str, Mapping[str, Tensor], Examples]
"""A site's name, the parameters of its model, and the rows to predict."""


@dataclass(frozen=True)
class Answers:
    """A model's predictions for some rows of one site.

    Attributes:
        site: The site's name.
        target: The true targets, as in ``Examples``, (rows,).
        said: The predictions, as ``Outcome.said`` returns them.
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
        part: The part of each site's rows.
        kind: The kind of the task's targets.
        sites: Whether to measure at each site too, not only all together.
        range: The public range of a number, by which targets are scaled.

    Returns:
        A row for each site and two for all together: site, rows, a summary of the targets, and the
        metrics of the kind.

        In the row INSIDE each row is compared with rows of its own site only (see
        ``metrics.score_inside``): its AUC and R² don't reward a model for telling sites apart. In
        the row POOLED all rows are in one pot. Accuracy, log loss and RMSE are means over rows, so
        that they are the same in both.

        The summary is the number of ``positives`` or of rows of the ``most_common`` class (in the
        row INSIDE, of the most common class of their own site), or the ``mean`` in the outcome's
        unit.

        A metric that can't be computed, such as the AUC where only one class occurs, is missing.
    """
    predictions = answers(model, parameters, federation, part, kind)
    return scores_of(predictions, kind, sites, range)


def answers(
    model: nn.Module,
    parameters: Mapping[str, Mapping[str, Tensor]],
    federation: Federation,
    part: Literal["validation", "test"],
    kind: Kind = "binary",
) -> list[Answers]:
    """Predict each site's rows with the site's model; arguments are as in ``evaluate``."""
    # Sites are visited once and as they are needed, since made-up rows are costly to make.
    groups_of: dict[str, Mapping[str, np.ndarray]] = {}
    scales: dict[str, Scale | None] = {}

    def requests() -> Iterator[_Request]:
        for site in federation.sites:
            is_test = part == "test"
            groups_of[site.name] = site.groups if is_test else {}
            scales[site.name] = site.scale
            yield site.name, parameters[site.name], site.test if is_test else site.validation

    outcome = outcome_of(kind)
    predictions = []
    for chunk, outputs in _predict_together(model, requests()):
        # What a GPU computed is copied from it once, and not for each site.
        all_targets = torch.cat([examples.target for _, _, examples in chunk])
        ends = np.cumsum([len(examples) for _, _, examples in chunk])[:-1]
        targets = np.split(all_targets.cpu().numpy(), ends)
        said = np.split(outcome.said(outputs, all_targets), ends)

        for (name, _, _), target, predicted in zip(chunk, targets, said, strict=True):
            # A number is trained on its site's scale, and judged on the scale that all sites share.
            scale = scales[name]
            if scale is not None and outcome.has_range:
                target = scale.encoded_target(target)
                predicted = scale.encoded_target(predicted)
            predictions.append(Answers(name, target, predicted, groups_of[name]))
    return predictions


def scores_of(
    predictions: Sequence[Answers],
    kind: Kind = "binary",
    sites: bool = True,
    range: Number | None = None,
) -> pd.DataFrame:
    """Score predictions in the table that ``evaluate`` returns."""
    rows = []
    if sites:
        for at_site in predictions:
            rows.append(measure(at_site.site, at_site.target, at_site.said, kind, range))

    return pd.DataFrame([*rows, *_together(predictions, kind, range)])


def headline_figures(
    model: nn.Module,
    parameters: Mapping[str, Mapping[str, Tensor]],
    federation: Federation,
    part: Literal["validation", "test"],
    kind: Kind = "binary",
    range: Number | None = None,
) -> Mapping[str, Any]:
    """Return the row HEADLINE of the table that ``evaluate`` returns, without a table around it.

    It is asked for after every round, where making a table takes longer than the figures.
    """
    inside, pooled = _together(answers(model, parameters, federation, part, kind), kind, range)
    return {
        name: math.nan if figure is None and pooled[name] is not None else figure  # as in a column of numbers
        for name, figure in inside.items()
    }


def _together(
    predictions: Sequence[Answers], kind: Kind, range: Number | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Score all sites together: each row compared with rows of its own site only (INSIDE), and POOLED."""
    target = np.concatenate([at_site.target for at_site in predictions])
    predicted = np.concatenate([at_site.said for at_site in predictions])
    sizes = [len(at_site.target) for at_site in predictions]
    site_of_row = np.repeat(np.arange(len(predictions)), sizes)
    pooled = measure(POOLED, target, predicted, kind, range)
    inside = pooled | {"site": INSIDE} | score_inside(kind, target, predicted, site_of_row)
    inside |= outcome_of(kind).summary_inside([at_site.target for at_site in predictions])
    return inside, pooled


def headline_of(scores: pd.DataFrame, metric: str) -> str:
    """Choose the row that is reported first.

    Args:
        scores: The table that ``evaluate`` returns, of one or more models.
        metric: The name of the metric that is reported first.

    Returns:
        HEADLINE; or POOLED, where the scores are of an older version, which had no such row, and
        where only the pooled figures are defined: no site can be judged by itself.
    """
    if HEADLINE not in set(scores["site"]):
        return POOLED

    defined = scores[scores[metric].notna()]
    return POOLED if set(defined["site"]) & set(TOGETHER) == {POOLED} else HEADLINE


def predict(
    model: nn.Module,
    requests: Iterable[tuple[str, Mapping[str, Tensor], Examples]],
) -> Iterator[tuple[str, Examples, Tensor]]:
    """Predict rows with a model under different parameters.

    Consecutive requests with the same parameters go through the model together.

    Args:
        model: Gives the architecture.
        requests: A name, parameters and rows for each.

    Yields:
        For each request its name, its rows, and the outputs (rows, outputs).
    """
    for chunk, outputs in _predict_together(model, requests):
        sizes = [len(examples) for _, _, examples in chunk]
        for (name, _, examples), its_outputs in zip(chunk, outputs.split(sizes), strict=True):
            yield name, examples, its_outputs


def _predict_together(model: nn.Module, requests: Iterable[_Request]) -> Iterator[tuple[list[_Request], Tensor]]:
    """Yield requests that go through the model together, and their outputs, (rows of all of them, outputs)."""
    model.eval()
    most = rows_at_once(model, _ROWS)
    for _, same_parameters in groupby(requests, key=_identity_of_parameters):
        for chunk in _chunks(same_parameters, most):
            _, parameters, _ = chunk[0]
            inputs = torch.cat([examples.inputs for _, _, examples in chunk])
            with torch.no_grad():
                if len(inputs):
                    outputs = in_batches(model, parameters, inputs)
                else:  # not every layer takes a batch of no rows
                    outputs = outputs_with(model, parameters, inputs.new_zeros(1, *inputs.shape[1:]))[:0]
            yield chunk, outputs


def _identity_of_parameters(request: _Request) -> int:
    _, parameters, _ = request
    return id(parameters)


def _chunks(requests: Iterable[_Request], most: int) -> Iterator[list[_Request]]:
    """Gather requests in lists that have ``most`` rows in all, or few more."""
    chunk = []
    rows = 0
    for request in requests:
        _, _, examples = request
        chunk.append(request)
        rows += len(examples)
        if rows >= most:
            yield chunk
            chunk = []
            rows = 0
    if chunk:
        yield chunk


def measure(
    site: str,
    target: np.ndarray,
    predicted: np.ndarray,
    kind: Kind = "binary",
    range: Number | None = None,
) -> dict[str, object]:
    """Score rows in a row of the table that ``evaluate`` returns.

    Args:
        site: The name in the table.
        target: (rows,).
        predicted: As ``Outcome.said`` returns it.
        kind: As in ``evaluate``.
        range: As in ``evaluate``.
    """
    scale = range.scale if range else 1.0
    metrics = score(kind, target, predicted, scale)
    return {"site": site, "rows": len(target), **outcome_of(kind).summary(target, range), **metrics}
