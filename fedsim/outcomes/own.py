"""Make a kind of outcome of a task's own: a loss, predictions, and metrics with their direction and averaging."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from fedsim.mistakes import Mistake
from fedsim.outcomes.metric import Metric, Rate
from fedsim.outcomes.outcome import Outcome

if TYPE_CHECKING:
    from torch import Tensor


class Losses(Protocol):
    """A loss that keeps rows apart."""

    def __call__(self, outputs: Tensor, target: Tensor, /) -> Tensor:
        """Return each row's loss, (rows,), from outputs (rows, ...) and targets (rows, ...)."""
        ...


@dataclass(frozen=True)
class OwnMetric:
    """A metric of a task's own.

    Attributes:
        name: Its name in tables.
        compute: Computes it from targets (rows, ...) and predictions (rows, ...); None where it can't be computed.
        label: Its label for people; by default its name.
        better: Whether a higher or a lower figure is better.
        low: The least figure there can be.
        high: The greatest figure there can be.
        average: What stands for all sites: ``rows`` for a mean over rows, which is the same pooled and inside sites;
            ``sites`` for a metric that compares rows, whose figure inside sites is the mean of the sites' own figures.
        meaning: A sentence that explains it in reports.
    """

    name: str
    compute: Callable[[np.ndarray, np.ndarray], float | None]
    label: str = ""
    better: Literal["higher", "lower"] = "higher"
    low: float = -np.inf
    high: float = np.inf
    average: Literal["rows", "sites"] = "rows"
    meaning: str = ""

    @property
    def metric(self) -> Metric:
        """The metric as tables know it."""
        return Metric(
            self.name, self.label or self.name, self.better, self.low, self.high, self.average == "sites", self.meaning
        )


class OwnKind(Outcome):
    """A kind of outcome that a task brings, for ``Task.kind``.

    Args:
        name: A name that no ready-made kind has.
        losses: The loss of each row.
        metrics: The metrics; the first is the headline, of which more has to be better.
        said: Turns outputs (rows, ...) into predictions, an array or tensor (rows, ...); by default they are the
            predictions.
        in_words: What an outcome is, e.g. ``a picture with its parts marked``.
        whole: Whether targets are whole numbers, int64, and not float32.
        target: Whether the task gives targets.

    Raises:
        Mistake: The metrics are none, the headline is one of which less is better, or none is a mean over rows.
    """

    def __init__(
        self,
        name: str,
        losses: Losses,
        metrics: Sequence[OwnMetric],
        said: Callable[[Tensor], Any] | None = None,
        in_words: str = "",
        whole: bool = False,
        target: bool = True,
    ) -> None:
        if not metrics or metrics[0].better != "higher":
            raise Mistake(f"kind {name!r}: expected metrics of which the first is better the higher it is")
        of_rows = [one for one in metrics if one.average == "rows"]
        if not of_rows:
            expected = "expected a metric that is a mean over rows among them: groups are compared by it"
            raise Mistake(f"kind {name!r}: {expected}")
        compared = of_rows[0].metric
        self.row_rate = Rate(compared.name, compared.label, "rows", compared.better, compared.low, compared.high)
        self.rates = (self.row_rate,)
        self._compared = of_rows[0].compute
        self.name = name  # type: ignore[misc]  of this kind alone
        self.in_words = in_words or name  # type: ignore[misc]
        self.is_whole = whole  # type: ignore[misc]
        self.has_target = target  # type: ignore[misc]
        self.metrics = tuple(one.metric for one in metrics)
        self._losses = losses
        self._said = said
        self._computed = {one.name: one.compute for one in metrics}

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return each row's loss, (rows,)."""
        return self._losses(outputs, target)

    def said(self, outputs: Tensor, target: Tensor) -> np.ndarray:
        """Return the predictions, float64 (rows, ...)."""
        predicted = outputs if self._said is None else self._said(outputs)
        if not isinstance(predicted, np.ndarray):
            predicted = predicted.cpu().numpy()
        return predicted.astype(np.float64)

    def values(self, target: np.ndarray, predicted: np.ndarray, scale: float) -> dict[str, float | None]:
        """Compute the metrics."""
        figures = {}
        for name, compute in self._computed.items():
            figure = compute(target, predicted)
            figures[name] = None if figure is None or not np.isfinite(figure) else float(figure)
        return figures

    def row_figures(self, target: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Compute the first metric that is a mean over rows, of each row alone."""
        figures = np.full(len(target), np.nan)
        for row in range(len(target)):
            figure = self._compared(target[row : row + 1], predicted[row : row + 1])
            if figure is not None:
                figures[row] = figure
        return figures

    def declares(self) -> Mapping[str, Any]:
        """Return the metrics and the words, which the files of a run keep: they are read without the task."""
        metrics = []
        for metric in self.metrics:
            bounds = {"low": _written(metric.low), "high": _written(metric.high)}
            metrics.append({**asdict(metric), **bounds})
        return {"name": self.name, "in_words": self.in_words, "metrics": metrics}


def _written(bound: float) -> float | None:
    """Return a bound as JSON has it: None where there is none."""
    return float(bound) if np.isfinite(bound) else None


def remembered(declared: Mapping[str, Any]) -> OwnKind:
    """Make the kind that the files of a run declare: enough to report on its figures, not to train."""

    def unknown(*_: object) -> Any:  # noqa: ANN401
        raise Mistake(f"kind {declared['name']!r}: expected the task that brings it, to train or measure anew")

    metrics = []
    for metric in declared["metrics"]:
        average = "sites" if metric["by_site"] else "rows"
        low = -np.inf if metric["low"] is None else metric["low"]
        high = np.inf if metric["high"] is None else metric["high"]
        metrics.append(
            OwnMetric(metric["name"], unknown, metric["label"], metric["better"], low, high, average, metric["meaning"])
        )
    return OwnKind(declared["name"], unknown, metrics, in_words=declared["in_words"])
