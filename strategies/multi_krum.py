"""Multi-Krum: the mean of the models that have the closest neighbours.

Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent",
NeurIPS 2017, https://arxiv.org/abs/1703.02757, section 5 (Multi-Krum).
"""

from dataclasses import dataclass

from torch import Tensor

from fedsim.strategy import State, Strategy, check
from strategies.krum import check_enough, scores, squared_distances


@dataclass(frozen=True)
class MultiKrum(Strategy):
    """``f`` >= 0: how many sites may be malicious; ``m`` >= 0: how many are averaged, 0 for n - f."""

    f: int = 1
    m: int = 0

    def __post_init__(self) -> None:
        check(self, f="whole [0, inf)", m="whole [0, inf)")

    def aggregate(self, center: Tensor, updates: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the plain mean of the m updates with the best Krum scores.

        Raises:
            ValueError: Fewer than 2 f + 3 updates came, or fewer than m.
        """
        n = len(updates)
        check_enough("Multi-Krum", n, self.f)
        if self.m > n:
            raise ValueError(f"Multi-Krum: expected at least m = {self.m} updates, got n = {n}")

        deltas = updates - center  # (sites, params)
        ranking = scores(squared_distances(deltas), self.f).argsort(stable=True)
        best = ranking[: self.m or n - self.f]
        return center + deltas[best].mean(0), state
