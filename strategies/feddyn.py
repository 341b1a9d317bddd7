"""FedDyn: averaging, with a linear term in each site's loss that makes the sites' optima agree with everybody's.

Acar, Zhao, Matas, Mattina, Whatmough, Saligrama, "Federated Learning Based on Dynamic Regularization", ICLR 2021,
https://arxiv.org/abs/2111.04263, Algorithm 1, with the sites' SGD in place of exact minimization.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedsim.strategy import LocalRule, Parts, State, Strategy, check, mean_delta, zeros


@dataclass(frozen=True)
class FedDyn(Strategy):
    """FedDyn's server.

    ``alpha`` > 0 is the weight of the regularizer, and ``participation`` in (0, 1] the share of all sites' weight that
    a round's sites have; the adapter sets it anew in each round. Then ``h`` is always the mean of all ``h_k``, each by
    its share of all weight.
    """

    mean_only: ClassVar = True
    alpha: float = 0.1
    participation: float = 1.0

    def __post_init__(self) -> None:
        check(self, alpha="(0, inf)", participation="(0, 1]")

    def local_rule(self) -> "Dynamic":
        """Return what the sites do."""
        return Dynamic(self.alpha)

    def aggregate(self, center: Tensor, updates: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        """Return ``center + mean delta - h / alpha``, where h gathers ``-alpha`` times all changes."""
        delta = mean_delta(center, updates, weights)  # (params,)
        h = zeros(state, "h", center) - self.alpha * self.participation * delta
        return center + delta - h / self.alpha, {"h": h}


@dataclass(frozen=True)
class Dynamic(LocalRule):
    """Adds ``-h_k + alpha (w - center)``, where ``h_k`` is the gradient of the site's loss at its last optimum."""

    alpha: float

    def begin(self, center: Tensor, kept: State, parts: Parts) -> tuple[Tensor, State]:
        """Start from the global model."""
        return center, {"center": center, "own": zeros(kept, "own", center)}

    def correct(self, gradient: Tensor, parameters: Tensor, memory: State, step: int) -> Tensor:
        """Step along the gradient of the regularized loss."""
        return gradient - memory["own"] + self.alpha * (parameters - memory["center"])

    def finish(self, parameters: Tensor, memory: State, steps: int) -> tuple[Tensor, State]:
        """Send all, keep ``h_k - alpha (w - center)``."""
        return parameters, {"own": memory["own"] - self.alpha * (parameters - memory["center"])}
