"""Fine-tuning: averaging, and each site uses the global model after its own local steps.

Cheng, Chadha, Duchi, "Federated Asymptotics: a model to compare federated learning algorithms", AISTATS 2023,
https://arxiv.org/abs/2108.07313, section 2 (FedAvg with fine-tuning). A site's steps of a round are its fine-tuning, of
the global model it was sent in that round: it costs no step and no privacy beyond federated averaging.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedsim.strategy import Personal, State, Strategy, mean_delta


@dataclass(frozen=True)
class FineTuning(Strategy):
    """No hyperparameters; ``training.local_steps`` of the last round are the fine-tuning."""

    mean_only: ClassVar = True

    def local_rule(self) -> "Tuned":
        """Return what the sites do."""
        return Tuned()

    def aggregate(self, center: Tensor, updates: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the weighted mean, as FedAvg does."""
        return center + mean_delta(center, updates, weights), state


@dataclass(frozen=True)
class Tuned(Personal):
    """Keeps the model that is sent."""

    def finish(self, parameters: Tensor, memory: State, steps: int) -> tuple[Tensor, State]:
        """Send the model and keep it."""
        return parameters, {"personal": parameters}

    def personal(self, center: Tensor, kept: State) -> Tensor:
        """Return the model as it was after the site's own steps."""
        return kept.get("personal", center)
