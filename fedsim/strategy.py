"""What an aggregation strategy is: pure math on flat tensors."""

from typing import Protocol

from torch import Tensor

State = dict[str, Tensor]


class Strategy(Protocol):
    """A frozen dataclass whose fields are the paper's hyperparameters, checked at construction."""

    def aggregate(self, center: Tensor, updates: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the new global vector and the new state.

        Args:
            center: The global model that was sent out, (params,).
            updates: The models that came back, (sites, params), sorted by site number. Not to be changed in place.
            weights: Each site's share, (sites,), > 0. They sum to 1 when every asked site answered; under privacy the
                denominator is public, so they sum to less when one did not.
            state: What the strategy returned last round; empty in the first.
        """
        ...
