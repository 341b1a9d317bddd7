"""The outcome that is one of several classes: a model says how probable each is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsim.outcomes.kinds.binary import ACCURACY, AUC, CALIBRATION, LOG_LOSS
from fedsim.outcomes.metric import Rate
from fedsim.outcomes.outcome import Outcome, PublicRange
from fedsim.outcomes.scores import auc_of_classes, auc_of_classes_inside, of_probabilities, share

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

RIGHT = Rate("accuracy", "accuracy", "rows", "higher", 0.0, 1.0)


class Classes(Outcome):
    """Targets are class numbers from 0 on, int64 (rows,); outputs are logits, (rows, classes)."""

    name = "classes"
    in_words = "one of several classes"
    outputs_in_words = "logits (rows, classes)"
    metrics = (ACCURACY, LOG_LOSS, AUC)
    rates = (RIGHT, CALIBRATION)
    sums = ("right", "expected")
    is_whole = True
    summary_columns = ("most_common",)
    on_rates = "Expected minus observed is the mean probability of the class that is named, less the accuracy."
    split_where = "for each class of each site"
    about_rows = ("Of the most common class",)
    learned_from = (
        "The class is the most common in the training rows of all sites; "
        "the log loss is that of their shares of classes."
    )

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:  # noqa: D102
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, target, reduction="none")

    def fault_of(self, target: np.ndarray) -> str | None:  # noqa: D102
        return None if (target >= 0).all() else "a target of class numbers, int64 from 0 on"

    def fault_of_outputs(self, outputs: Tensor, target: Tensor) -> str | None:  # noqa: D102
        least = max(2, int(target.max()) + 1)
        fits = outputs.ndim == 2 and outputs.shape[1] >= least
        return None if fits else f"{self.outputs_in_words} of {least} or more classes"

    def said(self, outputs: Tensor, target: Tensor) -> np.ndarray:  # noqa: D102
        return outputs.softmax(1).cpu().numpy().astype(np.float64)

    def values(self, target: np.ndarray, predicted: np.ndarray, scale: float) -> dict[str, float | None]:  # noqa: D102
        likelihood = predicted[np.arange(len(target)), target]  # of the true class, (rows,)
        is_right = predicted.argmax(1) == target
        return {**of_probabilities(likelihood, is_right), "auc": auc_of_classes(target, predicted)}

    def values_inside(self, target: np.ndarray, predicted: np.ndarray, site: np.ndarray) -> dict[str, float | None]:  # noqa: D102
        return {"auc": auc_of_classes_inside(target, predicted, site)}

    def summary(self, target: np.ndarray, range: PublicRange | None) -> dict[str, object]:  # noqa: D102
        return {"most_common": _most_common(target)}

    def summary_inside(self, targets: Sequence[np.ndarray]) -> dict[str, object]:
        """Count the rows of the most common class of their own site."""
        return {"most_common": sum(_most_common(target) for target in targets)}

    def summands(self, target: np.ndarray, predicted: np.ndarray, range: PublicRange | None) -> dict[str, np.ndarray]:  # noqa: D102
        known = np.where(np.isfinite(predicted.sum(1)), 1.0, np.nan)  # makes a summand NaN, (rows,)
        return {
            "right": known * (predicted.argmax(1) == target),
            "expected": known * np.nan_to_num(predicted.max(1)),
        }

    def rates_of(self, sums: pd.DataFrame) -> dict[str, pd.Series]:  # noqa: D102
        return {
            RIGHT.name: share(sums["right"], sums["rows"]),
            CALIBRATION.name: share(sums["expected"] - sums["right"], sums["rows"]),
        }

    def constant(self, targets: Sequence[np.ndarray], learned: np.ndarray) -> np.ndarray | None:  # noqa: D102
        classes = 1 + max(int(target.max()) for target in (learned, *targets) if len(target))
        return np.bincount(learned, minlength=classes) / len(learned)

    def answer(self, constant: np.ndarray, range: PublicRange | None) -> float:  # noqa: D102
        return float(constant.argmax())

    def answer_in_words(self, answers: pd.Series) -> str:  # noqa: D102
        return "always naming the most common class"

    def probabilities(self, target: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:  # noqa: D102
        return predicted.max(axis=1), predicted.argmax(axis=1) == target

    def named(self, predicted: np.ndarray, threshold: float) -> tuple[int, np.ndarray] | None:  # noqa: D102
        return predicted.shape[1], predicted.argmax(axis=1)

    def labels(self, target: np.ndarray) -> np.ndarray | None:  # noqa: D102
        return target.astype(np.int64)

    def strata(self, target: np.ndarray) -> np.ndarray:  # noqa: D102
        return target

    def label_names(self, count: int) -> list[str]:  # noqa: D102
        return [f"class {number}" for number in range(count)]

    def about(self, target: np.ndarray, range: PublicRange | None) -> dict[str, Any]:  # noqa: D102
        counts = np.bincount(target)
        classes = int((counts > 0).sum())
        largest_share = float(counts.max() / len(target))
        return {"classes": classes, "about": f"{classes} classes, {largest_share:.0%} of one"}

    def mislabelled(self, target: np.ndarray, wrong: np.ndarray) -> np.ndarray | None:
        """Return the next class that the site has."""
        classes = np.unique(target)  # those of the site, ascending
        place = np.searchsorted(classes, target[wrong])
        return classes[(place + 1) % len(classes)]


def _most_common(target: np.ndarray) -> int:
    """Count the rows of the most common class."""
    return int(np.bincount(target).max()) if len(target) else 0
