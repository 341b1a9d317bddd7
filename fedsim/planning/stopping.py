"""When a training stops before its last round, and which round it keeps: a rule on the figures of its rounds alone."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fedsim.outcomes import outcome_of
from fedsim.outcomes.metric import Metric
from fedsim.scenario.kinds import Kind
from fedsim.scenario.schema import Stopping


def metric_of(stopping: Stopping, kind: Kind) -> Metric | None:
    """Return the metric that rounds are judged by; None where the task's kind has no such."""
    if stopping.metric is None:
        return outcome_of(kind).metrics[0]
    for metric in outcome_of(kind).metrics:
        if metric.name == stopping.metric:
            return metric
    return None


@dataclass
class Judged:
    """The rounds that were judged.

    Attributes:
        rounds: How many they are.
        best_round: The first round with the best figure; 0 while none had one.
        best: Its figure.
        gained_in: The last round that gained more than the smallest gain; 0 while none had a figure.
        level: Its figure, which the next one has to exceed by more than the smallest gain.
    """

    rounds: int = 0
    best_round: int = 0
    best: float = -math.inf
    gained_in: int = 0
    level: float = -math.inf


class Choice:
    """The choice of a round, which sees one figure after another.

    Args:
        stopping: What was asked for.
        metric: The metric of the figures.
    """

    def __init__(self, stopping: Stopping, metric: Metric) -> None:
        self._stopping = stopping
        self.metric = metric
        self.judged = Judged()

    def judge(self, figure: float | None) -> bool:
        """Take the figure of the next round; return whether the round is the best so far.

        A round without a figure is never the best, and gains nothing.
        """
        judged = self.judged
        judged.rounds += 1
        if figure is None or math.isnan(figure):
            return False
        height = figure if self.metric.better == "higher" else -figure
        if height - judged.level > self._stopping.smallest_gain or not judged.gained_in:
            judged.gained_in = judged.rounds
            judged.level = height
        if judged.best_round and height <= judged.best:
            return False
        judged.best_round = judged.rounds
        judged.best = height
        return True

    @property
    def enough(self) -> bool:
        """Whether the training ends: as many rounds as it has patience for gained nothing."""
        patience = self._stopping.patience
        return patience is not None and self.judged.rounds - self.judged.gained_in >= patience

    @property
    def keeps_best(self) -> bool:
        """Whether the models of the best round are kept, and not those of the last."""
        return self._stopping.keep == "best"

    def snapshot(self) -> dict[str, Any]:
        """Return what was judged, as values."""
        return asdict(self.judged)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``snapshot`` returned."""
        self.judged = Judged(**state)
