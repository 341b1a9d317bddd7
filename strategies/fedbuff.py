"""FedBuff: asynchronous averaging with a buffer; who is slow is not waited for, and counts less.

Nguyen, Malik, Zhan, Yousefpour, Rabbat, Malek, Huba, "Federated Learning with Buffered Asynchronous Aggregation",
AISTATS 2022, https://arxiv.org/abs/2106.06639, Algorithm 1, with the staleness weights ``1 / sqrt(1 + tau)``.

A round is one server step. An update is what the site changed in the model it began with, ``tau`` rounds ago.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedsim.strategy import Buffered, State, check, mean_delta


@dataclass(frozen=True)
class FedBuff(Buffered):
    """Buffer size ``k`` >= 1, ``concurrency`` >= 0 sites at work at once (0: all), server learning rate ``eta`` > 0."""

    reports: ClassVar = ("staleness",)
    k: int = 2
    concurrency: int = 0
    eta: float = 1.0

    def __post_init__(self) -> None:
        check(self, k="whole [1, inf)", concurrency="whole [0, inf)", eta="(0, inf)")

    def aggregate(
        self, center: Tensor, updates: Tensor, weights: Tensor, state: State, reports: Mapping[str, Tensor]
    ) -> tuple[Tensor, State]:
        """Return ``center + eta mean(delta / sqrt(1 + tau))``: what the buffer lacks in freshness, it moves less."""
        discounted = weights * (1 + reports["staleness"]).rsqrt()  # (sites,)
        return center + self.eta * mean_delta(center, updates, discounted), state
