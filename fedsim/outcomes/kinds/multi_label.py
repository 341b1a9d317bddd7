"""Several outcomes of a row, each of which is there or not, such as the findings on an X-ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsim.outcomes.kinds.binary import LOG_LOSS
from fedsim.outcomes.metric import Metric, Rate
from fedsim.outcomes.outcome import Outcome, PublicRange
from fedsim.outcomes.scores import auc, auc_inside, mean_of_known, of_probabilities

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

MACRO_AUC = Metric(
    "macro_auc",
    "AUC, mean over labels",
    "higher",
    0.0,
    1.0,
    by_site=True,
    meaning=(
        "The AUC says how often the model ranks a random row with a label above a random row without it, "
        "and is the mean over the labels: 0.5 is guessing, 1 is perfect."
    ),
    meaning_inside=(
        "The AUC inside sites says how often the model ranks a random row with a label above a random row"
        " of the same site without it, and is the mean over the labels: 0.5 is guessing, 1 is perfect."
    ),
)
LABEL_ACCURACY = Metric("label_accuracy", "share of labels named rightly", "higher", 0.0, 1.0)
ROWS = Rate("label_accuracy", "share of labels named rightly", "rows", "higher", 0.0, 1.0)


class MultiLabel(Outcome):
    """Targets are 0 or 1, float32 (rows, labels); outputs are logits, (rows, labels).

    A row's loss is the mean of its labels' log losses.
    """

    name = "multi-label"
    in_words = "several outcomes, each there or not"
    outputs_in_words = "logits of the targets' shape, (rows, labels)"
    metrics = (MACRO_AUC, LABEL_ACCURACY, LOG_LOSS)
    row_rate = ROWS
    summary_columns = ("labels_of_a_row",)
    about_rows = ("Labels of a row",)

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:  # noqa: D102
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(outputs, target, reduction="none").mean(1)

    def fault_of(self, target: np.ndarray) -> str | None:  # noqa: D102
        if target.ndim != 2:
            return "a target of shape (rows, labels)"
        return None if np.isin(target, (0, 1)).all() else "a target of 0 or 1 for each label"

    def fault_of_outputs(self, outputs: Tensor, target: Tensor) -> str | None:  # noqa: D102
        fits = outputs.shape == target.shape
        return None if fits else self.outputs_in_words

    def said(self, outputs: Tensor, target: Tensor) -> np.ndarray:  # noqa: D102
        return outputs.sigmoid().cpu().numpy().astype(np.float64)

    def values(self, target: np.ndarray, predicted: np.ndarray, scale: float) -> dict[str, float | None]:  # noqa: D102
        likelihood = np.where(target == 1, predicted, 1 - predicted)
        of_labels = of_probabilities(likelihood.ravel(), ((predicted >= 0.5) == target).ravel())
        return {
            "macro_auc": _over_labels(auc, target, predicted),
            "label_accuracy": of_labels["accuracy"],
            "log_loss": of_labels["log_loss"],
        }

    def values_inside(self, target: np.ndarray, predicted: np.ndarray, site: np.ndarray) -> dict[str, float | None]:
        """Compare rows of the same site, label by label."""

        def inside(of_label: np.ndarray, probability: np.ndarray) -> float | None:
            return auc_inside(of_label, probability, site)

        return {"macro_auc": _over_labels(inside, target, predicted)}

    def row_figures(self, target: np.ndarray, predicted: np.ndarray) -> np.ndarray:  # noqa: D102
        return ((predicted >= 0.5) == target).mean(1)

    def summary(self, target: np.ndarray, range: PublicRange | None) -> dict[str, object]:  # noqa: D102
        return {"labels_of_a_row": float(target.sum(1).mean()) if len(target) else None}

    def constant(self, targets: Sequence[np.ndarray], learned: np.ndarray) -> np.ndarray | None:
        """Return the share of each label."""
        return learned.mean(0, dtype=float)

    def answer(self, constant: np.ndarray, range: PublicRange | None) -> float:  # noqa: D102
        return float(constant.mean())

    def answer_in_words(self, answers: pd.Series) -> str:  # noqa: D102
        return "always answering each label's share"

    def about(self, target: np.ndarray, range: PublicRange | None) -> dict[str, Any]:  # noqa: D102
        labels = float(target.sum(1).mean())
        return {"labels_of_a_row": round(labels, 3), "about": f"{labels:.2f} of {target.shape[1]} labels a row"}

    def mislabelled(self, target: np.ndarray, wrong: np.ndarray) -> np.ndarray | None:  # noqa: D102
        return 1 - target[wrong]


def _over_labels(
    area: Callable[[np.ndarray, np.ndarray], float | None],
    target: np.ndarray,
    predicted: np.ndarray,
) -> float | None:
    """Average an AUC over the labels that have one."""
    return mean_of_known([area(target[:, label], predicted[:, label]) for label in range(target.shape[1])])
