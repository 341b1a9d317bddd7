"""Compute base rates: the metrics of always giving the same answer, which needs no model.

The answer is learned from training rows, as a model's would be: the shares of the classes, so that
the class that is named is the majority's, or the mean of a number. It is scored on the same test
rows with the same metrics, seed by seed.

Training rows of all sites are counted exactly. Like every test metric, that is the simulator's own
evaluation: no privacy covers it, and no site would release it.
"""

from typing import Any

import numpy as np
import pandas as pd

from fedsim.data.federation import Examples, Federation
from fedsim.data.scale import Scale
from fedsim.data.tables import Number
from fedsim.outcomes import outcome_of
from fedsim.results.evaluation import Answers, scores_of
from fedsim.scenario.kinds import Kind


def base_rates(
    federation: Federation,
    kind: Kind,
    range: Number | None = None,
) -> pd.DataFrame:
    """Score the same answer to every test row.

    Args:
        federation: The sites whose rows are tested, under one seed. The answer is learned from their training rows.
        kind: The kind of the task's targets.
        range: The public range of a number.

    Returns:
        The rows INSIDE and POOLED of the table that ``evaluate`` returns, with a column ``answer``:
        the share of positives in the training rows, their most common class, or their mean in the
        outcome's unit. It is empty for kinds that have no such answer.
    """
    # Sites are visited once, since made-up rows are costly to make.
    train_targets = []
    test_targets = {}
    for site in federation.sites:
        train_targets.append(_on_the_shared_scale(site.train, site.scale))
        test_targets[site.name] = _on_the_shared_scale(site.test, site.scale)

    learned = np.concatenate(train_targets)
    outcome = outcome_of(kind)
    constant = outcome.constant([*test_targets.values()], learned)
    if constant is None:
        return pd.DataFrame()

    predictions = []
    for name, target in test_targets.items():
        said = np.broadcast_to(constant, (len(target), *constant.shape))
        predictions.append(Answers(site=name, target=target, said=said, groups={}))
    scores = scores_of(predictions, kind, sites=False, range=range)
    return scores.assign(answer=outcome.answer(constant, range))


def _on_the_shared_scale(part: Examples, scale: Scale | None) -> np.ndarray:
    """Return targets as the public range scales them, (rows,): a site may have a scale of its own."""
    target = part.target.cpu().numpy()
    if scale is None or not part.target.is_floating_point():
        return target
    return scale.encoded_target(target).astype(np.float32)


def answer_in_words(kind: Kind, base: pd.DataFrame) -> str:
    """Return what is always answered, e.g. ``always answering the mean``.

    Args:
        kind: The kind of the outcome.
        base: Rows of ``base_rates``, of all seeds.
    """
    answers: Any = base["answer"].astype(float)
    return outcome_of(kind).answer_in_words(answers)
