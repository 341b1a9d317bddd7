"""A row itself: the model reproduces its inputs, as an autoencoder does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsim.outcomes.metric import Metric, Rate
from fedsim.outcomes.outcome import Outcome, PublicRange

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

EXPLAINED = Metric(
    "explained",
    "explained variance of inputs",
    "higher",
    -np.inf,
    1.0,
    by_site=True,
    meaning=(
        "The explained variance is the share of the inputs' variance that the model reproduces: 1 is "
        "perfect, 0 is no better than always giving the mean row, below 0 is worse."
    ),
)
INPUT_RMSE = Metric("input_rmse", "RMSE of inputs", "lower", 0.0, np.inf)

_NO_SPREAD = 1e-12  # mean square that is no more than rounding
ROWS = Rate("input_mse", "mean squared error of inputs", "rows", "lower", 0.0, np.inf)


class Reconstruction(Outcome):
    """Targets are the inputs, flattened to (rows, inputs); outputs have as many numbers for each row.

    A row's loss is the mean of its squared errors. A task gives no targets.
    """

    name = "reconstruction"
    in_words = "the row itself"
    outputs_in_words = "as many numbers for each row as its inputs have"
    metrics = (EXPLAINED, INPUT_RMSE)
    row_rate = ROWS
    of_inputs = True
    has_target = False

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:  # noqa: D102
        return (outputs.flatten(1) - target).square().mean(1)

    def fault_of_outputs(self, outputs: Tensor, target: Tensor) -> str | None:  # noqa: D102
        fits = outputs.flatten(1).shape == target.shape
        return None if fits else self.outputs_in_words

    def said(self, outputs: Tensor, target: Tensor) -> np.ndarray:  # noqa: D102
        return outputs.flatten(1).cpu().numpy().astype(np.float64)

    def values(self, target: np.ndarray, predicted: np.ndarray, scale: float) -> dict[str, float | None]:  # noqa: D102
        mean_square = float(np.mean((target - predicted) ** 2))
        return {"explained": _explained(target, predicted), "input_rmse": mean_square**0.5}

    def values_inside(self, target: np.ndarray, predicted: np.ndarray, site: np.ndarray) -> dict[str, float | None]:
        """Take the spread of inputs around the mean of their own site's rows."""
        rows = np.maximum(np.bincount(site), 1)[:, None]  # (sites, 1)
        sums = np.zeros((len(rows), target.shape[1]))
        np.add.at(sums, site, target)
        return {"explained": _explained(target, predicted, (sums / rows)[site])}

    def row_figures(self, target: np.ndarray, predicted: np.ndarray) -> np.ndarray:  # noqa: D102
        return ((predicted - target) ** 2).mean(1)

    def constant(self, targets: Sequence[np.ndarray], learned: np.ndarray) -> np.ndarray | None:  # noqa: D102
        return learned.mean(0, dtype=float)

    def answer(self, constant: np.ndarray, range: PublicRange | None) -> float:  # noqa: D102
        return float(constant.mean())

    def answer_in_words(self, answers: pd.Series) -> str:  # noqa: D102
        return "always answering the mean row"

    def about(self, target: np.ndarray, range: PublicRange | None) -> dict[str, Any]:  # noqa: D102
        return {"about": f"{target.shape[1]} inputs a row"}


def _explained(target: np.ndarray, predicted: np.ndarray, means: np.ndarray | None = None) -> float | None:
    """Compute the explained share of the variance of all inputs together."""
    around = target.mean(0, dtype=float) if means is None else means
    spread = float(((target - around) ** 2).sum())
    if spread <= _NO_SPREAD * target.size:
        return None
    return 1 - float(((target - predicted) ** 2).sum()) / spread
