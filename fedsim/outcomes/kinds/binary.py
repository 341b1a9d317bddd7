"""The outcome that is there or not: a model says how probable it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fedsim.outcomes.metric import Metric, Rate
from fedsim.outcomes.outcome import Outcome, PublicRange
from fedsim.outcomes.scores import auc, auc_inside, of_probabilities, share

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

AUC = Metric(
    "auc",
    "AUC",
    "higher",
    0.0,
    1.0,
    by_site=True,
    meaning=(
        "The AUC says how often the model ranks a random positive case above a random negative one: 0.5 "
        "is guessing, 1 is perfect."
    ),
    meaning_inside=(
        "The AUC inside sites says how often the model ranks a random positive case above a random "
        "negative one of the same site: 0.5 is guessing, 1 is perfect."
    ),
)
ACCURACY = Metric(
    "accuracy",
    "accuracy",
    "higher",
    0.0,
    1.0,
    meaning="The accuracy is the share of rows whose class is named rightly.",
)
LOG_LOSS = Metric("log_loss", "log loss", "lower", 0.0, np.inf)

SELECTION = Rate("selection_rate", "selection rate", "rows", "neither", 0.0, 1.0)
TPR = Rate("tpr", "true positive rate", "positives", "higher", 0.0, 1.0)
FPR = Rate("fpr", "false positive rate", "negatives", "lower", 0.0, 1.0)
CALIBRATION = Rate("calibration", "expected minus observed", "rows", "neither", -1.0, 1.0)


class Binary(Outcome):
    """Targets are 0 or 1, float32 (rows,); outputs are logits, (rows, 1)."""

    name = "binary"
    in_words = "a yes or no"
    outputs_in_words = "logits (rows, 1)"
    metrics = (AUC, ACCURACY, LOG_LOSS)
    rates = (TPR, SELECTION, FPR, CALIBRATION)
    sums = ("positives", "selected", "found", "expected")
    summary_columns = ("positives",)
    leads = "Positive means"
    on_few_rows = (
        "Few rows, or few of one kind, make wide intervals. An AUC is missing where the test rows are all positive or "
        "all negative."
    )
    on_rates = (
        "The true positive rate is the share of the positive rows that the model finds, at a threshold of one half: "
        "the difference in it is that of equal opportunity. The selection rate is the share of rows that it calls "
        "positive: the difference in it is that of demographic parity, and it also follows from how common the outcome "
        "is in a group. Expected minus observed is the mean predicted probability less the share of positive rows."
    )
    split_where = "for each class of each site"
    about_rows = ("Positive", "Negative")
    learned_from = (
        "The answer is the majority of the training rows of all sites; "
        "the log loss is that of their share of positives."
    )

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:  # noqa: D102
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(outputs.squeeze(1), target, reduction="none")

    def fault_of(self, target: np.ndarray) -> str | None:  # noqa: D102
        return None if np.isin(target, (0, 1)).all() else "a target of 0 or 1"

    def fault_of_outputs(self, outputs: Tensor, target: Tensor) -> str | None:  # noqa: D102
        if outputs.shape[1:] == (1,):
            return None
        two = " (two outputs are for the kind 'classes')" if outputs.shape[1:] == (2,) else ""
        return f"{self.outputs_in_words}{two}"

    def said(self, outputs: Tensor, target: Tensor) -> np.ndarray:  # noqa: D102
        return outputs.squeeze(1).sigmoid().cpu().numpy().astype(np.float64)

    def values(self, target: np.ndarray, predicted: np.ndarray, scale: float) -> dict[str, float | None]:  # noqa: D102
        likelihood = np.where(target == 1, predicted, 1 - predicted)  # of the true label, (rows,)
        guess = predicted >= 0.5
        return {"auc": auc(target, predicted), **of_probabilities(likelihood, guess == target)}

    def values_inside(self, target: np.ndarray, predicted: np.ndarray, site: np.ndarray) -> dict[str, float | None]:  # noqa: D102
        return {"auc": auc_inside(target, predicted, site)}

    def summary(self, target: np.ndarray, range: PublicRange | None) -> dict[str, object]:  # noqa: D102
        return {"positives": int((target == 1).sum())}

    def summands(self, target: np.ndarray, predicted: np.ndarray, range: PublicRange | None) -> dict[str, np.ndarray]:  # noqa: D102
        known = np.where(np.isfinite(predicted), 1.0, np.nan)  # makes a summand NaN, (rows,)
        selected = known * (predicted >= 0.5)
        return {
            "positives": target.astype(float),
            "selected": selected,
            "found": selected * target,
            "expected": known * np.nan_to_num(predicted),
        }

    def rates_of(self, sums: pd.DataFrame) -> dict[str, pd.Series]:  # noqa: D102
        negatives = sums["rows"] - sums["positives"]
        return {
            TPR.name: share(sums["found"], sums["positives"]),
            SELECTION.name: share(sums["selected"], sums["rows"]),
            FPR.name: share(sums["selected"] - sums["found"], negatives),
            CALIBRATION.name: share(sums["expected"] - sums["positives"], sums["rows"]),
        }

    def constant(self, targets: Any, learned: np.ndarray) -> np.ndarray | None:  # noqa: ANN401, D102
        return np.array(learned.mean(dtype=float))

    def answer(self, constant: np.ndarray, range: PublicRange | None) -> float:  # noqa: D102
        return float(constant)

    def answer_in_words(self, answers: pd.Series) -> str:  # noqa: D102
        if (answers >= 0.5).all():
            return "always answering positive"
        if (answers < 0.5).all():
            return "always answering negative"
        return "always answering the majority"

    def probabilities(self, target: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:  # noqa: D102
        return predicted, target == 1

    def named(self, predicted: np.ndarray, threshold: float) -> tuple[int, np.ndarray] | None:  # noqa: D102
        return 2, (predicted >= threshold).astype(int)

    def labels(self, target: np.ndarray) -> np.ndarray | None:  # noqa: D102
        return target.astype(np.int64)

    def strata(self, target: np.ndarray) -> np.ndarray:  # noqa: D102
        return target

    def label_names(self, count: int) -> list[str]:  # noqa: D102
        return ["negative", "positive"]

    def about(self, target: np.ndarray, range: PublicRange | None) -> dict[str, Any]:  # noqa: D102
        positive = float(target.mean())
        return {"positive": round(positive, 3), "about": f"{positive:.1%} positive"}

    def mislabelled(self, target: np.ndarray, wrong: np.ndarray) -> np.ndarray | None:  # noqa: D102
        return 1 - target[wrong]
