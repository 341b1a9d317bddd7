"""Permutation importance: how much worse a model is when a feature's values are shuffled among the rows of a site.

Breiman, "Random Forests", Machine Learning 45, 2001 (section 10), for any model: on test rows, and inside each site, so
that a feature is not called important for telling sites apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fedsim.data.federation import Examples, Federation
from fedsim.data.tables import Number
from fedsim.experiments.explanations.features import Feature
from fedsim.outcomes import outcome_of
from fedsim.randomness import stream
from fedsim.results.evaluation import answers, scores_of
from fedsim.scenario.kinds import Kind

REPEATS = 5
"""How often each feature is shuffled."""


def permutation_importance(
    model: nn.Module,
    parameters: Mapping[str, Mapping[str, Tensor]],
    federation: Federation,
    features: Sequence[Feature],
    kind: Kind,
    range_of_number: Number | None,
    seed: int,
) -> pd.DataFrame:
    """Return what each feature is worth to the models, by the first metric of the outcome's kind.

    Shuffles follow from the seed, the site and the feature: they are the same for all arms, with privacy and without.

    Args:
        model: The architecture.
        parameters: {site: the parameters of its model}.
        federation: The sites whose test rows are taken.
        features: The features.
        kind: The kind of the outcome.
        range_of_number: The public range of an outcome that is a number.
        seed: The seed of the training.

    Returns:
        A row for each feature and row of scores: ``feature, site, importance``, and the importance is the metric on
        the rows as they are, less its mean over shuffles.
    """
    metric = outcome_of(kind).metrics[0].name

    def figures(of: Federation) -> pd.Series:
        table = scores_of(answers(model, parameters, of, "test", kind), kind, range=range_of_number)
        return table.set_index("site")[metric].astype(float)

    before = figures(federation)
    parts = []
    for feature in features:
        drops = [before - figures(_shuffled(federation, feature, seed, repeat)) for repeat in range(REPEATS)]
        mean = pd.concat(drops, axis=1).mean(axis=1, skipna=False)
        parts.append(pd.DataFrame({"feature": feature.name, "site": mean.index, "importance": mean.to_numpy()}))
    return pd.concat(parts, ignore_index=True)


def _shuffled(federation: Federation, feature: Feature, seed: int, repeat: int) -> Federation:
    """Return the sites with one feature of their test rows shuffled, all inputs of it together."""
    sites = []
    for site in federation.sites:
        random = stream(seed, "permutation", site.name, feature.name, repeat)
        order = torch.from_numpy(random.permutation(len(site.test))).to(site.test.inputs.device)
        inputs = site.test.inputs.clone()
        places = torch.from_numpy(np.array(feature.inputs, dtype=np.int64)).to(inputs.device)
        inputs[:, places] = inputs[order][:, places]
        sites.append(replace(site, test=Examples(inputs, site.test.target)))
    return Federation(tuple(sites), federation.scale)
