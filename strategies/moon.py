"""MOON: averaging, with sites whose representations are held near the global model's and away from their last one's.

Li, He, Song, "Model-Contrastive Federated Learning", CVPR 2021, https://arxiv.org/abs/2103.16257, Algorithm 1 and
equation 3. A row's representation is the input of the model's last layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from fedsim.strategy import Comparing, Parts, State, Strategy, check, mean_delta


@dataclass(frozen=True)
class Moon(Strategy):
    """``mu`` >= 0: the weight of the contrastive term; ``tau`` > 0: its temperature. The model needs two layers."""

    mean_only: ClassVar = True
    mu: float = 1.0
    tau: float = 0.5

    def __post_init__(self) -> None:
        check(self, mu="[0, inf)", tau="(0, inf)")

    def local_rule(self) -> "Contrastive":
        """Return what the sites do."""
        return Contrastive(self.mu, self.tau)

    def aggregate(self, center: Tensor, updates: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the weighted mean, as FedAvg does."""
        return center + mean_delta(center, updates, weights), state


@dataclass(frozen=True)
class Contrastive(Comparing):
    """Adds ``-mu log(e^(sim(z, z_glob) / tau) / (e^(sim(z, z_glob) / tau) + e^(sim(z, z_prev) / tau)))`` to each loss.

    Under record-level privacy: a row's term depends on that row and on the two other models, both released or made of
    noisy steps; so it is within the gradient that is clipped, and what is kept is post-processing.
    """

    mu: float
    tau: float

    def begin(self, center: Tensor, kept: State, parts: Parts) -> tuple[Tensor, State]:
        """Start from the global model. In the first round it is the previous one, too: the term's gradient is 0.

        Raises:
            ValueError: The model has one layer: it makes nothing of a row inside.
        """
        layers = {part.name.rpartition(".")[0] for part in parts}
        if len(layers) < 2:
            raise ValueError(
                f"MOON: expected a model with a layer before its last, whose output it compares, got "
                f"{', '.join(part.name for part in parts)}"
            )
        return center, {"center": center, "previous": kept.get("previous", center)}

    def finish(self, parameters: Tensor, memory: State, steps: int) -> tuple[Tensor, State]:
        """Send all, and keep it as the previous model."""
        return parameters, {"previous": parameters}

    def compared(self, memory: State) -> Sequence[Tensor]:
        """Compare with the global model and the site's previous one."""
        return memory["center"], memory["previous"]

    def term(self, own: Tensor, others: Sequence[Tensor]) -> Tensor:
        """Return mu times equation 3 for each row, (rows,)."""
        near, far = (functional.cosine_similarity(own, other) for other in others)
        return self.mu * functional.softplus((far - near) / self.tau)
