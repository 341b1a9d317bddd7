"""The outcome that is a number in a public range."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fedsim.outcomes.metric import Metric, Rate
from fedsim.outcomes.outcome import Outcome, PublicRange
from fedsim.outcomes.scores import r2, r2_inside, share

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

R2 = Metric(
    "r2",
    "R²",
    "higher",
    -np.inf,
    1.0,
    by_site=True,
    meaning=(
        "R² is the share of the outcome's variance that the model explains: 1 is perfect, 0 is no better "
        "than always saying the mean, below 0 is worse."
    ),
    meaning_inside=(
        "R² inside sites is the share of the variance around each site's own mean that the model "
        "explains: 1 is perfect, 0 is no better than knowing the mean of each site's test rows "
        "beforehand, below 0 is worse."
    ),
)
RMSE = Metric("rmse", "RMSE", "lower", 0.0, np.inf)

ERROR_RATE = Rate("error", "mean error (said minus true)", "rows", "neither", -np.inf, np.inf)
RMSE_RATE = Rate("rmse", "RMSE", "rows", "lower", 0.0, np.inf)

QUANTILES = 10
"""The label of a number is its tenth."""


class NumberOutcome(Outcome):
    """Targets are numbers scaled to [-1, 1] by their public range, float32 (rows,); outputs are (rows, 1)."""

    name = "number"
    in_words = "a number"
    outputs_in_words = "numbers (rows, 1)"
    metrics = (R2, RMSE)
    rates = (RMSE_RATE, ERROR_RATE)
    sums = ("errors", "squares")
    has_range = True
    summary_columns = ("mean",)
    on_few_rows = (
        "Few rows make wide intervals: where they are few or much alike, R² can be far below 0. It is missing where "
        "all test rows have the same outcome."
    )
    on_rates = "The mean error is what the model says less what is true."
    about_rows = ("Mean outcome",)
    learned_from = "The mean is that of the training rows of all sites."

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the squared errors."""
        return (outputs.squeeze(1) - target).square()

    def fault_of(self, target: np.ndarray) -> str | None:  # noqa: D102
        return None if (np.abs(target) <= 1 + 1e-6).all() else "a target in [-1, 1]"

    def fault_of_outputs(self, outputs: Tensor, target: Tensor) -> str | None:  # noqa: D102
        fits = outputs.shape[1:] == (1,)
        return None if fits else self.outputs_in_words

    def said(self, outputs: Tensor, target: Tensor) -> np.ndarray:  # noqa: D102
        return outputs.squeeze(1).cpu().numpy().astype(np.float64)

    def values(self, target: np.ndarray, predicted: np.ndarray, scale: float) -> dict[str, float | None]:  # noqa: D102
        root_mean_square = float(np.sqrt(np.mean((target - predicted) ** 2)))
        return {"r2": r2(target, predicted), "rmse": scale * root_mean_square}

    def values_inside(self, target: np.ndarray, predicted: np.ndarray, site: np.ndarray) -> dict[str, float | None]:  # noqa: D102
        return {"r2": r2_inside(target, predicted, site)}

    def summary(self, target: np.ndarray, range: PublicRange | None) -> dict[str, object]:  # noqa: D102
        if not len(target):
            return {"mean": None}
        mean = float(target.mean(dtype=float))
        return {"mean": range.in_units(mean) if range else mean}

    def summands(self, target: np.ndarray, predicted: np.ndarray, range: PublicRange | None) -> dict[str, np.ndarray]:  # noqa: D102
        known = np.where(np.isfinite(predicted), 1.0, np.nan)  # makes a summand NaN, (rows,)
        scale = range.scale if range else 1.0
        errors = known * (np.nan_to_num(predicted) - target) * scale
        return {"errors": errors, "squares": errors**2}

    def rates_of(self, sums: pd.DataFrame) -> dict[str, pd.Series]:  # noqa: D102
        return {
            RMSE_RATE.name: share(sums["squares"], sums["rows"]) ** 0.5,
            ERROR_RATE.name: share(sums["errors"], sums["rows"]),
        }

    def constant(self, targets: Any, learned: np.ndarray) -> np.ndarray | None:  # noqa: ANN401, D102
        return np.array(learned.mean(dtype=float))

    def answer(self, constant: np.ndarray, range: PublicRange | None) -> float:  # noqa: D102
        return range.in_units(float(constant)) if range else float(constant)

    def answer_in_words(self, answers: pd.Series) -> str:  # noqa: D102
        return "always answering the mean"

    def labels(self, target: np.ndarray) -> np.ndarray | None:
        """Return each row's tenth: 0 for a row among the lowest tenth of all rows, and so on."""
        inner_bounds = np.linspace(0, 1, QUANTILES + 1)[1:-1]
        bounds = np.quantile(target, inner_bounds)
        return np.searchsorted(bounds, target, side="right")

    def strata(self, target: np.ndarray) -> np.ndarray:
        """Return one class for all rows."""
        return target * 0

    def label_names(self, count: int) -> list[str]:  # noqa: D102
        middle = [f"{number}." for number in range(2, QUANTILES)]
        tenths = ["lowest tenth", *middle, "highest tenth"]
        return tenths[:count]

    def about(self, target: np.ndarray, range: PublicRange | None) -> dict[str, Any]:  # noqa: D102
        if range is None:
            mean = float(target.mean())
            unit = ""
        else:
            mean = range.in_units(float(target.mean(dtype=float)))
            unit = f" {range.unit}" if range.unit else ""
        return {"mean": round(mean, 6), "about": f"mean {mean:.4g}{unit}"}

    def mislabelled(self, target: np.ndarray, wrong: np.ndarray) -> np.ndarray | None:
        """Return the numbers mirrored at the middle of their range."""
        return -target[wrong]
