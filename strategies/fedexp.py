"""FedExP: averaging with a longer step where the sites' changes disagree.

Jhunjhunwala, Wang, Joshi, "FedExP: Speeding Up Federated Averaging via Extrapolation", ICLR 2023,
https://arxiv.org/abs/2301.09604, equation 8. The paper's last model is the mean of the last two; here it is the last.
"""

from dataclasses import dataclass

from torch import Tensor

from fedsim.strategy import State, Strategy, check


@dataclass(frozen=True)
class FedExP(Strategy):
    """``epsilon`` > 0 keeps the step finite where the mean change vanishes; in units of a squared update."""

    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        check(self, epsilon="(0, inf)")

    def aggregate(self, center: Tensor, updates: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        """Return ``center + eta mean delta`` with ``eta = max(1, mean |delta|^2 / 2 (|mean delta|^2 + epsilon))``."""
        deltas = updates - center  # (sites, params)
        mean = weights @ deltas  # (params,)
        eta = (weights @ deltas.square().sum(1)) / (2 * (mean.square().sum() + self.epsilon))
        return center + eta.clamp(min=1.0) * mean, state
