"""Define a kind of outcome: everything that depends on what a model is to say of a row.

A kind is one class with a hook for each place that has to know it, and a default where most kinds do the same.
``fedsim/outcomes/kinds`` holds those that are ready-made, one file each. A task brings a kind of its own as an object
(``fedsim.outcomes.own``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from fedsim.outcomes.metric import Metric, Rate
from fedsim.outcomes.scores import share

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor


class PublicRange(Protocol):
    """The public range of a number: targets are scaled by it to [-1, 1]."""

    @property
    def scale(self) -> float:
        """The amount of the outcome's unit in 1 of a target."""
        ...

    @property
    def unit(self) -> str:
        """The outcome's unit."""
        ...

    def in_units(self, scaled: float) -> float:
        """Return a target in the outcome's unit."""
        ...


class Outcome:
    """A kind of outcome.

    A subclass has to give ``name``, ``in_words``, ``metrics``, ``losses``, ``said``, ``values``, and either
    ``row_rate`` with ``row_figures``, or rates of its own. The other hooks have defaults: rows of a kind without labels
    can't be dealt out by their labels.

    Attributes:
        name: The name in ``Task.kind``, in scenarios and in the files of a run.
        in_words: What an outcome is, e.g. ``one of several classes``.
        outputs_in_words: What a model gives for it, with the shape.
        metrics: The metrics; the first is the headline, by which strategies are ranked.
        row_rate: The rate by which groups are compared, a mean of ``row_figures``, of a kind without other rates.
        rates: The rates that groups are compared by; the first is the headline.
        sums: The sums over the rows of a group, beside their number ``rows``, from which rates follow.
        is_whole: Whether targets are whole numbers, int64, and not float32.
        has_range: Whether the outcome has a public range, which scales its targets to [-1, 1].
        of_inputs: Whether the target of a row is its inputs, so that a task gives none.
        has_target: Whether a task gives targets.
        predicts: Whether ``said`` answers rows without their targets, so that new rows can be predicted.
        summary_columns: The columns that ``summary`` gives.
        about_rows: Their headings, for the table of sites.
        learned_from: What the constant answer is learned from, in a sentence.
        leads: What stands before the outcome's meaning in a report.
        on_few_rows: What few rows do to the figures of a site, in sentences.
        on_rates: What the rates of groups are, in sentences.
        split_where: For what the shares of a split hold.
    """

    name: ClassVar[str] = ""
    in_words: ClassVar[str] = ""
    outputs_in_words: ClassVar[str] = "outputs (rows, ...)"
    metrics: tuple[Metric, ...] = ()
    row_rate: Rate
    rates: tuple[Rate, ...] = ()
    sums: tuple[str, ...] = ("figures",)
    is_whole: ClassVar[bool] = False
    has_range: ClassVar[bool] = False
    of_inputs: ClassVar[bool] = False
    has_target: ClassVar[bool] = True
    predicts: ClassVar[bool] = True
    summary_columns: tuple[str, ...] = ()
    about_rows: tuple[str, ...] = ()
    learned_from: ClassVar[str] = "The answer is that of the training rows of all sites."
    leads: ClassVar[str] = "The outcome"
    on_few_rows: ClassVar[str] = "Few rows make wide intervals."
    on_rates: ClassVar[str] = ""
    split_where: ClassVar[str] = "at each site"

    def __init_subclass__(cls) -> None:
        """Take the rate of rows for the only one of a kind that has no others."""
        super().__init_subclass__()
        if not cls.rates and "row_rate" in vars(cls):
            cls.rates = (cls.row_rate,)

    # Training.

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return each row's loss, float32 (rows,), from that row alone.

        Args:
            outputs: A model's outputs, (rows, ...).
            target: The targets, (rows, ...).
        """
        raise NotImplementedError

    def fault_of(self, target: np.ndarray) -> str | None:
        """Return what targets (rows, ...) should be, in words, where they are not; None where they are."""
        return None if np.isfinite(target).all() else "a finite target"

    def fault_of_outputs(self, outputs: Tensor, target: Tensor) -> str | None:
        """Return what a model's outputs should be, in words, where their shape is another; None where it fits.

        Args:
            outputs: Outputs of at least two dimensions, one for each row.
            target: The targets of these rows.
        """
        return None

    # Measuring.

    def said(self, outputs: Tensor, target: Tensor) -> np.ndarray:
        """Return what a model says of each row, float64 (rows, ...), in the form that ``values`` takes.

        Args:
            outputs: As in ``losses``.
            target: As in ``losses``; for kinds that keep of an output only what its target asks about.
        """
        raise NotImplementedError

    def values(self, target: np.ndarray, predicted: np.ndarray, scale: float) -> dict[str, float | None]:
        """Compute the metrics of some rows, at least one: {name: value}, None where one can't be computed.

        Args:
            target: (rows, ...).
            predicted: As ``said`` returns it; all are finite.
            scale: The amount of the outcome's unit in 1 of a target.
        """
        raise NotImplementedError

    def values_inside(self, target: np.ndarray, predicted: np.ndarray, site: np.ndarray) -> dict[str, float | None]:
        """Compute the metrics that compare rows, each row compared with rows of its own site only.

        By default they are the sites' own figures, averaged with the number of rows as weight; a site without a figure
        drops out.

        Args:
            target: (rows, ...), at least one row.
            predicted: As in ``values``.
            site: Each row's site, whole numbers from 0 on, (rows,).
        """
        totals = {metric.name: 0.0 for metric in self.metrics if metric.by_site}
        weights = dict.fromkeys(totals, 0)
        for number in np.unique(site) if totals else ():
            here = site == number
            of_site = self.values(target[here], predicted[here], 1.0)
            for name in totals:
                figure = of_site[name]
                if figure is not None:
                    totals[name] += int(here.sum()) * figure
                    weights[name] += int(here.sum())
        return {name: total / weights[name] if weights[name] else None for name, total in totals.items()}

    def summary(self, target: np.ndarray, range: PublicRange | None) -> dict[str, object]:
        """Summarize the targets of a site for the table of its figures: {column: figure}."""
        return {}

    def summary_inside(self, targets: Sequence[np.ndarray]) -> dict[str, object]:
        """Summarize the targets of all sites, (rows, ...) each, where that differs from their summary in one pot."""
        return {}

    def summands(self, target: np.ndarray, predicted: np.ndarray, range: PublicRange | None) -> dict[str, np.ndarray]:
        """Compute each row's part in ``sums``, float64 (rows,); NaN where a prediction is not finite."""
        total = predicted.reshape(len(predicted), -1).sum(1)
        known = np.where(np.isfinite(total), 1.0, np.nan)
        return {"figures": known * self.row_figures(target, np.nan_to_num(predicted))}

    def row_figures(self, target: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Compute the figure of each row whose mean is ``row_rate``, float64 (rows,)."""
        raise NotImplementedError

    def rates_of(self, sums: pd.DataFrame) -> dict[str, pd.Series]:
        """Compute the rates that follow from sums, {name: a value for each row of the table}."""
        return {self.row_rate.name: share(sums["figures"], sums["rows"])}

    def constant(self, targets: Sequence[np.ndarray], learned: np.ndarray) -> np.ndarray | None:
        """Return the same answer to every row, as ``said`` would; None where there is none.

        Args:
            targets: All targets that are to be answered, (rows, ...) each.
            learned: The targets to learn from, (rows, ...).
        """
        return None

    def answer(self, constant: np.ndarray, range: PublicRange | None) -> float:
        """Return a constant as a figure for people."""
        return float("nan")

    def answer_in_words(self, answers: pd.Series) -> str:
        """Return what is always answered, e.g. ``always answering the mean``, from the answers of all seeds."""
        return "always answering the same"

    def probabilities(self, target: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the probability that was said of each row, and whether it came true; None where none is said."""
        return None

    def named(self, predicted: np.ndarray, threshold: float) -> tuple[int, np.ndarray] | None:
        """Return the number of classes, and the class that is named for each row; None where none is named."""
        return None

    # The rows of a site.

    def labels(self, target: np.ndarray) -> np.ndarray | None:
        """Return each row's label, int64 (rows,), by which partitions are skewed; None where rows have none."""
        return None

    def strata(self, target: np.ndarray) -> np.ndarray:
        """Return the class of each row, (rows,): rows are split for training and testing class by class."""
        return np.zeros(len(target), np.float32)

    def label_names(self, count: int) -> list[str]:
        """Return the names of the labels."""
        return [f"label {number}" for number in range(count)]

    def about(self, target: np.ndarray, range: PublicRange | None) -> dict[str, Any]:
        """Summarize the outcome of a site as a figure and, under ``about``, in words."""
        return {"about": f"{len(target)} rows"}

    def mislabelled(self, target: np.ndarray, wrong: np.ndarray) -> np.ndarray | None:
        """Return wrong targets for some rows, by number; None where there is no such thing."""
        return None

    def declares(self) -> Mapping[str, Any]:
        """Return what the files of a run say of a kind that only its task knows; empty for ready-made kinds."""
        return {}
