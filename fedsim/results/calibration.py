"""Compare predicted probabilities with how often they come true, in bins of equal width.

After Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017,
https://arxiv.org/abs/1706.04599, section 2: the reliability diagram, and the expected calibration
error (ECE, equation 5).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fedsim.outcomes import outcome_of
from fedsim.results.evaluation import Answers
from fedsim.scenario.kinds import Kind

BINS = 10


def reliability(predictions: Sequence[Answers], kind: Kind) -> pd.DataFrame:
    """Count test rows of all sites by the probability that was predicted for them.

    The probability is that of a positive outcome or, with classes, that of the class that is named
    (top label).

    Returns:
        A row for each of the ``BINS`` bins of equal width: bin (from 0 on), rows, ``said`` (the sum
        of the predicted probabilities) and ``seen`` (how many rows were positive or, with classes,
        named rightly). It is empty for kinds without probabilities, without test rows, and where a prediction is not
        finite.
    """
    if kind == "number":
        return pd.DataFrame()
    target = np.concatenate([at_site.target for at_site in predictions])
    predicted = np.concatenate([at_site.said for at_site in predictions])
    if not len(target) or not np.isfinite(predicted).all():
        return pd.DataFrame()

    said = outcome_of(kind).probabilities(target, predicted)
    if said is None:
        return pd.DataFrame()
    probability, came_true = said

    # The last bin includes its upper end, 1.
    number = np.minimum((probability * BINS).astype(int), BINS - 1)
    return pd.DataFrame(
        {
            "bin": np.arange(BINS),
            "rows": np.bincount(number, minlength=BINS),
            "said": np.bincount(number, weights=probability, minlength=BINS),
            "seen": np.bincount(number, weights=came_true, minlength=BINS).astype(int),
        }
    )


def calibration_error(bins: pd.DataFrame) -> float:
    """Compute the expected calibration error of the bins that ``reliability`` returns.

    It is the mean distance, over rows, between the mean probability of a row's bin and the share of
    that bin that came true.
    """
    distance = (bins["said"].astype(float) - bins["seen"].astype(float)).abs()
    return float(distance.sum() / bins["rows"].sum())
