"""Several numbers of a row, such as the prices of the next five days."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsim.outcomes.metric import Metric, Rate
from fedsim.outcomes.outcome import Outcome, PublicRange
from fedsim.outcomes.scores import mean_of_known, r2, r2_inside

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

MEAN_R2 = Metric(
    "mean_r2",
    "R², mean over numbers",
    "higher",
    -np.inf,
    1.0,
    by_site=True,
    meaning=(
        "R² is the share of a number's variance that the model explains, and is the mean over the "
        "numbers: 1 is perfect, 0 is no better than always saying the mean, below 0 is worse."
    ),
)
SCALED_RMSE = Metric("scaled_rmse", "RMSE, in half ranges", "lower", 0.0, np.inf)
ROWS = Rate("scaled_mse", "mean squared error, in half ranges", "rows", "lower", 0.0, np.inf)


class Numbers(Outcome):
    """Targets are numbers scaled to [-1, 1] by public ranges, float32 (rows, numbers); outputs have the same shape.

    A row's loss is the mean of its squared errors.
    """

    name = "numbers"
    in_words = "several numbers"
    outputs_in_words = "numbers of the targets' shape, (rows, numbers)"
    metrics = (MEAN_R2, SCALED_RMSE)
    row_rate = ROWS
    summary_columns = ("mean",)
    about_rows = ("Mean, scaled",)

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:  # noqa: D102
        return (outputs - target).square().mean(1)

    def fault_of(self, target: np.ndarray) -> str | None:  # noqa: D102
        if target.ndim != 2:
            return "a target of shape (rows, numbers)"
        return None if (np.abs(target) <= 1 + 1e-6).all() else "a target in [-1, 1]"

    def fault_of_outputs(self, outputs: Tensor, target: Tensor) -> str | None:  # noqa: D102
        fits = outputs.shape == target.shape
        return None if fits else self.outputs_in_words

    def said(self, outputs: Tensor, target: Tensor) -> np.ndarray:  # noqa: D102
        return outputs.cpu().numpy().astype(np.float64)

    def values(self, target: np.ndarray, predicted: np.ndarray, scale: float) -> dict[str, float | None]:  # noqa: D102
        shares = [r2(target[:, number], predicted[:, number]) for number in range(target.shape[1])]
        root_mean_square = float(np.sqrt(np.mean((target - predicted) ** 2)))
        return {"mean_r2": mean_of_known(shares), "scaled_rmse": root_mean_square}

    def values_inside(self, target: np.ndarray, predicted: np.ndarray, site: np.ndarray) -> dict[str, float | None]:  # noqa: D102
        shares = [r2_inside(target[:, number], predicted[:, number], site) for number in range(target.shape[1])]
        return {"mean_r2": mean_of_known(shares)}

    def row_figures(self, target: np.ndarray, predicted: np.ndarray) -> np.ndarray:  # noqa: D102
        return ((predicted - target) ** 2).mean(1)

    def summary(self, target: np.ndarray, range: PublicRange | None) -> dict[str, object]:  # noqa: D102
        return {"mean": float(target.mean(dtype=float)) if len(target) else None}

    def constant(self, targets: Sequence[np.ndarray], learned: np.ndarray) -> np.ndarray | None:  # noqa: D102
        return learned.mean(0, dtype=float)

    def answer(self, constant: np.ndarray, range: PublicRange | None) -> float:  # noqa: D102
        return float(constant.mean())

    def answer_in_words(self, answers: pd.Series) -> str:  # noqa: D102
        return "always answering the means"

    def about(self, target: np.ndarray, range: PublicRange | None) -> dict[str, Any]:  # noqa: D102
        mean = float(target.mean(dtype=float))
        return {"mean": round(mean, 6), "about": f"{target.shape[1]} numbers a row, mean {mean:.4g} when scaled"}

    def mislabelled(self, target: np.ndarray, wrong: np.ndarray) -> np.ndarray | None:
        """Return the numbers mirrored at the middle of their ranges."""
        return -target[wrong]
