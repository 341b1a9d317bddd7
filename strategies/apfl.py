"""APFL: averaging, and beside it for each site a mixture of the global model and one of its own.

Deng, Kamani, Mahdavi, "Adaptive Personalized Federated Learning", 2020, https://arxiv.org/abs/2003.13461, Algorithm 1,
with a fixed alpha (equation 10, which adapts it, is not there). The mixture's steps come from batches of their own, not
from those of w: with shared batches, to charge twice the steps would not bound what both release.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedsim.strategy import Parts, Personal, State, Strategy, check, mean_delta


@dataclass(frozen=True)
class APFL(Strategy):
    """``alpha`` in (0, 1]: the share of a site's own model in its mixture.

    ``lr`` and ``weight_decay`` are those of the sites' steps.
    """

    mean_only: ClassVar = True
    plain_sgd: ClassVar = True
    alpha: float = 0.5
    lr: float = 0.1
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check(self, alpha="(0, 1]", lr="(0, inf)", weight_decay="[0, inf)")

    def second_rule(self) -> "Mixture":
        """Return what the sites do for their own."""
        return Mixture(self.alpha, self.lr, self.weight_decay)

    def aggregate(self, center: Tensor, updates: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the weighted mean, as FedAvg does."""
        return center + mean_delta(center, updates, weights), state


@dataclass(frozen=True)
class Mixture(Personal):
    """Steps with the mixture ``m = alpha v + (1 - alpha) w``, at which the gradient is taken.

    Of ``v <- v - lr alpha grad f(m)`` and of w's step from w to w+ follows
    ``m <- m - lr (alpha^2 grad f(m) - (1 - alpha) (w+ - w) / lr)``. Where there is weight decay it is part of f.
    """

    follows: ClassVar = True
    alpha: float
    lr: float
    weight_decay: float

    def begin(self, center: Tensor, kept: State, parts: Parts) -> tuple[Tensor, State]:
        """Start from the mixture of the own model, the global one in the first round, with the global one."""
        steps = sum(name.startswith("path-") for name in kept) - 1
        moves = {}
        for step in range(steps):
            moves[f"move-{step}"] = kept[f"path-{step + 1}"] - kept[f"path-{step}"]
        own = kept.get("own", center)
        memory = {"center": center, "last": kept[f"path-{steps}"], **moves}
        return self._mixture(own, center), memory

    def correct(self, gradient: Tensor, parameters: Tensor, memory: State, step: int) -> Tensor:
        """Return the gradient of m's step, given that the optimizer adds ``weight_decay m``."""
        square = self.alpha**2
        move = memory[f"move-{step}"]
        decay = (1 - square) * self.weight_decay * parameters
        return square * gradient - decay - (1 - self.alpha) * move / self.lr

    def finish(self, parameters: Tensor, memory: State, steps: int) -> tuple[Tensor, State]:
        """Keep ``v = (m - (1 - alpha) w) / alpha``."""
        return memory["center"], {"own": (parameters - (1 - self.alpha) * memory["last"]) / self.alpha}

    def personal(self, center: Tensor, kept: State) -> Tensor:
        """Return the mixture with the newest global model."""
        if "own" not in kept:
            return center
        return self._mixture(kept["own"], center)

    def _mixture(self, own: Tensor, center: Tensor) -> Tensor:
        return self.alpha * own + (1 - self.alpha) * center
