"""Define the loss of each row, which training minimizes; each kind of outcome has its own (``fedsim.outcomes``)."""

from typing import Protocol

from torch import Tensor

from fedsim.outcomes import outcome_of


class RowLosses(Protocol):
    """A loss function that keeps rows apart."""

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return each row's loss, (rows,).

        The outputs are a model's, (rows, ...), and so are the targets.
        """
        ...


binary: RowLosses = outcome_of("binary").losses
classes: RowLosses = outcome_of("classes").losses
number: RowLosses = outcome_of("number").losses
