"""The likeness of two views of a row: the model learns features without labels.

The usual loss compares a row with the others of its batch, which clipping a row's gradient forbids: one row would
change the losses of all. Here each row brings its own views to compare with, so that its loss is its own. Oord, Li,
Vinyals 2018, https://arxiv.org/abs/1807.03748, equation 4, with the negatives inside the row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fedsim.outcomes.metric import Metric, Rate
from fedsim.outcomes.outcome import Outcome, PublicRange

if TYPE_CHECKING:
    from torch import Tensor

TEMPERATURE = 0.1
"""Cosines are divided by it before the softmax."""

MATCHED = Metric(
    "matched",
    "share of rows matched rightly",
    "higher",
    0.0,
    1.0,
    meaning="A row is matched rightly if its like is nearer to it than each of the unlike views.",
)
MATCHING_LOSS = Metric("matching_loss", "log loss of the match", "lower", 0.0, np.inf)
ROWS = Rate("matched", "share of rows matched rightly", "rows", "higher", 0.0, 1.0)


class Contrastive(Outcome):
    """Outputs are features of each view, (rows, views, features): the row, its like, and at least one unlike view.

    A task gives no targets.
    """

    name = "contrastive"
    in_words = "which view is like the row"
    outputs_in_words = "features of three or more views (rows, views, features)"
    metrics = (MATCHED, MATCHING_LOSS)
    row_rate = ROWS
    predicts = False
    has_target = False

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:  # noqa: D102
        return -_log_likelihoods(outputs)[:, 0]

    def fault_of_outputs(self, outputs: Tensor, target: Tensor) -> str | None:  # noqa: D102
        fits = outputs.ndim == 3 and outputs.shape[1] >= 3
        return None if fits else self.outputs_in_words

    def said(self, outputs: Tensor, target: Tensor) -> np.ndarray:
        """Return the log likelihood of each view to be the like one, float64 (rows, views - 1)."""
        return _log_likelihoods(outputs).cpu().numpy().astype(np.float64)

    def values(self, target: np.ndarray, predicted: np.ndarray, scale: float) -> dict[str, float | None]:  # noqa: D102
        return {
            "matched": float((predicted.argmax(1) == 0).mean()),
            "matching_loss": float(-predicted[:, 0].mean()),
        }

    def row_figures(self, target: np.ndarray, predicted: np.ndarray) -> np.ndarray:  # noqa: D102
        return (predicted.argmax(1) == 0).astype(float)

    def about(self, target: np.ndarray, range: PublicRange | None) -> dict[str, Any]:  # noqa: D102
        return {"about": "no targets"}


def _log_likelihoods(outputs: Tensor) -> Tensor:
    """Return the log softmax over the other views' cosines to the first, (rows, views - 1)."""
    from torch.nn.functional import normalize

    features = normalize(outputs, dim=2)
    cosines = (features[:, :1] * features[:, 1:]).sum(2)
    return (cosines / TEMPERATURE).log_softmax(1)
