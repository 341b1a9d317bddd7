"""Integrated gradients: how much each feature adds to what a model says of a row.

Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, https://arxiv.org/abs/1703.01365, by
Captum. Contributions of a row add up to the model's output less its output for the baseline (completeness). The
baseline is an input of zeros: the middle of every column's scale, no level, and nothing missing.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fedsim.data.federation import Federation
from fedsim.experiments.explanations.features import Feature
from fedsim.mistakes import Mistake
from fedsim.outcomes import outcome_of
from fedsim.randomness import stream
from fedsim.results.evaluation import INSIDE
from fedsim.scenario.kinds import Kind
from fedsim.training.functional import outputs_with

STEPS = 64
"""Points on the way from the baseline to a row."""

MOST_ROWS = 1000
"""Test rows of a site that are looked at; of more, so many are drawn."""


def check_installed() -> None:
    """Make sure that Captum can be imported.

    Raises:
        Mistake: It is not installed.
    """
    if find_spec("captum") is None:
        raise Mistake("explain: captum is not installed; it comes with: pip install 'fedsim-flower[explain]'")


def contributions(model: nn.Module, parameters: Mapping[str, Tensor], inputs: Tensor, kind: Kind) -> Tensor:
    """Return the contribution of each input to what a model says of each row, (rows, inputs).

    That is to the log odds of a binary outcome, to the output for the class that the model names, or to the number.

    Args:
        model: The architecture.
        parameters: Its parameters.
        inputs: Rows, (rows, inputs).
        kind: The kind of the outcome.
    """
    from captum.attr import IntegratedGradients

    def said(rows: Tensor) -> Tensor:
        return outputs_with(model, parameters, rows)

    model.eval()
    target = said(inputs).detach().argmax(1) if kind == "classes" else torch.zeros(len(inputs), dtype=torch.int64)
    method = IntegratedGradients(said)
    return method.attribute(inputs, target=target.to(inputs.device), n_steps=STEPS).detach()


def mean_contributions(
    model: nn.Module,
    parameters: Mapping[str, Mapping[str, Tensor]],
    federation: Federation,
    features: Sequence[Feature],
    kind: Kind,
    amount: float,
    seed: int,
) -> pd.DataFrame:
    """Return the mean size of each feature's contributions over test rows, at each site and over all.

    The contributions of a feature's inputs are added up row by row before their size is taken.

    Args:
        model: The architecture.
        parameters: {site: the parameters of its model}.
        federation: The sites.
        features: The features.
        kind: The kind of the outcome.
        amount: The amount of the outcome's unit in one unit of a scaled number; 1 for others.
        seed: The seed of the training, by which rows are drawn where there are many.

    Returns:
        A row for each feature and site: ``feature, site, importance``. The row INSIDE is of all rows together.
    """
    totals = np.zeros(len(features))
    count = 0
    rows = []
    for site in federation.sites:
        inputs = site.test.inputs
        if not len(inputs):
            rows += [(feature.name, site.name, np.nan) for feature in features]
            continue
        if len(inputs) > MOST_ROWS:
            drawn = stream(seed, "gradients", site.name).choice(len(inputs), MOST_ROWS, replace=False)
            inputs = inputs[torch.from_numpy(np.sort(drawn)).to(inputs.device)]
        added = contributions(model, parameters[site.name], inputs, kind).cpu().double().numpy()
        scale = amount * (site.scale.target_spread if site.scale is not None and outcome_of(kind).has_range else 1.0)
        sizes = np.stack([np.abs(added[:, list(feature.inputs)].sum(axis=1)) for feature in features]) * scale
        rows += [(feature.name, site.name, size) for feature, size in zip(features, sizes.mean(axis=1), strict=True)]
        totals += sizes.mean(axis=1) * len(site.test)
        count += len(site.test)
    rows += [
        (feature.name, INSIDE, total / count if count else np.nan)
        for feature, total in zip(features, totals, strict=True)
    ]
    return pd.DataFrame(rows, columns=["feature", "site", "importance"])
